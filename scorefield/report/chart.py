"""Charts as numbers and path strings, which the template sets as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 300  # of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 46  # margins inside it
_TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis, whose values lie at places from 0 to 1.

    Attributes:
        label: what it measures, with its unit.
        low, high: its ends; a logarithmic axis may fall.
        log: whether it is logarithmic.
    """

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies; a value beyond an end lies at that end."""
        ends = sorted((self.low, self.high))
        value = min(max(value, ends[0]), ends[1])
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places of ticks, and their names."""
        values = self._decades() if self.log else self._round()
        return [(self.place(v), f"{v:g}") for v in values if self._holds(v)]

    def _holds(self, value: float) -> bool:
        return min(self.low, self.high) <= value <= max(self.low, self.high)

    def _round(self) -> list[float]:
        low, high = sorted((self.low, self.high))
        rough = (high - low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [float(f"{k * step:.12g}") for k in range(first, last + 1)]

    def _decades(self) -> list[float]:
        low, high = sorted((math.log10(self.low), math.log10(self.high)))
        powers = range(math.floor(low), math.ceil(high) + 1)
        for parts in ((1, 2, 5), (1, 3), (1,)):
            values = [p * 10.0**k for k in powers for p in parts]
            inside = [v for v in values if self._holds(v)]
            if 2 <= len(inside) <= _TICKS + 2:
                return inside
        return inside[:: -(-len(inside) // _TICKS)] if len(inside) > 1 else self._round()


@dataclass(frozen=True)
class Series:
    """Points of one name.

    Attributes:
        points: in the order they are joined.
        tone: the number of the colour.
        intervals: the low and the high end at each point, if there are any.
        titles: what is said of each point; such points have a mark of their own.
        filled: whether the points are the corners of an area.
        faint: whether it stands back.
        dashed: whether the line is.
    """

    name: str
    points: Sequence[Point]
    tone: int = 0
    intervals: Sequence[Point] = ()
    titles: Sequence[str] = ()
    filled: bool = False
    faint: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """A horizontal band of the chart, from ``low`` to ``high``."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """A chart of series over two axes.

    Attributes:
        alt: what it shows, for who does not see it.
        band: behind the series, if there is one.
        legend: whether the names are written below.
    """

    alt: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    band: Band | None = None
    legend: bool = True

    def at(self, point: Point) -> Point:
        """Return where a point lies in the viewBox."""
        return self.across(self.x.place(point[0])), self.upwards(self.y.place(point[1]))

    def across(self, place: float) -> float:
        """Return the horizontal coordinate of a place from 0 to 1."""
        return round(LEFT + place * (WIDTH - LEFT - RIGHT), 1)

    def upwards(self, place: float) -> float:
        """Return the vertical coordinate of a place from 0 to 1."""
        return round(HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM), 1)

    def line(self, series: Series) -> str:
        """Return the path that joins the points."""
        return joined([self.at(point) for point in series.points]) + "Z" * series.filled

    def whiskers(self, series: Series) -> str:
        """Return the path of the intervals."""
        ends = [
            (self.at((x, low)), self.at((x, high))[1])
            for (x, _), (low, high) in zip(series.points, series.intervals, strict=False)
        ]
        return "".join(f"M{x:g} {low:g}V{high:g}" for (x, low), high in ends if low != high)

    def marks(self, series: Series) -> list[tuple[float, float, str]]:
        """Return the points that something is said of, and what."""
        told = zip(series.points, series.titles, strict=False)
        return [(*self.at(point), title) for point, title in told]


def joined(points: Sequence[Point]) -> str:
    """Return the path that joins points."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""


def bounds(values: Sequence[float], log: bool = False, room: float = 0.06) -> Point:
    """Return ends of an axis that hold all values, with some room; of a logarithmic one above 0."""
    if log:
        positive = [v for v in values if v > 0] or [1.0]
        grow = max((max(positive) / min(positive)) ** room, 1.05)
        return min(positive) / grow, max(positive) * grow
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high)) or high == low:
        room, low, high = 1.0, high - 0.25 * (abs(high) or 1), high + 0.25 * (abs(high) or 1)
    room *= high - low
    return low - room, high + room


def steps(counts: Sequence[float], edges: Sequence[float]) -> list[Point]:
    """Return the corners of the outline of bars between edges, from the axis and back to it."""
    corners = [(edges[0], 0.0)]
    for k, count in enumerate(counts):
        corners += [(edges[k], count), (edges[k + 1], count)]
    return [*corners, (edges[-1], 0.0)]
