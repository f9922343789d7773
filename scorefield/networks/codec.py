"""Codecs: data to latents and back, by autoencoders of diffusers or as `codecs` trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.networks.diffusers import build

CODECS = ("AutoencoderKL", "VQModel")
Shape = tuple[int, ...]


class Codec(nn.Module, ABC):
    """A map from data to latents, and back."""

    @abstractmethod
    def shape(self, sample: Shape) -> Shape:
        """Return the shape of the latents of a sample.

        Raises:
            ValueError: a shape that the codec does not take.
        """

    @abstractmethod
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents of data ``(B, *sample)``."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Return the data of latents; of a decoder with noise, its mean."""


class DiffusersCodec(Codec):
    """An autoencoder for pictures from -1 to 1: ``z = scale (encode(x) - shift)``.

    For an encoder that returns a distribution, the mode is used.

    Args:
        architecture: the name of its class in diffusers.
        arguments: of the class, as JSON.
        scale, shift: give latents a mean near 0 and a standard deviation near 1.

    Attributes:
        channels, latents: the channels of pictures, and of their latents.
        factor: the ratio of the sides of pictures and latents.

    Raises:
        ValueError: an unknown class, or arguments that it does not accept.
        ImportError: diffusers is not installed.
    """

    def __init__(
        self, architecture: str, arguments: str, scale: float = 1.0, shift: float = 0.0
    ) -> None:
        super().__init__()
        if architecture not in CODECS:
            raise ValueError(f"architecture={architecture!r}: must be one of {', '.join(CODECS)}.")
        self.architecture, self.arguments = architecture, arguments
        self.scale, self.shift = scale, shift
        self.inner: Any = build(architecture, arguments)
        settings: Any = self.inner.config
        if settings.in_channels != settings.out_channels:
            raise ValueError(
                f"{architecture} has in_channels={settings.in_channels} and "
                f"out_channels={settings.out_channels}: an autoencoder must have equal numbers."
            )
        self.channels: int = settings.in_channels
        self.latents: int = settings.get("vq_embed_dim") or settings.latent_channels
        self.factor = 2 ** (len(settings.block_out_channels) - 1)

    def shape(self, sample: Shape) -> Shape:
        """Return the shape of the latents of a picture ``(C, H, W)``.

        Raises:
            ValueError: other channels, or sides that cannot be halved at every scale.
        """
        channels, *sides = sample
        if len(sides) != 2 or channels != self.channels or any(s % self.factor for s in sides):
            raise ValueError(
                f"a sample has shape {sample}: {self.architecture} needs {self.channels} channels "
                f"and sides that are multiples of {self.factor}."
            )
        return (self.latents, *(side // self.factor for side in sides))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents of pictures ``(B, C, H, W)``, one by one, and zeros."""
        z = _each(self._encode, x, self.shape(tuple(x.shape[1:])))
        return z, torch.zeros_like(z)

    def decode(self, z: Tensor) -> Tensor:
        """Return the pictures of latents, one by one."""
        sides = (self.factor * side for side in z.shape[2:])
        return _each(self._decode, z, (self.channels, *sides))

    def _encode(self, x: Tensor) -> Tensor:
        code = self.inner.encode(x.to(next(self.parameters())))
        latents = code.latents if self.architecture == "VQModel" else code.latent_dist.mode()
        out: Tensor = self.scale * (latents - self.shift)
        return out

    def _decode(self, z: Tensor) -> Tensor:
        z = z.to(next(self.parameters()))
        out: Tensor = self.inner.decode(z / self.scale + self.shift).sample
        return out


def _each(function: Callable[[Tensor], Tensor], batch: Tensor, shape: Shape) -> Tensor:
    """Return a function of each item, one by one, so that no item depends on its batch."""
    result = batch.new_empty(len(batch), *shape)
    for k, item in enumerate(batch):
        result[k] = function(item[None])[0]
    return result
