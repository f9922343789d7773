"""Images as a sheet of images, and signals as rows of lines."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield.report.style import optional
from scorefield.report.view import BOX, Picture, View, limits

_BYTES = 160_000  # of all the tiles of one picture, before they are packed
_SIDE = 64  # pixels of an image at the most
_LEAST, _MOST_FRAMES = 4, 24  # images of a picture, and frames
_NUMBERS = 480  # of one frame of signals


@dataclass(frozen=True)
class Images(View):
    """Images, as many as the bytes of a picture allow, larger ones reduced."""

    shape: tuple[int, ...]
    low: float
    high: float
    noun = "images"

    @property
    def many(self) -> int:  # type: ignore[override]
        return self.few(1, 64)

    @property
    def caption(self) -> str:  # type: ignore[override]
        channels, height, width = self.shape
        shown = "" if channels in (1, 3) else f" of the first of {channels} channels"
        small = self._factor(_LEAST, _MOST_FRAMES) == 1
        reduced = "" if small else f" Images of {height} × {width} pixels are shown with fewer."
        return f"Black is {self.low:.3g} and white {self.high:.3g}{shown}.{reduced}"

    def few(self, frames: int, most: int = 12) -> int:
        room = _BYTES // (frames * self._bytes(self._factor(_LEAST, frames)))
        return min(most, max(_LEAST, room))

    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        return self._sheet(frames, max(1, math.isqrt(len(frames[0]))))

    def strips(self, x: Tensor) -> list[Picture]:
        return [self._sheet([x.flatten(0, 1)], x.shape[1])]

    def _sheet(self, frames: Sequence[Tensor], columns: int) -> Picture:
        factor = self._factor(len(frames[0]), len(frames))
        tiles = [self._frame(x, factor, columns) for x in reversed(frames)]
        sheet = np.concatenate(tiles)
        height, width = sheet.shape[0] // len(frames), sheet.shape[1]
        file = io.BytesIO()
        optional("PIL.Image").fromarray(sheet).save(file, format="PNG", optimize=True)
        uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        return Picture(width, height, len(frames), uri, crisp=max(self.shape[1:]) <= _SIDE // 2)

    def _factor(self, count: int, frames: int) -> int:
        """Return how many pixels become one along a side, for a picture to have room for all."""
        factor = -(-max(self.shape[1:]) // _SIDE)
        while count * frames * self._bytes(factor) > _BYTES and factor < max(self.shape[1:]):
            factor += 1
        return factor

    def _bytes(self, factor: int) -> int:
        channels, height, width = self.shape
        each = max(1, height // factor) * max(1, width // factor)
        return each * (3 if channels == 3 else 1)

    def _frame(self, x: Tensor, factor: int, columns: int) -> np.ndarray:
        """Return one frame, ``(height, width, 2 or 4)``: shades, and 0 to see through."""
        x = x.double() if x.shape[1] in (1, 3) else x[:, :1].double()
        if factor > 1:
            height, width = (max(1, side // factor) for side in x.shape[2:])
            x = torch.nn.functional.adaptive_avg_pool2d(x, (height, width))
        shades = ((x - self.low) / (self.high - self.low)).clamp(0, 1).nan_to_num(0.0) * 255
        tiles = shades.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        count, height, width, channels = tiles.shape
        gap = max(1, min(height, width) // 8)
        rows, pitch = -(-count // columns), (height + gap, width + gap)
        sheet = np.zeros((rows * pitch[0], columns * pitch[1] - gap, channels + 1), np.uint8)
        for k, tile in enumerate(tiles):
            top, left = k // columns * pitch[0], k % columns * pitch[1]
            sheet[top : top + height, left : left + width, :channels] = tile
            sheet[top : top + height, left : left + width, channels] = 255
        return sheet


class Signals(View):
    """Signals, one below the other, a colour for each of the first three channels."""

    noun, many = "signals", 8

    def __init__(self, x: Tensor) -> None:
        self.low, self.high = limits(x, 0.05)
        channels = min(x.shape[1], 3)
        some = "" if channels == x.shape[1] else f" the first {channels} of {x.shape[1]} channels,"
        self.caption = (
            f"Each row is a signal,{some} with {x.shape[2]} places from left to right and values "
            f"from {self.low:.3g} to {self.high:.3g}."
        )

    def few(self, frames: int, most: int = 12) -> int:
        return 5

    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        count, channels = len(frames[0]), min(frames[0].shape[1], 3)
        places = max(8, _NUMBERS // (count * channels))
        pitch = BOX // max(count, 4)

        def lines(x: Tensor, channel: int) -> str:
            wave = torch.nn.functional.adaptive_avg_pool1d(
                x[:, channel : channel + 1].double(), min(places, x.shape[2])
            )[:, 0]
            share = ((wave - self.low) / (self.high - self.low)).clamp(-1, 2).nan_to_num(0.5)
            heights = (pitch * (torch.arange(len(x))[:, None] + 0.95 - 0.9 * share)).round()
            across = torch.linspace(0, BOX, share.shape[1]).round().int().tolist()
            return "".join(_joined(across, row) for row in heights.int().tolist())

        paths = tuple(tuple(lines(x, c) for c in range(channels)) for x in frames)
        names = tuple(f"wave tone{c}" for c in range(channels))
        return Picture(BOX, pitch * count, len(frames), layers=names, paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        return [self.picture([strip]) for strip in x]


def _joined(across: Sequence[int], heights: Sequence[int]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in zip(across, heights, strict=True))
