"""The residual block of all U-Nets here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from scorefield.networks.attention import Attention
from scorefield.networks.convolution import convolution
from scorefield.networks.resample import Double, Halve


@dataclass(frozen=True)
class Style:
    """Settings that differ between these families.

    Attributes:
        scaled: the embedding scales the channels and shifts them, instead of only shifting.
        rescaled: sums of two branches are divided by the root of 2, to keep their variance.
        projected: residuals are projected wherever the resolution changes, instead of only where
            the number of channels changes.
        eps: of the group norms.
        group, groups: fewest channels in a group, and most groups, of the norms.
        head: channels per attention head; 0 for a single head.
        heads: the number of heads instead, if not 0.
        taps: of the filter for halving and doubling images.
        dims: the number of spatial axes.
    """

    scaled: bool
    rescaled: bool
    projected: bool
    eps: float = 1e-5
    group: int = 4
    groups: int = 32
    head: int = 0
    heads: int = 0
    taps: Sequence[float] = (1, 1)
    dims: int = 2

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the sum of two branches, rescaled or not."""
        return (a + b) * math.sqrt(0.5) if self.rescaled else a + b

    def norm(self, channels: int) -> nn.GroupNorm:
        """Return a group norm."""
        count = min(self.groups, max(1, channels // self.group))
        return nn.GroupNorm(count, channels, eps=self.eps)

    def attention(self, channels: int) -> Attention:
        """Return self-attention."""
        heads = self.heads or (channels // self.head if self.head else 1)
        return Attention(channels, heads, self.norm(channels), self.dims)


class Block(nn.Module):
    """Two convolutions with a residual, modulated by the embedding, then attention if asked for.

    Args:
        inputs, outputs: channels.
        width: of the embedding.
        style: settings of the family.
        move: change of resolution, before the first convolution and in the residual.
        attends: whether attention follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        style: Style,
        move: Halve | Double | None = None,
        attends: bool = False,
    ) -> None:
        super().__init__()
        self.style = style
        self.move = nn.Identity() if move is None else move
        self.norm1 = style.norm(inputs)
        conv = convolution(style.dims)
        self.conv1 = conv(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * outputs if style.scaled else outputs)
        self.norm2 = style.norm(outputs)
        self.conv2 = conv(outputs, outputs, 3, padding=1)
        projects = inputs != outputs or (move is not None and style.projected)
        self.skip = conv(inputs, outputs, 1) if projects else nn.Identity()
        self.attention = style.attention(outputs) if attends else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(B, outputs, ...)``, at the new resolution, from ``x`` ``(B, inputs, ...)``."""
        h = self.conv1(self.move(nn.functional.silu(self.norm1(x))))
        modulation = self.modulation(embedding)[(..., *[None] * self.style.dims)]
        if self.style.scaled:
            scale, shift = modulation.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + modulation)
        out = self.style.add(self.skip(self.move(x)), self.conv2(nn.functional.silu(h)))
        if self.attention is None:
            return out
        return self.style.add(out, self.attention(out))
