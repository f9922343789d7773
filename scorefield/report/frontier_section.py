"""What `scorefield compare` has measured of solvers, as charts and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scorefield._internal.errors import CheckpointError
from scorefield.evaluate.metrics import Measurement
from scorefield.field import digest
from scorefield.report.blocks import Charts, Missing, Note, Section, Table
from scorefield.report.chart import Axis, Band, Chart, Series, bounds
from scorefield.report.text import named, plus_minus
from scorefield.tuning.frontier import Frontier, Point

if TYPE_CHECKING:
    from scorefield.report.context import ReportContext

_METRICS = 3
_POINTS, _LARGEST = 1000, 1e30
_WIDE = 5.0  # ratio of values from which an axis is logarithmic


def read_frontier(path: Path | None) -> Frontier | None:
    """Return what a file says, if there is one.

    Raises:
        CheckpointError: it holds no frontier, or one that no chart can show.
    """
    if path is None:
        return None
    try:
        found = Frontier.load(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from None
    told = [found.floors, *(p.values for p in found.points)]
    estimates = [e for values in told for e in values.values()]
    estimates += [p.error for p in found.points if p.error is not None]
    numbers = [v for e in estimates for v in (e.value, e.low, e.high)]
    numbers += [v for p in found.points for v in (p.nfe, p.milliseconds)]
    if len(found.points) > _POINTS or any(abs(v) > _LARGEST for v in numbers):
        raise CheckpointError(
            f"{path} holds more points, or larger numbers, than a chart can show."
        )
    if any(p.nfe < 1 for p in found.points):
        raise CheckpointError(f"{path} holds a plan of less than one call.")
    return found


def _metrics(found: Frontier) -> list[str]:
    """Return the names of the first few metrics."""
    names = [*found.floors, *(name for p in found.points for name in p.values)]
    return list(dict.fromkeys(names))[:_METRICS]


def frontier(context: ReportContext) -> Section:
    """What was measured of solvers: distance against calls."""
    found, title = context.inputs.frontier, "What calls of the network buy"
    text = "How far samples are from what they should be, against what a sample costs."
    if found is None:
        command = f"scorefield compare {context.folder} {context.data}"
        needs = Missing("Nothing was measured yet. To measure, run", command)
        return Section("frontier", title, text, [needs])
    looks = _looks(found)
    note = (
        f"{found.n:g} samples against {found.m:g} items of data. Vertical lines are intervals at "
        f"{found.level:.0%}; the grey band is what other data scores, and for distances from exact "
        "paths what these are sure of. Dashed solvers are stochastic. Measured on "
        f"{named(found.machine)}."
    )
    if found.field != digest(context.run.field):
        note += " It was of another field than this run's, such as one given a class."
    charts = Charts(_charts(found, looks), legend=list(looks.values()))
    return Section("frontier", title, text, [charts, Note(note), _frontier_table(found)])


def _charts(found: Frontier, looks: Mapping[str, Series]) -> list[Chart]:
    """Return a chart of the distances from exact paths, and one for each metric."""
    charts = []
    errors = [(p, p.error) for p in found.points if p.error is not None]
    if errors:
        teacher = found.teacher
        exact = None if teacher is None else Band("what exact paths are sure of", 0.0, teacher)
        label = "Distance from the ends of exact paths, over √d"
        charts.append(_frontier_chart(label, errors, exact, looks))
    for metric in _metrics(found):
        values = [(p, p.values[metric]) for p in found.points if metric in p.values]
        floor = found.floors.get(metric)
        band = None if floor is None else Band("what other data scores", floor.low, floor.high)
        if values:
            title = named(f"{metric.replace('_', ' ')}, to data")
            charts.append(_frontier_chart(title, values, band, looks))
    return charts


def _looks(found: Frontier) -> dict[str, Series]:
    """Return how each solver's line looks: in colours of their own, those of the SDE dashed."""
    looks: dict[str, Series] = {}
    for point in found.points:
        alike = [series for series in looks.values() if series.dashed == point.stochastic]
        series = Series(named(point.name), [], len(alike), dashed=point.stochastic)
        looks.setdefault(point.name, series)
    return looks


def _frontier_chart(
    label: str,
    found: Sequence[tuple[Point, Measurement]],
    band: Band | None,
    looks: Mapping[str, Series],
) -> Chart:
    """Return a chart of one measure against calls, a line for each solver."""
    calls = [point.nfe for point, _ in found]
    across = Axis("calls of the network (NFE)", min(calls) / 1.1, max(calls) * 1.1, log=True)
    series = []
    for name, look in looks.items():
        line = sorted(((p, i) for p, i in found if p.name == name), key=lambda pair: pair[0].nfe)
        said = [f"{look.name}, {p.nfe:g} calls: {_interval(i)}" for p, i in line]
        points, intervals = [(p.nfe, i.value) for p, i in line], [(i.low, i.high) for _, i in line]
        series.append(replace(look, points=points, intervals=intervals, titles=said))
    best, least = min(found, key=lambda pair: pair[1].value)
    alt = (
        f"{label} against calls, for {len(looks)} solvers. The least is {_interval(least)}, by "
        f"{named(best.name)} with {best.nfe:g} calls"
    )
    upwards = _heights(label, [i for _, i in found], band)
    return Chart(alt, across, upwards, series, band, legend=False)


def _heights(label: str, found: Sequence[Measurement], band: Band | None) -> Axis:
    """Return the axis of a measure, logarithmic where it spans much and is positive."""
    values = [i.value for i in found] + ([band.high] if band is not None else [])
    if min(values) > 0 and max(values) > _WIDE * min(values):
        return Axis(label, *bounds([*values, *(i.high for i in found)], log=True), log=True)
    ends = [v for i in found for v in (i.low, i.high)]
    return Axis(label, *bounds([*ends, *((band.low, band.high) if band is not None else ())]))


def _frontier_table(found: Frontier) -> Table:
    metrics = _metrics(found)
    names = ["solver", "NFE", "ms per sample", "distance from exact path", *map(named, metrics)]
    rows = [
        [
            named(p.name),
            f"{p.nfe:g}",
            f"{p.milliseconds:.2f}",
            "" if p.error is None else _interval(p.error),
            *("" if m not in p.values else _interval(p.values[m]) for m in metrics),
        ]
        for p in found.points
    ]
    floor = [
        "other data",
        "",
        "",
        "",
        *(_interval(found.floors[m]) if m in found.floors else "" for m in metrics),
    ]
    return Table(f"All numbers, ± half their intervals at {found.level:.0%}", names, [*rows, floor])


def _interval(found: Measurement) -> str:
    return plus_minus(found.value, (found.high - found.low) / 2)
