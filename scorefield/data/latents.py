"""Images as latents of an autoencoder, which have a density."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.data.encoding import Encoded, Encoding, Shape, Standardize
from scorefield.networks.codec import Codec
from scorefield.noise import Noise


@dataclass(frozen=True)
class Latents(Encoding):
    """The encoding of images by an autoencoder.

    Attributes:
        codec: the autoencoder.
        pixels: the encoding of images as continuous vectors.
        transform: from these to the autoencoder's input.
    """

    codec: Codec
    pixels: Encoding
    transform: Standardize

    width = torch.zeros(())
    absent = torch.zeros((), dtype=torch.bool)

    @property
    def present(self) -> Tensor:  # type: ignore[override]
        return self.pixels.present

    def shape(self, sample: Shape) -> Shape:
        return self.codec.shape(sample)

    @torch.no_grad()
    def base(self, x: Tensor) -> Tensor:
        return self.codec.encode(self.transform.forward(self.pixels.middle(x)))

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        v = self.base(x)
        return Encoded(v, torch.zeros(len(x), device=x.device), noise)

    @torch.no_grad()
    def inverse(self, v: Tensor) -> Tensor:
        return self.pixels.inverse(self.transform.inverse(self.codec.decode(v)))

    def observed(self, missing: Tensor) -> Tensor:
        # every latent depends on many pixels
        whole = ~missing.flatten(1).any(1)
        shape = self.shape(missing.shape[1:])
        return whole.reshape(-1, *[1] * (missing.ndim - 1)).expand(-1, *shape)

    def check(self, x: Tensor, name: str) -> None:
        self.pixels.check(x, name)
