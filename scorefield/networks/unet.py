"""A small U-Net for signals, images and volumes.

A convolution does not know where it is. `coordinates` are further input channels, ``2 K`` for each
axis of ``n`` places::

    cos(2^k pi u), sin(2^k pi u),   u = (i + 1/2) / n,   k = 0, ..., K - 1         (1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from scorefield.networks.attention import Attention
from scorefield.networks.conditions import NONE, Conditions
from scorefield.networks.convolution import convolution, cropped, padded
from scorefield.networks.cross_attention import CrossAttention, Sets
from scorefield.networks.embedding import Embedding
from scorefield.networks.recompute import through
from scorefield.networks.residual import Block, Style

_GROUP = 8
_OCTAVES = 4  # K of (1)
_STYLE = Style(scaled=True, rescaled=False, projected=False, group=_GROUP, groups=2**16)


class UNet(nn.Module):
    """A U-Net with attention at its coarsest scale, for samples of any size.

    Sides that cannot be halved at every scale are padded, and the result is cropped.

    Args:
        channels: of a sample.
        width: channels at the finest scale, a multiple of 8.
        multipliers: channels of each scale, in multiples of ``width``; at least one scale.
        blocks: residual blocks per scale, on the way down and on the way up.
        conditions: the conditions by their names.
        heads: attention heads.
        recompute: recompute the blocks in the backward pass, to save memory.
        positions: append `coordinates` to the input; the default is to do so for signals only.
        dims: the number of spatial axes: 1 for signals, 2 for images, 3 for volumes.
        cross_attention: the places of the coarsest scale attend to the vectors of conditions that
            are sets, besides the embedding of each set.

    Raises:
        ValueError: the channels do not divide into groups and heads; another number of axes;
            cross-attention without a set.
    """

    def __init__(
        self,
        channels: int,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        conditions: Conditions = NONE,
        heads: int = 2,
        recompute: bool = False,
        positions: bool | None = None,
        dims: int = 2,
        cross_attention: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.positions = dims == 1 if positions is None else positions
        conv, style = convolution(dims), replace(_STYLE, dims=dims)
        sizes = [width * m for m in multipliers]
        if width % _GROUP or sizes[-1] % heads:
            raise ValueError(
                f"width={width}, heads={heads}: width must be a multiple of {_GROUP}, and the "
                f"{sizes[-1]} channels of the coarsest scale a multiple of heads."
            )
        self.multiple = 2 ** (len(sizes) - 1)
        self.embedding = Embedding(4 * width, conditions)
        inputs = channels + 2 * _OCTAVES * dims * self.positions
        self.enter = conv(inputs, sizes[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        skips, current = [], sizes[0]
        for scale, size in enumerate(sizes):
            for _ in range(blocks):
                self.down.append(Block(current, size, 4 * width, style))
                current = size
                skips.append(size)
            if scale < len(sizes) - 1:
                self.shrink.append(conv(size, size, 3, stride=2, padding=1))
        self.middle = nn.ModuleList(Block(current, current, 4 * width, style) for _ in range(2))
        self.attention = Attention(current, heads, style.norm(current), dims)
        self.sets = Sets(conditions, current) if cross_attention else None
        self.cross = CrossAttention(current, current, heads) if cross_attention else None
        for scale, size in reversed(list(enumerate(sizes))):
            for _ in range(blocks):
                self.up.append(Block(current + skips.pop(), size, 4 * width, style))
                current = size
            if scale > 0:
                self.grow.append(conv(size, size, 3, padding=1))
        self.blocks = blocks
        self.norm = style.norm(current)
        self.leave = conv(current, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, C, *sides)`` from such ``x``, labels ``(B,)`` and conditions by name."""
        embedding, sides = self.embedding(label, **condition), x.shape[2:]
        if self.positions:
            x = torch.cat([x, coordinates(sides, x).expand(len(x), -1, *sides)], 1)
        h = self.enter(padded(x, self.multiple))
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            if i and i % self.blocks == 0:
                h = self.shrink[i // self.blocks - 1](h)
            h = through(block, h, embedding, recompute=self.recompute)
            skips.append(h)
        first, second = self.middle
        h = through(first, h, embedding, recompute=self.recompute)
        h = h + self.attention(h)
        if self.sets is not None and self.cross is not None:
            residual = self.cross(h.flatten(2).mT, self.sets(condition, h))
            h = h + residual.mT.reshape(h.shape)
        h = through(second, h, embedding, recompute=self.recompute)
        for i, block in enumerate(self.up):
            if i and i % self.blocks == 0:
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
                h = self.grow[i // self.blocks - 1](h)
            h = torch.cat([h, skips.pop()], 1)
            h = through(block, h, embedding, recompute=self.recompute)
        out: Tensor = self.leave(nn.functional.silu(self.norm(h)))
        return cropped(out, sides)


def coordinates(sides: Sequence[int], like: Tensor) -> Tensor:
    """Return the channels (1) of all places, ``(2 K axes, *sides)``.

    Args:
        like: a tensor of the device and of the type.
    """
    octaves = math.pi * 2.0 ** torch.arange(_OCTAVES, device=like.device)
    parts = []
    for axis, side in enumerate(sides):
        u = (torch.arange(side, device=like.device) + 0.5) / side
        angles = octaves[:, None] * u
        waves = torch.cat([angles.cos(), angles.sin()])
        shape = [side if k == axis else 1 for k in range(len(sides))]
        parts.append(waves.reshape(-1, *shape).expand(-1, *sides))
    return torch.cat(parts).to(like)
