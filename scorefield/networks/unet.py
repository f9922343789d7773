"""A small U-Net for images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scorefield.networks.attention import Attention
from scorefield.networks.conditions import NONE, Conditions
from scorefield.networks.embedding import Embedding
from scorefield.networks.recompute import through
from scorefield.networks.residual import Block, Style

_GROUP = 8


_STYLE = Style(scaled=True, rescaled=False, projected=False, group=_GROUP, groups=2**16)


class UNet(nn.Module):
    """A U-Net with attention at its coarsest scale, for images of any size.

    Sides that cannot be halved at every scale are padded, and the result is cropped.

    Args:
        channels: of the image.
        width: channels at the finest scale, a multiple of 8.
        multipliers: channels of each scale, in multiples of ``width``; at least one scale.
        blocks: residual blocks per scale, on the way down and on the way up.
        conditions: the conditions by their names.
        heads: attention heads.
        recompute: recompute the blocks in the backward pass, to save memory.

    Raises:
        ValueError: the channels do not divide into groups and heads.
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
    ) -> None:
        super().__init__()
        self.recompute = recompute
        sizes = [width * m for m in multipliers]
        if width % _GROUP or sizes[-1] % heads:
            raise ValueError(
                f"width={width}, heads={heads}: width must be a multiple of {_GROUP}, and the "
                f"{sizes[-1]} channels of the coarsest scale a multiple of heads."
            )
        self.multiple = 2 ** (len(sizes) - 1)
        self.embedding = Embedding(4 * width, conditions)
        self.enter = nn.Conv2d(channels, sizes[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        skips, current = [], sizes[0]
        for scale, size in enumerate(sizes):
            for _ in range(blocks):
                self.down.append(Block(current, size, 4 * width, _STYLE))
                current = size
                skips.append(size)
            if scale < len(sizes) - 1:
                self.shrink.append(nn.Conv2d(size, size, 3, stride=2, padding=1))
        self.middle = nn.ModuleList(Block(current, current, 4 * width, _STYLE) for _ in range(2))
        self.attention = Attention(current, heads, _STYLE.norm(current))
        for scale, size in reversed(list(enumerate(sizes))):
            for _ in range(blocks):
                self.up.append(Block(current + skips.pop(), size, 4 * width, _STYLE))
                current = size
            if scale > 0:
                self.grow.append(nn.Conv2d(size, size, 3, padding=1))
        self.blocks = blocks
        self.norm = _STYLE.norm(current)
        self.leave = nn.Conv2d(current, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, C, H, W)`` from such ``x``, labels ``(B,)`` and conditions by name."""
        height, width = x.shape[-2:]
        embedding = self.embedding(label, **condition)
        h = self.enter(
            nn.functional.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        )
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            if i and i % self.blocks == 0:
                h = self.shrink[i // self.blocks - 1](h)
            h = through(block, h, embedding, recompute=self.recompute)
            skips.append(h)
        first, second = self.middle
        h = through(first, h, embedding, recompute=self.recompute)
        h = through(second, h + self.attention(h), embedding, recompute=self.recompute)
        for i, block in enumerate(self.up):
            if i and i % self.blocks == 0:
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
                h = self.grow[i // self.blocks - 1](h)
            h = torch.cat([h, skips.pop()], 1)
            h = through(block, h, embedding, recompute=self.recompute)
        out: Tensor = self.leave(nn.functional.silu(self.norm(h)))
        return out[..., :height, :width]
