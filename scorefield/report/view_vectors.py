"""Vectors by one or two of their coordinates: as bars, or as points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scorefield.data.config import numbered
from scorefield.report.view import BOX, Picture, View, limits
from scorefield.runs.run import Run

_FEW = 16  # columns, of which the first two that are numbers are drawn
_BINS = 40
_MARKED = 5  # points to follow by eye
_LEAST, _MOST, _NUMBERS = 32, 256, 100_000  # points that move, and numbers in all of them


class Points(View):
    """Vectors as points in two coordinates, a few of them marked so that they can be followed."""

    noun, many = "points", 400
    hint = "Points of one colour are one sample."

    def __init__(
        self, project: Callable[[Tensor], Tensor], names: tuple[str, ...], x: Tensor
    ) -> None:
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
        """Return the points in the drawing, ``(n, 2)``, NaN for those with a gap."""
        at, (low, high) = self.project(x), torch.tensor(self.ends, dtype=torch.float64).T
        share = (at - low) / (high - low)
        return BOX * torch.stack([share[:, 0], 1 - share[:, 1]], 1)

    def _layers(self, places: Tensor, marked: int) -> tuple[str, ...]:
        dots = [f"M{x:.0f} {y:.0f}h0" if _near(x, y) else "" for x, y in places.tolist()]
        return ("".join(dots[marked:]), *dots[:marked])


class Bars(View):
    """Vectors by one coordinate, as a histogram."""

    noun, many = "values", 2000

    def __init__(
        self, project: Callable[[Tensor], Tensor], names: tuple[str, ...], x: Tensor
    ) -> None:
        self.project, at = project, project(x)
        low, high = limits(at[:, 0], 0.12)
        self.edges = torch.linspace(low, high, _BINS + 1, dtype=torch.float64)
        self.top = 1.3 * float(self._shares(at).max())
        self.caption = f"Across: {names[0]} from {low:.3g} to {high:.3g}. Upwards: how often."
        self.way = f"Across: along the way. Upwards: {names[0]} from {low:.3g} to {high:.3g}."

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


def projection(run: Run, x: Tensor) -> tuple[Callable[[Tensor], Tensor], tuple[str, ...]]:
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
        return run.to_field(v).double()

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


def _ways(ways: Sequence[Sequence[Sequence[float]]]) -> Picture:
    """Return a drawing of ways, each in its colour, with a dot at each of its points."""
    shown = [[(x, y) for x, y in way if _near(x, y)] for way in ways]
    lines = ["M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in way) if way else "" for way in shown]
    dots = ["".join(f"M{x:.0f} {y:.0f}h0" for x, y in way) for way in shown]
    names = [f"{kind} tone{k}" for kind in ("strip", "stop") for k in range(len(ways))]
    return Picture(BOX, BOX, 1, layers=tuple(names), paths=((*lines, *dots),))


def _near(x: float, y: float) -> bool:
    """Return whether a point lies in the drawing or not far from it; not one with a gap."""
    return abs(x) < 2 * BOX and abs(y) < 2 * BOX
