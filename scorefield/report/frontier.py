"""Charts of a measured frontier: error and metrics of plans against their network calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scorefield._internal.errors import CheckpointError
from scorefield._internal.text import short_name
from scorefield.evaluate.metrics import Measurement
from scorefield.field import digest
from scorefield.report.blocks import Charts, Missing, Note, Section, Table
from scorefield.report.chart import Axis, Band, Chart, Series
from scorefield.report.figure import Figure
from scorefield.tuning.frontier import Frontier, Point

if TYPE_CHECKING:
    from scorefield.report.context import ReportContext

ERROR = "Error to the exact path, per coordinate"
_POINTS, _LARGEST = 1000, 1e30
_METRICS = 3  # of the page
_WIDE = 5.0  # the ratio of values from which an axis is logarithmic
_NEAR = 0.2  # in the logarithm of calls: ticks whose names would overlap

Measured = Sequence[tuple[Point, Measurement]]


def frontier_chart(frontier: Frontier) -> Figure:
    """Return a figure of the error and of each metric against the network calls per sample.

    Each name of the frontier is a line; those of stochastic solvers are dashed. Vertical lines are
    the confidence intervals. The grey band is the interval of a metric between two sets of data,
    and in the chart of the error, the error of the exact paths themselves. A value of 0 or less
    lies at the lower edge of a logarithmic axis.
    """
    charts = frontier_charts(frontier)
    return Figure(charts, columns=max(1, min(3, len(charts))))


def frontier_charts(frontier: Frontier) -> list[Chart]:
    """Return the chart of the error, if it was measured, and one for each metric."""
    styles = _styles(frontier)
    errors = [(p, p.error) for p in frontier.points if p.error is not None]
    charts = []
    if errors:
        teacher = frontier.teacher
        band = None if teacher is None else Band("error of the exact paths", 0.0, teacher)
        charts.append(_chart(ERROR, errors, band, styles))
    for metric in metric_names(frontier):
        values = [(p, p.values[metric]) for p in frontier.points if metric in p.values]
        floor = frontier.floors.get(metric)
        band = None if floor is None else Band("data against other data", floor.low, floor.high)
        if values:
            title = short_name(f"{metric.replace('_', ' ')} to data")
            charts.append(_chart(title[:1].upper() + title[1:], values, band, styles))
    return charts


def metric_names(frontier: Frontier) -> list[str]:
    """Return the names of the metrics that were measured, each once."""
    names = [*frontier.floors, *(name for p in frontier.points for name in p.values)]
    return list(dict.fromkeys(names))


def check_drawable(frontier: Frontier, name: str) -> None:
    """Reject a frontier that no chart can show, whatever a file holds.

    Raises:
        CheckpointError: too many points, numbers that are too large, or less than one call.
    """
    groups = [frontier.floors, *(p.values for p in frontier.points)]
    measurements = [m for group in groups for m in group.values()]
    measurements += [p.error for p in frontier.points if p.error is not None]
    numbers = [v for m in measurements for v in (m.value, m.low, m.high)]
    numbers += [v for p in frontier.points for v in (p.nfe, p.milliseconds)]
    if len(frontier.points) > _POINTS or any(abs(v) > _LARGEST for v in numbers):
        raise CheckpointError(
            f"{name}: the frontier has more points, or larger numbers, than a chart can show."
        )
    if any(p.nfe < 1 for p in frontier.points):
        raise CheckpointError(f"{name}: the frontier has a plan of less than one call.")


def _styles(frontier: Frontier) -> dict[str, Series]:
    """Return an empty series for each name: deterministic and stochastic ones count their tones."""
    styles: dict[str, Series] = {}
    for point in frontier.points:
        alike = [series for series in styles.values() if series.dashed == point.stochastic]
        series = Series(short_name(point.name), [], len(alike), dashed=point.stochastic)
        styles.setdefault(point.name, series)
    return styles


def _chart(
    label: str, measured: Measured, band: Band | None, styles: Mapping[str, Series]
) -> Chart:
    """Return a chart of one measure against calls."""
    calls = [point.nfe for point, _ in measured]
    ends = min(calls) / 1.1, max(calls) * 1.1
    x = Axis("network calls per sample (NFE)", *ends, log=True, ticked=_ticks(calls))
    series = [_line(style, measured, name) for name, style in styles.items()]
    best, least = min(measured, key=lambda pair: pair[1].value)
    alt = (
        f"{label} against network calls, for {len(styles)} solvers. The least is "
        f"{least!s}, by {short_name(best.name)} with {best.nfe:g} calls"
    )
    return Chart(alt, x, _heights(label, [m for _, m in measured], band), series, band)


def _line(style: Series, measured: Measured, name: str) -> Series:
    """Return the points of one name, by rising calls."""
    line = sorted((pair for pair in measured if pair[0].name == name), key=lambda pair: pair[0].nfe)
    return replace(
        style,
        points=[(p.nfe, m.value) for p, m in line],
        intervals=[(m.low, m.high) for _, m in line],
        titles=[f"{style.name}, {p.nfe:g} calls: {m!s}" for p, m in line],
    )


def _heights(label: str, measurements: Sequence[Measurement], band: Band | None) -> Axis:
    """Return the axis of a measure, logarithmic if its values are positive and far apart."""
    values = [m.value for m in measurements] + ([] if band is None else [band.high])
    log = min(values) > 0 and max(values) > _WIDE * min(values)
    # a logarithmic axis does not reach down to an interval that touches 0
    lows = [] if log else [m.low for m in measurements] + ([] if band is None else [band.low])
    return Axis.around(label, [*values, *lows, *(m.high for m in measurements)], log)


def _ticks(calls: Sequence[float]) -> list[float]:
    """Return the most frequent numbers of calls that are far enough apart for their names."""
    ticks: list[float] = []
    for count, _ in Counter(calls).most_common():
        if all(abs(math.log(count / tick)) > _NEAR for tick in ticks):
            ticks.append(count)
    return sorted(ticks)


def frontier_section(context: ReportContext) -> Section:
    """Return the section of the distances to data and to exact paths against network calls."""
    frontier, title = context.frontier, "Accuracy against network calls"
    text = "The distance of samples from data and from exact paths, and their cost."
    if frontier is None:
        command = f"scorefield compare {context.folder} {context.data}"
        missing = Missing("No solvers were compared on this run. To compare them, run", command)
        return Section("frontier", title, text, [missing])
    note = (
        f"{frontier.n:g} samples, compared with {frontier.m:g} items of data. Vertical lines are "
        f"{frontier.level:.0%} confidence intervals. The grey band is the distance between two "
        "sets of data; in the chart of errors it is the error of the exact paths. Dashed lines are "
        f"stochastic solvers. Measured on {short_name(frontier.machine)}."
    )
    if frontier.field != digest(context.run.field):
        note += " It was measured on another field than this run's, for example with a class."
    charts = Charts(frontier_charts(frontier)[: 1 + _METRICS])
    return Section("frontier", title, text, [charts, Note(note), _table(frontier)])


def _table(frontier: Frontier) -> Table:
    """Return the table of all measurements."""
    metrics = metric_names(frontier)[:_METRICS]
    names = ["solver", "NFE", "ms per sample", "error to exact path", *map(short_name, metrics)]
    parallel = any(p.rounds != p.nfe for p in frontier.points)
    rows = [
        [
            short_name(p.name),
            f"{p.nfe:g} in {p.rounds:g} rounds" if parallel else f"{p.nfe:g}",
            f"{p.milliseconds:.2f}",
            "" if p.error is None else str(p.error),
            *(str(p.values[m]) if m in p.values else "" for m in metrics),
        ]
        for p in frontier.points
    ]
    floors = [str(frontier.floors[m]) if m in frontier.floors else "" for m in metrics]
    caption = f"All measurements, ± half the {frontier.level:.0%} confidence interval"
    return Table(caption, names, [*rows, ["other data", "", "", "", *floors]])
