"""What one sees of samples: images as images, signals as lines, vectors as points or as bars.

A view turns a few frames, each a batch of samples in the data's units, into one picture whose
frames a slider can show one after another. Limits and shades are fixed when the view is made, so
that frames and pictures can be compared.
"""

from __future__ import annotations

import base64
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield.config import numbered
from scorefield.report.style import optional
from scorefield.training import Run

_BYTES = 160_000  # of all the tiles of one picture, before they are packed
_SIDE = 64  # pixels of an image at the most
_LEAST, _MOST_FRAMES = 4, 24  # images of a picture, and frames
_BOX = 1000  # the side of a drawing
_NUMBERS = 480  # of one frame of signals
_FEW = 16  # columns, of which the first two that are numbers are drawn
_BINS = 40
_MARKED = 5  # points to follow by eye
_OUTER = 0.005  # share of the values on each side that limits may leave out


@dataclass(frozen=True)
class Picture:
    """Frames of one size: a sheet of images, the last one on top, or drawings of paths.

    Attributes:
        width, height: of a frame, in pixels of the data or in units of the drawing.
        frames: how many there are.
        uri: the sheet.
        crisp: whether its pixels are to be seen.
        layers: the names of a drawing's layers.
        paths: of each frame, the path of each layer.
    """

    width: int
    height: int
    frames: int
    uri: str = ""
    crisp: bool = False
    layers: tuple[str, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()


class View(ABC):
    """A way to look at samples.

    Attributes:
        noun: what samples are called.
        many: how many a large picture shows.
        caption: what is seen of them.
    """

    noun: str
    many: int
    caption: str

    @abstractmethod
    def few(self, frames: int, most: int = 12) -> int:
        """Return how many samples a picture of so many frames shows, ``most`` of them images."""

    @abstractmethod
    def picture(self, frames: Sequence[Tensor]) -> Picture:
        """Return the picture of frames, each ``(n, *shape)``."""

    @abstractmethod
    def strips(self, x: Tensor) -> list[Picture]:
        """Return pictures of the ways between samples, ``(pairs, points, *shape)``."""


def view_of(run: Run, x: Tensor) -> View:
    """Return the view of a run's data, its limits taken from samples ``x``."""
    if len(run.config.data.shape) == 3:
        levels = run.config.train.levels
        low, high = (0.0, levels - 1.0) if levels else _limits(x)
        return Images(tuple(x.shape[1:]), low, high)
    if len(run.config.data.shape) == 2:
        return Signals(x)
    project, names = _projection(run, x)
    return (Bars if len(names) == 1 else Points)(project, names, project(x))


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

    def picture(self, frames: Sequence[Tensor]) -> Picture:
        return self._sheet(frames, max(1, math.isqrt(len(frames[0]))))

    def strips(self, x: Tensor) -> list[Picture]:
        return [self._sheet([x.flatten(0, 1)], x.shape[1])]

    def _sheet(self, frames: Sequence[Tensor], columns: int) -> Picture:
        factor = self._factor(len(frames[0]), len(frames))
        tiles = [self._frame(x, factor, columns) for x in reversed(frames)]
        sheet = np.concatenate(tiles)
        height, width = sheet.shape[0] // len(frames), sheet.shape[1]
        file = io.BytesIO()
        optional("PIL.Image", "report").fromarray(sheet).save(file, format="PNG", optimize=True)
        uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        return Picture(width, height, len(frames), uri, crisp=max(self.shape[1:]) <= _SIDE // 2)

    def _factor(self, count: int, frames: int) -> int:
        """Return how many pixels become one along a side, for a picture to have room for all."""
        factor = -(-max(self.shape[1:]) // _SIDE)
        while count * frames * self._bytes(factor) > _BYTES and factor < min(self.shape[1:]):
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
            x = torch.nn.functional.avg_pool2d(x, factor)
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
        self.low, self.high = _limits(x)
        channels = min(x.shape[1], 3)
        some = "" if channels == x.shape[1] else f" the first {channels} of {x.shape[1]} channels,"
        self.caption = (
            f"Each row is a signal,{some} with {x.shape[2]} places from left to right and values "
            f"from {self.low:.3g} to {self.high:.3g}."
        )

    def few(self, frames: int, most: int = 12) -> int:
        return 5

    def picture(self, frames: Sequence[Tensor]) -> Picture:
        count, channels = len(frames[0]), min(frames[0].shape[1], 3)
        places = max(8, _NUMBERS // (count * channels))
        pitch = _BOX // max(count, 4)

        def lines(x: Tensor, channel: int) -> str:
            wave = torch.nn.functional.adaptive_avg_pool1d(
                x[:, channel : channel + 1].double(), min(places, x.shape[2])
            )[:, 0]
            share = ((wave - self.low) / (self.high - self.low)).clamp(0, 1).nan_to_num(0.5)
            heights = (pitch * (torch.arange(len(x))[:, None] + 0.95 - 0.9 * share)).round()
            across = torch.linspace(0, _BOX, share.shape[1]).round().int().tolist()
            return "".join(_joined(across, row) for row in heights.int().tolist())

        paths = tuple(tuple(lines(x, c) for c in range(channels)) for x in frames)
        names = tuple(f"wave tone{c}" for c in range(channels))
        return Picture(_BOX, pitch * count, len(frames), layers=names, paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        return [self.picture([strip]) for strip in x]


class Points(View):
    """Vectors as points in two coordinates, a few of them marked so that they can be followed."""

    noun, many = "points", 400

    def __init__(
        self, project: Callable[[Tensor], Tensor], names: tuple[str, ...], at: Tensor
    ) -> None:
        self.project = project
        self.limits = [_limits(at[:, k], 0.12) for k in range(2)]
        across, up = (f"{n} from {a:.3g} to {b:.3g}" for n, (a, b) in zip(names, self.limits))  # noqa: B905
        self.caption = f"Across: {across}. Upwards: {up}. Coloured points can be followed."

    def few(self, frames: int, most: int = 12) -> int:
        return 256

    def picture(self, frames: Sequence[Tensor]) -> Picture:
        paths = tuple(self._layers(self._places(x)) for x in frames)
        names = ("dots", *(f"dot tone{k}" for k in range(_MARKED)))
        return Picture(_BOX, _BOX, len(frames), layers=names, paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        return [_ways([self._places(strip).tolist() for strip in x])]

    def _places(self, x: Tensor) -> Tensor:
        """Return the points in the drawing, ``(n, 2)``, NaN for those with a gap."""
        at, (low, high) = self.project(x), torch.tensor(self.limits, dtype=torch.float64).T
        share = (at - low) / (high - low)
        return _BOX * torch.stack([share[:, 0], 1 - share[:, 1]], 1)

    def _layers(self, places: Tensor) -> tuple[str, ...]:
        dots = [f"M{x:.0f} {y:.0f}h0" if _near(x, y) else "" for x, y in places.tolist()]
        return ("".join(dots[_MARKED:]), *dots[:_MARKED])


class Bars(View):
    """Vectors by one coordinate, as a histogram."""

    noun, many = "values", 2000

    def __init__(
        self, project: Callable[[Tensor], Tensor], names: tuple[str, ...], at: Tensor
    ) -> None:
        self.project, (low, high) = project, _limits(at[:, 0], 0.12)
        self.edges = torch.linspace(low, high, _BINS + 1, dtype=torch.float64)
        self.top = 1.3 * float(self._shares(at).max())
        self.caption = f"Across: {names[0]} from {low:.3g} to {high:.3g}. Upwards: how often."

    def few(self, frames: int, most: int = 12) -> int:
        return 1000

    def picture(self, frames: Sequence[Tensor]) -> Picture:
        width = _BOX // _BINS

        def bars(x: Tensor) -> str:
            shares = (self._shares(self.project(x)) / self.top).clamp(max=1)
            heights = (_BOX * (1 - shares)).round().int().tolist()
            return f"M0 {_BOX}" + "".join(f"V{h}h{width}" for h in heights) + f"V{_BOX}Z"

        paths = tuple((bars(x),) for x in frames)
        return Picture(_BOX, _BOX, len(frames), layers=("bars",), paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        low, high = float(self.edges[0]), float(self.edges[-1])
        across = torch.linspace(0, _BOX, x.shape[1]).tolist()
        heights = [_BOX * (1 - (self.project(s)[:, 0] - low) / (high - low)) for s in x]
        return [_ways([list(zip(across, h.tolist(), strict=True)) for h in heights])]

    def _shares(self, at: Tensor) -> Tensor:
        values = at[:, 0][at[:, 0].isfinite()]
        return torch.histogram(values, self.edges).hist / max(1, len(at))


def _projection(run: Run, x: Tensor) -> tuple[Callable[[Tensor], Tensor], tuple[str, ...]]:
    """Return what takes vectors to one or two coordinates ``(n, 1 or 2)``, and their names.

    The first two columns that are numbers, if there are few; otherwise the directions in which
    samples ``x`` vary most, as the field sees them.
    """
    columns, size = run.config.data.columns, run.config.data.shape[0]
    names = columns.names or numbered(size)
    numbers = [
        k for k, n in enumerate(names) if n not in columns.categories and n not in columns.constant
    ]
    if size <= _FEW and len(numbers) >= min(size, 2):
        some = numbers[:2]
        said = names if columns.names else [f"coordinate {n}" for n in names]
        return lambda v: v[:, some].double(), tuple(said[k] for k in some)

    def seen(v: Tensor) -> Tensor:
        return run.transform.forward(run.encoding.middle(v)).double()

    mean, directions = principal(seen(x))
    ranks = ("first", "second")[: len(directions)]
    return (
        lambda v: (seen(v) - mean) @ directions.T,
        tuple(f"{rank} principal component, in deviations," for rank in ranks),
    )


def principal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ``z`` ``(n, d)``, and one or two directions in which it varies most.

    Each so turned that its largest entry is positive.
    """
    z = z.double()
    mean = z.mean(0)
    directions = torch.linalg.svd(z - mean, full_matrices=False).Vh[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return mean, directions * largest.sign()


def _limits(x: Tensor, room: float = 0.0) -> tuple[float, float]:
    """Return ends that hold nearly all finite values."""
    values = x[x.isfinite()].double().flatten()
    values = values[:: -(-len(values) // 1_000_000)] if len(values) else values.new_zeros(1)
    low, high = (float(values.quantile(q)) for q in (_OUTER, 1 - _OUTER))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return low - room * (high - low), high + room * (high - low)


def _joined(across: Sequence[int], heights: Sequence[int]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in zip(across, heights, strict=True))


def _ways(ways: Sequence[Sequence[Sequence[float]]]) -> Picture:
    """Return a drawing of ways, each in its colour, with a dot at each of its points."""
    shown = [[(x, y) for x, y in way if _near(x, y)] for way in ways]
    lines = ["M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in way) if way else "" for way in shown]
    dots = ["".join(f"M{x:.0f} {y:.0f}h0" for x, y in way) for way in shown]
    names = [f"{kind} tone{k}" for kind in ("strip", "stop") for k in range(len(ways))]
    return Picture(_BOX, _BOX, 1, layers=tuple(names), paths=((*lines, *dots),))


def _near(x: float, y: float) -> bool:
    """Return whether a point lies in the drawing or not far from it; not one with a gap."""
    return abs(x) < 2 * _BOX and abs(y) < 2 * _BOX
