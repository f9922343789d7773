"""The section with the frontier that `scorefield compare` measured: charts and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scorefield._internal.errors import CheckpointError
from scorefield.field import digest
from scorefield.report.blocks import Charts, Missing, Note, Part, Section, Table
from scorefield.report.frontier import frontier_charts, interval, metric_names
from scorefield.report.text import short_name
from scorefield.tuning.frontier import Frontier

if TYPE_CHECKING:
    from scorefield.report.context import ReportContext

_POINTS, _LARGEST, _METRICS = 1000, 1e30, 3


def read_frontier(path: Path | None) -> Frontier | None:
    """Return the frontier in a file, or None if there is no file.

    Raises:
        CheckpointError: it holds no frontier, or one that no chart can show.
    """
    if path is None:
        return None
    try:
        frontier = Frontier.load(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from None
    groups = [frontier.floors, *(p.values for p in frontier.points)]
    measurements = [m for group in groups for m in group.values()]
    measurements += [p.error for p in frontier.points if p.error is not None]
    numbers = [v for m in measurements for v in (m.value, m.low, m.high)]
    numbers += [v for p in frontier.points for v in (p.nfe, p.milliseconds)]
    if len(frontier.points) > _POINTS or any(abs(v) > _LARGEST for v in numbers):
        raise CheckpointError(
            f"{path} holds more points, or larger numbers, than a chart can show."
        )
    if any(p.nfe < 1 for p in frontier.points):
        raise CheckpointError(f"{path} holds a plan of less than one call.")
    return frontier


def frontier_section(context: ReportContext) -> Section:
    """Return the section of the distances to data and to exact paths against network calls."""
    frontier, title = context.inputs.frontier, "Accuracy against network calls"
    text = (
        "The distance of samples from data and from exact paths, and the network calls they cost."
    )
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
    parts: list[Part] = [
        Charts(frontier_charts(frontier)[: 1 + _METRICS]),
        Note(note),
        _table(frontier),
    ]
    return Section("frontier", title, text, parts)


def _table(frontier: Frontier) -> Table:
    """Return the table of all measurements."""
    metrics = metric_names(frontier)[:_METRICS]
    names = ["solver", "NFE", "ms per sample", "error to exact path", *map(short_name, metrics)]
    rows = [
        [
            short_name(p.name),
            f"{p.nfe:g}",
            f"{p.milliseconds:.2f}",
            "" if p.error is None else interval(p.error),
            *(interval(p.values[m]) if m in p.values else "" for m in metrics),
        ]
        for p in frontier.points
    ]
    floors = [interval(frontier.floors[m]) if m in frontier.floors else "" for m in metrics]
    caption = f"All measurements, ± half the {frontier.level:.0%} confidence interval"
    return Table(caption, names, [*rows, ["other data", "", "", "", *floors]])
