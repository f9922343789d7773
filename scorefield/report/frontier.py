"""A picture of a measured frontier: what plans are worth against their calls, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scorefield.evaluate.metrics import Measurement
from scorefield.report.style import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    Target,
    log_calls,
    log_heights,
    new_figure,
    plain,
    save,
)
from scorefield.tuning.frontier import Frontier

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ERROR = "error to the exact path"
_WIDE = 5.0  # from this ratio of heights on an axis is logarithmic
_NEAR, _ASIDE = 0.25, 0.012  # in log of calls: ticks, and bars that would lie on each other

Line = Sequence[tuple[float, Measurement]]


def frontier_panels(found: Frontier, path: Target) -> Figure:
    """Draw the error and each metric against the calls, a line for each name, and write it.

    Bars are the confidence intervals, the grey band that of the floor. On a logarithmic axis what
    is 0 or less lies at the lower edge.

    Raises:
        ImportError: matplotlib is not installed.
    """
    panels = _panels(found)
    names = list(dict.fromkeys(point.name for point in found.points))
    figure = new_figure(0.6 + 4.2 * len(panels), 4.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    handles = {}
    for panel, (title, lines) in zip(axes, panels.items(), strict=True):
        _scale(panel, lines, found.floors.get(title))
        for name, line in lines.items():
            k = names.index(name)
            handles[name] = _draw_line(panel, line, k, k - (len(names) - 1) / 2)
        panel.set_title(title.replace("_", " "), loc="left", color=INK, fontsize=11)
        panel.set_xlabel("field calls per sample", color=INK)
        plain(panel, "left", "bottom")
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        shown,
        loc="lower center",
        ncols=min(len(shown), 2 + 2 * len(panels)),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.09, 1, 1), w_pad=2)
    save(figure, path)
    return figure


def _panels(found: Frontier) -> dict[str, dict[str, Line]]:
    """Return what each panel shows: for each name the calls and what was measured, rising."""
    panels: dict[str, dict[str, list[tuple[float, Measurement]]]] = {}
    for point in sorted(found.points, key=lambda point: point.nfe):
        told = {} if point.error is None else {_ERROR: point.error}
        for title, estimate in (told | dict(point.values)).items():
            panels.setdefault(title, {}).setdefault(point.name, []).append((point.nfe, estimate))
    return {title: dict(lines) for title, lines in panels.items()}


def _scale(axes: Axes, lines: Mapping[str, Line], floor: Measurement | None) -> None:
    """Fit the axes to all that is drawn on them, and draw the floor."""
    points = [point for line in lines.values() for point in line]
    log_calls(axes, _ticks([calls for calls, _ in points]))
    heights = [e.value for _, e in points] + ([] if floor is None else [floor.value])
    above = [height for height in heights if height > 0]
    if above and max(above) > _WIDE * min(above):
        log_heights(axes)
        axes.set_ylim(min(above) / 1.6, max(above) * 1.6)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if floor is not None:
        bottom = axes.get_ylim()[0] if axes.get_yscale() == "log" else floor.low
        axes.axhspan(max(floor.low, bottom), floor.high, color="#dddddd", linewidth=0, zorder=1)
        axes.axhline(floor.value, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=2)


def _ticks(calls: Sequence[float]) -> list[float]:
    """Return the numbers of calls to name, rising: the most frequent ones, none too near."""
    ticks: list[float] = []
    for count, _ in Counter(calls).most_common():
        if all(abs(math.log(count / tick)) > _NEAR for tick in ticks):
            ticks.append(count)
    return sorted(ticks)


def _draw_line(axes: Axes, line: Line, k: int, aside: float) -> Artist:
    """Draw a line with its intervals, in the k-th colour, and return what stands for it."""
    calls, estimates = zip(*line, strict=True)
    values = [e.value for e in estimates]
    # of very skewed values a narrow interval may lie on one side of their mean
    bars = [
        [max(0.0, end) for end in ends]
        for ends in ([e.value - e.low for e in estimates], [e.high - e.value for e in estimates])
    ]
    drawn: Artist = axes.errorbar(
        [count * math.exp(_ASIDE * aside) for count in calls],
        values,
        yerr=bars,
        color=COLOURS[k % len(COLOURS)],
        marker=MARKERS[(k + k // len(COLOURS)) % len(MARKERS)],
        linestyle="-" if k < len(COLOURS) else "--",
        linewidth=1.6,
        markersize=6,
        markeredgecolor="white",
        elinewidth=1,
        zorder=3,
    )[0]
    return drawn
