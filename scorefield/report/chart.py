"""Charts as SVG: axes, lines with intervals and markers, areas, a band and a shaded background.

A chart knows the pixel of every value. The report embeds its SVG, and `scorefield.report.figure`
writes one or several charts to a file. Elements carry classes alone; `scorefield.report.style` has
their colours, on light and on dark paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from scorefield._internal.text import printable
from scorefield.report.images import Target, png_address
from scorefield.report.style import LIGHT

_TICKS, _ROOM = 5, 0.06

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis, whose values lie at places from 0 to 1.

    Attributes:
        label: the quantity and its unit.
        low, high: the ends of the axis; a logarithmic axis may fall.
        log: whether it is logarithmic.
        ticked: the values that get a tick; round values by default.
    """

    label: str
    low: float
    high: float
    log: bool = False
    ticked: Sequence[float] | None = None

    @classmethod
    def around(cls, label: str, values: Sequence[float], log: bool = False) -> Axis:
        """Return an axis that contains values with some room on both sides.

        A logarithmic axis contains those above 0.
        """
        if log:
            positive = [v for v in values if v > 0] or [1.0]
            grow = max((max(positive) / min(positive)) ** _ROOM, 1.05)
            return cls(label, min(positive) / grow, max(positive) * grow, log=True)
        low, high = min(values), max(values)
        room = _ROOM * (high - low)
        if high - low < 1e-9 * max(abs(low), abs(high)) or high == low:
            room = 0.75 * (abs(high) or 1)
        return cls(label, low - room, high + room)

    def place(self, value: float) -> float:
        """Return the place of a value; a value beyond an end lies at that end."""
        ends = sorted((self.low, self.high))
        value = min(max(value, ends[0]), ends[1])
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The place and the name of each tick."""
        values = self.ticked
        if values is None:
            values = self._decades() if self.log else self._round()
        return [(self.place(v), f"{v:g}") for v in values if self._contains(v)]

    def _contains(self, value: float) -> bool:
        return min(self.low, self.high) <= value <= max(self.low, self.high)

    def _round(self) -> list[float]:
        """Return multiples of 1, 2 or 5 times a power of ten."""
        low, high = sorted((self.low, self.high))
        rough = (high - low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [float(f"{k * step:.12g}") for k in range(first, last + 1)]

    def _decades(self) -> list[float]:
        """Return powers of ten and, if these are few, round values between them."""
        low, high = sorted((math.log10(self.low), math.log10(self.high)))
        powers = range(math.floor(low), math.ceil(high) + 1)
        for parts in ((1, 2, 5), (1, 3), (1,)):
            values = [p * 10.0**k for k in powers for p in parts]
            inside = [v for v in values if self._contains(v)]
            if 2 <= len(inside) <= _TICKS + 2:
                return inside
        return inside[:: -(-len(inside) // _TICKS)] if len(inside) > 1 else self._round()


LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 46  # margins around the axes, in pixels
_PLAIN_BOTTOM = 14  # without a label on the horizontal axis
# outlines around the origin, one for each colour, for readers who do not see the colours
_MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    "M-3.6-3.6h7.2v7.2h-7.2Z",
    "M0-4.8L4.5 3.4h-9Z",
    "M0-5L5 0L0 5L-5 0Z",
    "M0 4.8L4.5-3.4h-9Z",
    "M-4.8 0L3.4 4.5v-9Z",
    "M4.8 0L-3.4 4.5v-9Z",
)


@dataclass(frozen=True)
class Series:
    """Points of one name.

    Attributes:
        points: in the order they are joined.
        tone: the number of the colour and of the marker.
        intervals: the low and the high end at each point, if it has an interval.
        titles: a text for each point; points with a text get a marker.
        filled: whether the points are the corners of an area.
        faint: whether it is drawn paler than the others.
        dashed: whether the line is.
        halo: whether the line is separated from what lies below it.
    """

    name: str
    points: Sequence[Point]
    tone: int = 0
    intervals: Sequence[Point] = ()
    titles: Sequence[str] = ()
    filled: bool = False
    faint: bool = False
    dashed: bool = False
    halo: bool = False

    @property
    def classes(self) -> str:
        """The classes of its elements."""
        flags = {"faint": self.faint, "dashed": self.dashed}
        return " ".join([f"tone{self.tone % len(LIGHT.tones)}", *(k for k in flags if flags[k])])

    @property
    def marker(self) -> str:
        """The outline of its markers; colours that repeat get another one."""
        return _MARKERS[(self.tone + self.tone // len(LIGHT.tones)) % len(_MARKERS)]


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
        alt: a description for readers who do not see it.
        series: drawn in this order, the last on top.
        band: behind the series.
        shade: ``(rows, columns)`` of values from 0 to 1, a grey picture behind everything that
            fills the axes; the first row is the top.
        title: above the chart in a file; the label of ``y`` by default.
        tone: the colour of the title, if it has one.
        width, height: of all of it, in pixels.
    """

    alt: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    band: Band | None = None
    shade: np.ndarray[Any, Any] | None = None
    title: str = ""
    tone: int | None = None
    width: int = 480
    height: int = 300

    def pixel(self, point: Point) -> Point:
        """Return where a point lies, in pixels from the left and from the top."""
        return self._across(self.x.place(point[0])), self._down(self.y.place(point[1]))

    def svg(self) -> str:
        """Return the chart as one element that takes its colours from the page around it."""
        box = f"0 0 {self.width} {self.height}"
        return tag("svg", self.drawing(), viewBox=box, role="img", aria_label=self.alt)

    def save(self, path: Target) -> None:
        """Write the chart as a file, see `scorefield.report.figure.Figure.save`."""
        from scorefield.report.figure import Figure

        Figure([self]).save(path)

    def drawing(self) -> str:
        """Return the elements of the chart."""
        return "".join([self._background(), self._axes(), *map(self._series, self.series)])

    def _across(self, place: float) -> float:
        return round(LEFT + place * (self.width - LEFT - RIGHT), 1)

    def _down(self, place: float) -> float:
        bottom = self.height - (BOTTOM if self.x.label else _PLAIN_BOTTOM)
        return round(bottom - place * (bottom - TOP), 1)

    def _background(self) -> str:
        left, width = self._across(0), self._across(1) - self._across(0)
        parts = []
        if self.shade is not None:
            size = {"width": width, "height": self._down(0) - self._down(1)}
            place = {"x": left, "y": self._down(1), "preserveAspectRatio": "none"}
            opaque = np.round(255 * self.shade.clip(0, 1)).astype(np.uint8)
            address = png_address(np.stack([np.zeros_like(opaque), opaque], 2))
            parts.append(tag("image", class_="shade", href=address, **place, **size))
        if self.band is not None:
            top, low = (self._down(self.y.place(v)) for v in (self.band.high, self.band.low))
            size = {"width": width, "height": round(max(low - top, 1.5), 1)}
            title = tag("title", text(self.band.name))
            parts.append(tag("rect", title, class_="band", x=left, y=top, **size))
        return "".join(parts)

    def _axes(self) -> str:
        left, right, bottom = self._across(0), self._across(1), self._down(0)
        heights = [(self._down(place), name) for place, name in self.y.ticks]
        lines = "".join(f"M{left:g} {y:g}H{right:g}" for y, _ in heights)
        names = [tag("text", text(n), class_="up", x=left - 7, y=y + 4) for y, n in heights]
        if self.x.label:
            places = [(self._across(place), name) for place, name in self.x.ticks]
            names += [tag("text", text(n), class_="over", x=x, y=bottom + 17) for x, n in places]
            middle, label = self._across(0.5), text(self.x.label)
            names.append(tag("text", label, class_="over label", x=middle, y=self.height - 8))
        rule = tag("path", class_="rule", d=f"M{left:g} {bottom:g}H{right:g}")
        return tag("path", class_="grid", d=lines) + rule + "".join(names)

    def _series(self, series: Series) -> str:
        outline = joined([self.pixel(point) for point in series.points])
        title = tag("title", text(series.name)) if series.name else ""
        parts = [tag("path", class_="halo", d=outline)] if series.halo else []
        kind, end = ("area", "Z") if series.filled else ("line", "")
        parts.append(tag("path", title, class_=kind, d=outline + end))
        ends = [
            (self.pixel((x, low)), self.pixel((x, high))[1])
            for (x, _), (low, high) in zip(series.points, series.intervals, strict=False)
        ]
        if whiskers := "".join(f"M{x:g} {a:g}V{b:g}" for (x, a), b in ends if a != b):
            parts.append(tag("path", class_="whisker", d=whiskers))
        for point, name in zip(series.points, series.titles, strict=False):
            parts.append(marker(series, self.pixel(point), tag("title", text(name))))
        return tag("g", "".join(parts), class_=series.classes)


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """Return an element with markup inside; the values of its attributes are escaped.

    ``class_`` stands for ``class``, and ``aria_label`` for ``aria-label``.
    """
    pairs = [f'{k.rstrip("_").replace("_", "-")}="{text(v)}"' for k, v in attributes.items()]
    start = " ".join([name, *pairs])
    return f"<{start}>{content}</{name}>" if content else f"<{start}/>"


def text(value: object) -> str:
    """Return a value as text that is neither markup nor changes the direction of writing."""
    return escape(printable(f"{value:g}" if isinstance(value, float) else str(value)))


def marker(series: Series, at: Point, content: str = "") -> str:
    """Return a marker of a series at a pixel."""
    place = f"translate({at[0]:g} {at[1]:g})"
    return tag("path", content, class_="mark", transform=place, d=series.marker)


def legend(charts: Iterable[Chart]) -> list[Series]:
    """Return the series of charts that have a name, each name once."""
    pairs = [(one.name, one) for chart in charts for one in chart.series if one.name]
    return list(dict(pairs).values())


def joined(points: Sequence[Point]) -> str:
    """Return the path that joins points."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""
