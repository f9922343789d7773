"""A U-Net of residual blocks, with the paths beside it that NCSN++ has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from scorefield.networks.resample import Double, Halve
from scorefield.networks.residual import Block, Style

Encoder = Literal["standard", "skip", "residual"]
Decoder = Literal["standard", "skip"]


class _Skip(nn.Module):
    """The image itself, smaller and smaller, is added at each level."""

    def __init__(self, channels: int, size: int, style: Style) -> None:
        super().__init__()
        self.move = Halve(style.taps)
        self.conv = nn.Conv2d(channels, size, 1)

    def forward(self, h: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        beside = self.move(beside)
        return h + self.conv(beside), beside


class _Residual(nn.Module):
    """What the level above began with is added to what the next begins with."""

    def __init__(self, channels: int, size: int, style: Style) -> None:
        super().__init__()
        self.style = style
        # zeros for the convolution and the filter at once, as if there were no border between them
        self.conv = nn.Conv2d(channels, size, 3, padding=1 + (len(style.taps) - 1) // 2)
        self.move = Halve(style.taps, padded=False)

    def forward(self, h: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        h = self.style.joined(h, self.move(self.conv(beside)))
        return h, h


class _Down(nn.Module):
    """One level on the way down: to its resolution, what comes from beside, and the blocks."""

    def __init__(
        self, shrink: Block | None, beside: _Skip | _Residual | None, blocks: Sequence[Block]
    ) -> None:
        super().__init__()
        self.shrink, self.beside, self.blocks = shrink, beside, nn.ModuleList(blocks)

    def forward(self, kept: list[Tensor], beside: Tensor, embedding: Tensor) -> Tensor:
        """Append what each part made to ``kept``, and return the path beside."""
        h = kept[-1]
        if self.shrink is not None:
            h = self.shrink(h, embedding)
            if self.beside is not None:
                h, beside = self.beside(h, beside)
            kept.append(h)
        for block in self.blocks:
            h = block(h, embedding)
            kept.append(h)
        return beside


class _Up(nn.Module):
    """One level on the way up: to its resolution, the blocks, and what it says of the result."""

    def __init__(
        self, grow: Block | None, blocks: Sequence[Block], leave: nn.Module | None, style: Style
    ) -> None:
        super().__init__()
        self.grow, self.blocks, self.leave = grow, nn.ModuleList(blocks), leave
        self.move = Double(style.taps)

    def forward(
        self, h: Tensor, kept: list[Tensor], said: Tensor | None, embedding: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        if self.grow is not None:
            h = self.grow(h, embedding)
        for block in self.blocks:
            h = block(torch.cat([h, kept.pop()], 1), embedding)
        if self.leave is None:
            return h, said
        own = self.leave(h)
        return h, own if said is None else own + self.move(said)


@dataclass(frozen=True)
class Layout:
    """What a trunk consists of.

    Attributes:
        channels: of the image.
        outputs: channels of the result.
        first: channels that the image is brought to.
        sizes: channels of each level, the finest first.
        blocks: residual blocks per level on the way down; on the way up there is one more.
        attention: the levels with self-attention, 0 for the finest.
        everywhere: on the way up every block of these levels attends, not only the last.
        encoder: what comes from beside at each level on the way down: nothing (``standard``), the
            image itself (``skip``) or what the level above began with (``residual``).
        decoder: the result comes from the finest level (``standard``), or from all (``skip``).
        width: of the embedding.
        style: of the blocks.
    """

    channels: int
    outputs: int
    first: int
    sizes: Sequence[int]
    blocks: int
    attention: Sequence[int]
    everywhere: bool
    encoder: Encoder
    decoder: Decoder
    width: int
    style: Style

    def down(self, level: int, inputs: int, beside: int) -> _Down:
        """Return a level on the way down; ``beside`` are the channels of the path there."""
        style, shrink, path = self.style, None, None
        if level:
            shrink = Block(inputs, inputs, self.width, style, Halve(style.taps))
            if self.encoder != "standard":
                kind = _Skip if self.encoder == "skip" else _Residual
                path = kind(beside, inputs, style)
        blocks = []
        for _ in range(self.blocks):
            size, attends = self.sizes[level], level in self.attention
            blocks.append(Block(inputs, size, self.width, style, attends=attends))
            inputs = size
        return _Down(shrink, path, blocks)

    def up(self, level: int, inputs: int, kept: list[int]) -> _Up:
        """Return a level on the way up; it takes the channels of what it joins off ``kept``."""
        style, size, grow = self.style, self.sizes[level], None
        if level < len(self.sizes) - 1:
            grow = Block(inputs, inputs, self.width, style, Double(style.taps))
        blocks = []
        for k in range(self.blocks + 1):
            attends = level in self.attention and (self.everywhere or k == self.blocks)
            blocks.append(Block(inputs + kept.pop(), size, self.width, style, attends=attends))
            inputs = size
        speaks = level == 0 or self.decoder == "skip"
        return _Up(grow, blocks, _leave(size, self.outputs, style) if speaks else None, style)


def _leave(inputs: int, outputs: int, style: Style) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(conv.weight)
    return nn.Sequential(style.norm(inputs), nn.SiLU(), conv)


class Trunk(nn.Module):
    """A U-Net whose resolutions are changed by residual blocks.

    Raises:
        ValueError: attention at a level that is not there.

    Reference: Karras et al. (2022), arXiv:2206.00364, table 7.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        sizes = layout.sizes
        unknown = sorted(set(layout.attention) - set(range(len(sizes))))
        if unknown:
            raise ValueError(
                f"attention at level {unknown[0]}: there are the levels 0 to {len(sizes) - 1}."
            )
        self.enter = nn.Conv2d(layout.channels, layout.first, 3, padding=1)
        self.down = nn.ModuleList()
        kept, current, beside = [layout.first], layout.first, layout.channels
        for level, size in enumerate(sizes):
            self.down.append(layout.down(level, current, beside))
            if level and layout.encoder == "residual":
                beside = current
            kept += [current] * (level > 0) + [size] * layout.blocks
            current = size
        self.middle = nn.ModuleList(
            Block(current, current, layout.width, layout.style, attends=attends)
            for attends in (True, False)
        )
        self.up = nn.ModuleList()
        for level, size in reversed(list(enumerate(sizes))):
            self.up.append(layout.up(level, current, kept))
            current = size

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(B, outputs, H, W)`` from ``x`` ``(B, C, H, W)`` and ``(B, width)``.

        Raises:
            ValueError: sides that do not halve between the levels.
        """
        multiple = 2 ** (len(self.down) - 1)
        if any(side % multiple for side in x.shape[-2:]):
            raise ValueError(
                f"images of {x.shape[-2]} by {x.shape[-1]} pixels: both sides must be multiples of "
                f"{multiple}, to be halved between the {len(self.down)} levels."
            )
        kept, beside = [self.enter(x)], x
        for down in self.down:
            beside = down(kept, beside, embedding)
        h = kept[-1]
        for block in self.middle:
            h = block(h, embedding)
        said: Tensor | None = None
        for up in self.up:
            h, said = up(h, kept, said, embedding)
        assert said is not None
        return said
