"""Views of vectors by one or two of their coordinates: as bars, or as points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scorefield.data.config import numbered
from scorefield.report.chart import joined
from scorefield.report.view import BOX, Picture, View, limits
from scorefield.runs.run import Run

_FEW = 16  # columns, of which the first two numeric ones are drawn
_BINS = 40
_MARKED = 5  # points with a colour of their own
_LEAST, _MOST, _NUMBERS = 32, 256, 100_000  # points that move, and numbers in all of them

Projection = Callable[[Tensor], Tensor]  # vectors (n, d) to coordinates (n, 1 or 2)


class Points(View):
    """Vectors as points in two coordinates; colours mark a few that are followed."""

    noun, many = "points", 400
    hint = "Points of one colour are one sample."

    def __init__(self, project: Projection, names: tuple[str, ...], x: Tensor) -> None:
        self.project, self.size, at = project, x.shape[1], project(x)
        self.ends = [limits(at[:, k], 0.12) for k in range(2)]
        across, up = (f"{n} from {a:.3g} to {b:.3g}" for n, (a, b) in zip(names, self.ends))  # noqa: B905
        self.caption = f"Across: {across}. Upwards: {up}."

    def few(self, frames: int, most: int = 12) -> int:
        return min(_MOST, max(_LEAST, _NUMBERS // self.size))

    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        marked = min(_MARKED, len(frames[0])) if followed else 0
        paths = tuple(self._layers(self._places(x), marked) for x in frames)
        names = ("dots", *(f"dot tone{k}" for k in range(marked)))
        return Picture(BOX, BOX, len(frames), layers=names, paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        return [_ways([self._places(strip).tolist() for strip in x])]

    def _places(self, x: Tensor) -> Tensor:
        """Return the points in the drawing, ``(n, 2)``, NaN for missing values."""
        at, (low, high) = self.project(x), torch.tensor(self.ends, dtype=torch.float64).T
        share = (at - low) / (high - low)
        return BOX * torch.stack([share[:, 0], 1 - share[:, 1]], 1)

    def _layers(self, places: Tensor, marked: int) -> tuple[str, ...]:
        dots = [_dots([place]) for place in places.tolist()]
        return ("".join(dots[marked:]), *dots[:marked])


class Bars(View):
    """Vectors by one coordinate, as a histogram."""

    noun, many = "values", 2000

    def __init__(self, project: Projection, names: tuple[str, ...], x: Tensor) -> None:
        self.project, at = project, project(x)
        low, high = limits(at[:, 0], 0.12)
        self.edges = torch.linspace(low, high, _BINS + 1, dtype=torch.float64)
        self.top = 1.3 * float(self._shares(at).max())
        values = f"{names[0]} from {low:.3g} to {high:.3g}"
        self.caption = f"Across: {values}. Upwards: the share of samples."
        self.way = f"Across: along the interpolation. Upwards: {values}."

    def few(self, frames: int, most: int = 12) -> int:
        return 1000

    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        width = BOX // _BINS

        def bars(x: Tensor) -> str:
            shares = (self._shares(self.project(x)) / self.top).clamp(max=1)
            heights = (BOX * (1 - shares)).round().int().tolist()
            return f"M0 {BOX}" + "".join(f"V{h}h{width}" for h in heights) + f"V{BOX}Z"

        paths = tuple((bars(x),) for x in frames)
        return Picture(BOX, BOX, len(frames), layers=("bars",), paths=paths)

    def strips(self, x: Tensor) -> list[Picture]:
        low, high = float(self.edges[0]), float(self.edges[-1])
        across = torch.linspace(0, BOX, x.shape[1]).tolist()
        heights = [BOX * (1 - (self.project(s)[:, 0] - low) / (high - low)) for s in x]
        return [_ways([list(zip(across, h.tolist(), strict=True)) for h in heights])]

    def _shares(self, at: Tensor) -> Tensor:
        values = at[:, 0][at[:, 0].isfinite()]
        return torch.histogram(values, self.edges).hist / max(1, len(at))


def projection(run: Run, x: Tensor) -> tuple[Projection, tuple[str, ...]]:
    """Return the projection of vectors to one or two coordinates, and the names of these.

    They are the first two numeric columns, if there are few columns; otherwise the directions in
    which samples ``x`` vary most, in the field's units.
    """
    columns, size = run.config.data.columns, run.config.data.shape[0]
    names = columns.names or numbered(size)
    numbers = {c.name for c in columns.kinds if c.kind == "number" and c.low < c.high}
    special = {c.name for c in columns.kinds} - numbers
    numeric = [k for k, name in enumerate(names) if name not in special]
    if run.config.data.points.forms[:1] == ("latlon",):  # as on a map
        numeric[:2] = [1, 0]
    if size <= _FEW and len(numeric) >= min(size, 2):
        first = numeric[:2]
        labels = names if columns.names else [f"coordinate {name}" for name in names]
        return lambda v: v[:, first].double(), tuple(labels[k] for k in first)
    mean, directions = principal(run.to_field(x))
    ranks = ("first", "second")[: len(directions)]
    return (
        lambda v: (run.to_field(v).double() - mean) @ directions.T,
        tuple(f"{rank} principal component, in deviations," for rank in ranks),
    )


def principal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ``z`` ``(n, d)``, and one or two directions in which it varies most.

    The largest entry of each direction is positive.
    """
    z = z.double()
    mean = z.mean(0)
    directions = torch.linalg.svd(z - mean, full_matrices=False).Vh[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return mean, directions * largest.sign()


def _ways(ways: Sequence[Sequence[Sequence[float]]]) -> Picture:
    """Return a drawing of interpolations, each in its colour, with a dot at each of its points."""
    lines = [joined([(round(x), round(y)) for x, y in way if _near(x, y)]) for way in ways]
    names = [f"{kind} tone{k}" for kind in ("strip", "stop") for k in range(len(ways))]
    paths = (*lines, *(_dots(way) for way in ways))
    return Picture(BOX, BOX, 1, layers=tuple(names), paths=(paths,))


def _dots(points: Sequence[Sequence[float]]) -> str:
    """Return the path of dots at points, leaving out distant ones and missing values."""
    return "".join(f"M{x:.0f} {y:.0f}h0" for x, y in points if _near(x, y))


def _near(x: float, y: float) -> bool:
    """Return whether a point lies in the drawing or close to it; false for missing values."""
    return abs(x) < 2 * BOX and abs(y) < 2 * BOX
