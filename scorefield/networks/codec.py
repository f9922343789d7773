"""Autoencoders of diffusers: between pictures and the latents that a network has learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from scorefield.networks.diffusers import made

CODECS = ("AutoencoderKL", "VQModel")
Shape = tuple[int, ...]


class Codec(nn.Module):
    """An autoencoder for pictures from -1 to 1: ``z = scale (encode(x) - shift)``.

    Of an encoder that is a distribution, the mode is taken.

    Args:
        architecture: the name of its class in diffusers.
        arguments: of the class, as JSON.
        scale, shift: that bring latents to a mean near 0 and a deviation near 1.

    Attributes:
        channels, latents: of pictures, and of their latents.
        factor: how many times smaller the sides of latents are.

    Raises:
        ValueError: a class that is not known, or arguments that it does not take.
        ImportError: diffusers is not installed.
    """

    def __init__(
        self, architecture: str, arguments: str, scale: float = 1.0, shift: float = 0.0
    ) -> None:
        super().__init__()
        if architecture not in CODECS:
            raise ValueError(
                f"no autoencoder {architecture!r} of diffusers: give one of {', '.join(CODECS)}."
            )
        self.architecture, self.arguments = architecture, arguments
        self.scale, self.shift = scale, shift
        self.inner: Any = made(architecture, arguments)
        settings: Any = self.inner.config
        if settings.in_channels != settings.out_channels:
            raise ValueError(
                f"this {architecture} makes {settings.out_channels} channels of "
                f"{settings.in_channels}: it is no autoencoder of pictures."
            )
        self.channels: int = settings.in_channels
        self.latents: int = settings.get("vq_embed_dim") or settings.latent_channels
        self.factor = 2 ** (len(settings.block_out_channels) - 1)

    def shape(self, sample: Shape) -> Shape:
        """Return the shape of the latents of a picture ``(C, H, W)``.

        Raises:
            ValueError: what is no picture of its channels, or of sides that do not halve cleanly.
        """
        channels, *sides = sample
        if len(sides) != 2 or channels != self.channels or any(s % self.factor for s in sides):
            raise ValueError(
                f"this {self.architecture} takes {self.channels} channels, of sides that are "
                f"multiples of {self.factor}, and a sample has shape {sample}."
            )
        return (self.latents, *(side // self.factor for side in sides))

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of pictures ``(B, C, H, W)``, each by itself."""
        return _each(self._encoded, x, self.shape(tuple(x.shape[1:])))

    def decode(self, z: Tensor) -> Tensor:
        """Return the pictures of latents, each by itself."""
        sides = (self.factor * side for side in z.shape[2:])
        return _each(self._decoded, z, (self.channels, *sides))

    def _encoded(self, x: Tensor) -> Tensor:
        found = self.inner.encode(x.to(next(self.parameters())))
        latents = found.latents if self.architecture == "VQModel" else found.latent_dist.mode()
        out: Tensor = self.scale * (latents - self.shift)
        return out

    def _decoded(self, z: Tensor) -> Tensor:
        z = z.to(next(self.parameters()))
        out: Tensor = self.inner.decode(z / self.scale + self.shift).sample
        return out


def _each(of_one: Callable[[Tensor], Tensor], batch: Tensor, shape: Shape) -> Tensor:
    """Return what becomes of each item, of a shape, which so does not depend on the others."""
    found = batch.new_empty(len(batch), *shape)
    for k, one in enumerate(batch):
        found[k] = of_one(one[None])[0]
    return found
