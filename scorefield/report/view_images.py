"""Views of images as a sheet of images, of volumes as slices, and of signals as rows of lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

from scorefield.report.chart import joined
from scorefield.report.images import png_address, sheet
from scorefield.report.view import BOX, Picture, View, limits

_BYTES = 160_000  # of all images of one picture, before they are compressed
_SIDE = 64  # the longest side of an image, in pixels
_LEAST, _MOST_FRAMES = 4, 24  # images of a picture, and frames
_NUMBERS = 480  # values of one frame of signals


class Images(View):
    """Images, as many as the bytes of a picture allow, larger ones reduced."""

    noun = "images"

    def __init__(self, shape: tuple[int, ...], low: float, high: float) -> None:
        self.shape, self.low, self.high = shape, low, high
        self.many = self.few(1, 64)
        channels, height, width = shape
        first = "" if channels in (1, 3) else f" of the first of {channels} channels"
        self.caption = f"Black is {low:.3g} and white {high:.3g}{first}."
        if self._factor(_LEAST, _MOST_FRAMES) > 1:
            self.caption += f" Images of {height} × {width} pixels are reduced in size."

    def few(self, frames: int, most: int = 12) -> int:
        room = _BYTES // (frames * self._bytes(self._factor(_LEAST, frames)))
        return min(most, max(_LEAST, room))

    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        return self._picture(frames, max(1, math.isqrt(len(frames[0]))))

    def strips(self, x: Tensor) -> list[Picture]:
        return [self._picture([x.flatten(0, 1)], x.shape[1])]

    def _picture(self, frames: Sequence[Tensor], columns: int) -> Picture:
        factor = self._factor(len(frames[0]), len(frames))
        canvas = np.concatenate([self._frame(x, factor, columns) for x in reversed(frames)])
        height, width = len(canvas) // len(frames), canvas.shape[1]
        crisp = max(self.shape[1:]) <= _SIDE // 2
        return Picture(width, height, len(frames), png_address(canvas), crisp)

    def _factor(self, count: int, frames: int) -> int:
        """Return how many pixels along a side become one, so that a picture has room for all."""
        factor = -(-max(self.shape[1:]) // _SIDE)
        while count * frames * self._bytes(factor) > _BYTES and factor < max(self.shape[1:]):
            factor += 1
        return factor

    def _bytes(self, factor: int) -> int:
        channels, *sides = self.shape
        return math.prod(max(1, side // factor) for side in sides) * (3 if channels == 3 else 1)

    def _frame(self, x: Tensor, factor: int, columns: int) -> np.ndarray:
        """Return one frame, ``(height, width, 2 or 4)``: shades, and 0 where it is transparent."""
        x = x.double() if x.shape[1] in (1, 3) else x[:, :1].double()
        if factor > 1:
            height, width = (max(1, side // factor) for side in x.shape[2:])
            x = adaptive_avg_pool2d(x, (height, width))
        shades = ((x - self.low) / (self.high - self.low)).clamp(0, 1).nan_to_num(0.0)
        shades = torch.cat([shades, torch.ones_like(shades[:, :1])], 1) * 255
        gap = max(1, min(x.shape[2:]) // 8)
        pixels = shades.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        # frames lie below each other, so each ends with a gap
        return np.pad(sheet(pixels, columns, gap, paper=0), ((0, gap), (0, 0), (0, 0)))


class Slices(View):
    """Volumes, by three slices across their first axis, from left to right."""

    noun = "volumes"

    def __init__(self, shape: tuple[int, ...], low: float, high: float) -> None:
        channels, depth, height, width = shape
        self.places = sorted({(k * depth) // 4 for k in (1, 2, 3)})
        self.images = Images((channels, height, len(self.places) * width), low, high)
        self.many = self.images.many
        places = ", ".join(map(str, self.places))
        self.caption = (
            f"Each image shows the slices {places} of a volume of {depth} × {height} × {width}. "
            f"{self.images.caption}"
        )

    def few(self, frames: int, most: int = 12) -> int:
        return self.images.few(frames, most)

    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        return self.images.picture([self._slices(x) for x in frames])

    def strips(self, x: Tensor) -> list[Picture]:
        return self.images.strips(self._slices(x))

    def _slices(self, x: Tensor) -> Tensor:
        """Return ``(..., C, H, 3 W)`` from ``x`` ``(..., C, D, H, W)``."""
        return torch.cat([x.select(-3, place) for place in self.places], -1)


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
            signal = x[:, channel : channel + 1].double()
            wave = adaptive_avg_pool1d(signal, min(places, x.shape[2]))[:, 0]
            share = ((wave - self.low) / (self.high - self.low)).clamp(-1, 2).nan_to_num(0.5)
            heights = (pitch * (torch.arange(len(x))[:, None] + 0.95 - 0.9 * share)).round()
            across = torch.linspace(0, BOX, share.shape[1]).round().tolist()
            return "".join(joined(list(zip(across, row, strict=True))) for row in heights.tolist())

        paths = tuple(tuple(lines(x, c) for c in range(channels)) for x in frames)
        names = tuple(f"wave tone{c}" for c in range(channels))
        return Picture(BOX, pitch * count, len(frames), layers=names, paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        return [self.picture([strip]) for strip in x]
