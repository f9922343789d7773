"""A U-Net of residual blocks, with the side paths of NCSN++."""

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
    """Side path: the image, halved from scale to scale, is added at each scale."""

    def __init__(self, channels: int, size: int, style: Style) -> None:
        super().__init__()
        self.move = Halve(style.taps)
        self.conv = nn.Conv2d(channels, size, 1)

    def forward(self, h: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        side = self.move(side)
        return h + self.conv(side), side


class _Residual(nn.Module):
    """Side path: the first features of the finer scale are added to those of the next."""

    def __init__(self, channels: int, size: int, style: Style) -> None:
        super().__init__()
        self.style = style
        # zeros for convolution and filter together, so that the filter sees no inner border
        self.conv = nn.Conv2d(channels, size, 3, padding=1 + (len(style.taps) - 1) // 2)
        self.move = Halve(style.taps, padded=False)

    def forward(self, h: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        h = self.style.add(h, self.move(self.conv(side)))
        return h, h


class _Down(nn.Module):
    """One scale on the way down: halving, the side path, and the blocks."""

    def __init__(
        self, shrink: Block | None, side: _Skip | _Residual | None, blocks: Sequence[Block]
    ) -> None:
        super().__init__()
        self.shrink, self.side, self.blocks = shrink, side, nn.ModuleList(blocks)

    def forward(self, skips: list[Tensor], side: Tensor, embedding: Tensor) -> Tensor:
        """Append the output of each part to ``skips``, and return the side path."""
        h = skips[-1]
        if self.shrink is not None:
            h = self.shrink(h, embedding)
            if self.side is not None:
                h, side = self.side(h, side)
            skips.append(h)
        for block in self.blocks:
            h = block(h, embedding)
            skips.append(h)
        return side


class _Up(nn.Module):
    """One scale on the way up: doubling, the blocks, and its contribution to the output."""

    def __init__(
        self, grow: Block | None, blocks: Sequence[Block], leave: nn.Module | None, style: Style
    ) -> None:
        super().__init__()
        self.grow, self.blocks, self.leave = grow, nn.ModuleList(blocks), leave
        self.move = Double(style.taps)

    def forward(
        self, h: Tensor, skips: list[Tensor], output: Tensor | None, embedding: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        if self.grow is not None:
            h = self.grow(h, embedding)
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], 1), embedding)
        if self.leave is None:
            return h, output
        own = self.leave(h)
        return h, own if output is None else own + self.move(output)


@dataclass(frozen=True)
class Layout:
    """The parts of a trunk.

    Attributes:
        channels: of the image.
        outputs: channels of the result.
        first: channels after the first convolution.
        sizes: channels of each scale, the finest first.
        blocks: residual blocks per scale on the way down; on the way up there is one more.
        attention: the scales with self-attention, 0 for the finest.
        everywhere: on the way up every block of these scales attends, instead of the last only.
        encoder: the side path on the way down: none (``standard``), the image (``skip``), or the
            first features of the finer scale (``residual``).
        decoder: the output of the finest scale (``standard``), or the sum over all (``skip``).
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

    def down(self, scale: int, inputs: int, side: int) -> _Down:
        """Return a scale on the way down; ``side`` are the channels of the side path."""
        style, shrink, path = self.style, None, None
        if scale:
            shrink = Block(inputs, inputs, self.width, style, Halve(style.taps))
            if self.encoder != "standard":
                kind = _Skip if self.encoder == "skip" else _Residual
                path = kind(side, inputs, style)
        blocks = []
        for _ in range(self.blocks):
            size, attends = self.sizes[scale], scale in self.attention
            blocks.append(Block(inputs, size, self.width, style, attends=attends))
            inputs = size
        return _Down(shrink, path, blocks)

    def up(self, scale: int, inputs: int, skips: list[int]) -> _Up:
        """Return a scale on the way up; it pops the channels of its skip connections."""
        style, size, grow = self.style, self.sizes[scale], None
        if scale < len(self.sizes) - 1:
            grow = Block(inputs, inputs, self.width, style, Double(style.taps))
        blocks = []
        for k in range(self.blocks + 1):
            attends = scale in self.attention and (self.everywhere or k == self.blocks)
            blocks.append(Block(inputs + skips.pop(), size, self.width, style, attends=attends))
            inputs = size
        has_output = scale == 0 or self.decoder == "skip"
        return _Up(grow, blocks, _leave(size, self.outputs, style) if has_output else None, style)


def _leave(inputs: int, outputs: int, style: Style) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(conv.weight)
    return nn.Sequential(style.norm(inputs), nn.SiLU(), conv)


class Trunk(nn.Module):
    """A U-Net whose residual blocks change the resolution.

    Raises:
        ValueError: attention at a missing scale.

    Reference: Karras et al. (2022), arXiv:2206.00364, table 7.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        sizes = layout.sizes
        unknown = sorted(set(layout.attention) - set(range(len(sizes))))
        if unknown:
            raise ValueError(f"attention={unknown[0]}: must be a scale from 0 to {len(sizes) - 1}.")
        self.enter = nn.Conv2d(layout.channels, layout.first, 3, padding=1)
        self.down = nn.ModuleList()
        skips, current, side = [layout.first], layout.first, layout.channels
        for scale, size in enumerate(sizes):
            self.down.append(layout.down(scale, current, side))
            if scale and layout.encoder == "residual":
                side = current
            skips += [current] * (scale > 0) + [size] * layout.blocks
            current = size
        self.middle = nn.ModuleList(
            Block(current, current, layout.width, layout.style, attends=attends)
            for attends in (True, False)
        )
        self.up = nn.ModuleList()
        for scale, size in reversed(list(enumerate(sizes))):
            self.up.append(layout.up(scale, current, skips))
            current = size

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(B, outputs, H, W)`` from ``x`` ``(B, C, H, W)`` and ``(B, width)``.

        Raises:
            ValueError: sides that cannot be halved between the scales.
        """
        multiple = 2 ** (len(self.down) - 1)
        if any(side % multiple for side in x.shape[-2:]):
            raise ValueError(
                f"images of {x.shape[-2]} by {x.shape[-1]} pixels: both sides must be multiples of "
                f"{multiple}, to be halved between the {len(self.down)} scales."
            )
        skips, side = [self.enter(x)], x
        for down in self.down:
            side = down(skips, side, embedding)
        h = skips[-1]
        for block in self.middle:
            h = block(h, embedding)
        output: Tensor | None = None
        for up in self.up:
            h, output = up(h, skips, output, embedding)
        assert output is not None
        return output
