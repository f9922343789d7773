"""The sections that show samples: next to data, over time, over network calls, between items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scorefield._internal.text import short_name
from scorefield.data.config import ClassChannel
from scorefield.process import balanced
from scorefield.report import blocks, frames
from scorefield.report.blocks import Block, Note, Panel, Panels, Section
from scorefield.report.chart import Axis, Chart
from scorefield.report.context import ReportContext
from scorefield.report.trajectory import Paths, path_chart, paths
from scorefield.report.view_vectors import principal
from scorefield.sampling import DEFAULT_CALLS, ROUND_TRIP_CALLS, Plan, default_plan
from scorefield.solvers import EulerMaruyama

_CLASSES = 10
_OF_CLASS = 9  # samples of a class, of images and signals
_COLUMNS, _ROWS = 8, 6
_PATHS, _STEPS, _COLOURED = 24, 80, 5
_RATIO = "noise-to-signal ratio σ/α, from noise to data"
_PAIRS, _POINTS = 4, 9


def samples(context: ReportContext) -> Section:
    """Return the section of samples next to data, of each class, and as rows of a table."""
    view, x, config = context.view, context.x, context.run.config.data
    drawn = context.samples[: view.many]
    panels = [context.panel("Samples", f"seed {context.seed}", [drawn], False)]
    if x is not None:
        panels.append(context.panel("Data", context.source, [x[: len(drawn)]], False))
    parts: list[Block] = [Panels(panels, "large"), Note(view.caption + context.class_note)]
    if config.classes is not None:
        parts.append(Panels(_classes(context, config.classes)))
        if (count := config.classes.count) > _CLASSES:
            parts.append(Note(f"These are the first {_CLASSES} of {count} classes."))
    if config.columns.names:
        parts.append(_rows(context))
    text = (
        f"Samples of the default plan, with {DEFAULT_CALLS} network calls each. Sample k depends "
        "on the run, the seed and k alone."
    )
    return Section("samples", "Samples", text, parts)


def _classes(context: ReportContext, channel: ClassChannel) -> list[Panel]:
    """Return a panel of samples of each of the first classes."""
    run, config = context.run, context.run.config.data
    count = context.view.few(1) if len(config.shape) == 1 else _OF_CLASS
    names = [*map(short_name, channel.names)] or [*map(str, range(channel.count))]
    panels = []
    for y, name in enumerate(names[:_CLASSES]):
        x, _ = frames.draw(run, default_plan(run.field), count, seed=context.seed, given=y)
        panels.append(context.panel(f"Class {name}", "", [x], False))
    return panels


def _rows(context: ReportContext) -> blocks.Table:
    """Return the first samples as rows of a table."""
    table = context.run.table(context.samples[:_ROWS])
    names, count = table.column_names[:_COLUMNS], table.num_columns
    more = f", in the first {_COLUMNS} of {count} columns" if count > _COLUMNS else ""
    cells = [[_cell(value) for value in column.to_pylist()] for column in table.columns[:_COLUMNS]]
    rows = list(zip(*cells, strict=True))
    return blocks.Table(f"Samples 0 to {_ROWS - 1}{more}", [*map(short_name, names)], rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else short_name(str(value))


def two_ways(context: ReportContext) -> Section:
    """Return the section of paths and ends of the ODE and of the SDE from the same noise."""
    along = principal(context.run.to_field(context.samples).flatten(1))[1][0].float()
    result = paths(context.field, _PATHS, seed=context.seed, steps=_STEPS, along=along)
    text = (
        "Both start from the same noise, and their exact solutions have the same distribution at "
        "every noise level. The end of the probability-flow ODE depends on its start alone. The "
        "reverse SDE takes fresh noise at every step, so it ends elsewhere."
    )
    note = (
        f"{_PATHS} paths each, along the direction in which samples vary most, in deviations of "
        "the data and at the data's scale. Paths of one colour have the same start."
    )
    parts: list[Block] = [blocks.Charts(_path_charts(result)), Note(note), Panels(_ends(context))]
    return Section("two-ways", "ODE and SDE from the same noise", text, parts)


def _ends(context: ReportContext) -> list[Panel]:
    """Return a panel of samples by the ODE, and one by the SDE, from the same start."""
    field = context.run.field
    ode = default_plan(field)
    assert isinstance(ode.times, Tensor)
    times = balanced(field.process, _STEPS, start=float(ode.times[0]), data_std=field.data_std)
    panels = []
    for name, plan in (("ODE", ode), ("SDE", Plan(EulerMaruyama(eta=1.0), times))):
        x, nfe = frames.draw(context.run, plan, context.few(1), **context.settings)
        panels.append(context.panel(f"Samples by the {name}", f"{nfe} calls", [x]))
    return panels


def _path_charts(result: Paths) -> list[Chart]:
    """Return a chart of the ODE's paths and one of the SDE's, over the same axes."""
    values = torch.cat([result.at_scale("ode"), result.at_scale("sde")]).flatten()
    y = Axis.around("", values.tolist())
    order = result.ode[0].argsort()
    drawn = order[torch.linspace(2, len(order) - 3, _COLOURED).long()].tolist()
    tones = {k: tone for tone, k in enumerate(drawn)}
    axes = {kind: replace(y, label=f"Paths of the {kind}") for kind in ("ODE", "SDE")}
    return [path_chart(result, kind, tones, y, _RATIO, True) for kind, y in axes.items()]


def over_time(context: ReportContext) -> Section:
    """Return the section with a slider over time, for several solvers."""
    ratios = frames.frame_ratios(context.run.field).tolist()
    levels = [f"noise-to-signal ratio σ/α = {ratio:.2g}" for ratio in ratios]
    labels = ("starting noise", *levels, "finished samples")
    places = tuple(range(len(labels)))
    panels = []
    for solver in frames.solver_frames(context.run, context.few(len(labels)), **context.settings):
        panel = context.panel(solver.name, f"{solver.nfe} calls", solver.frames)
        panels.append(replace(panel, at=places, notes=(panel.note,) * len(places)))
    text = (
        "All solvers start from the same noise and make about the same number of network calls per "
        "sample. Euler–Maruyama and DDPM are stochastic. Samples between noise and data are shown "
        f"at the data's scale, at the last step before each noise level.{context.class_note}"
    )
    slider = blocks.Slider("time", "Time", labels, panels, plays=True)
    note = Note(f"{context.view.caption} {context.view.hint}")
    return Section("over-time", "From noise to data", text, [slider, note])


def over_calls(context: ReportContext) -> Section:
    """Return the section with a slider over network calls, for the default and tuned plans."""
    run, n, settings = context.run, context.few(len(frames.NFES), 36), context.settings
    default, tuned = frames.samples_by_calls(run, context.plans, n, **settings)
    reference, nfe = frames.draw(run, default_plan(run.field, frames.REFERENCE), n, **settings)
    places = sorted({*default, *tuned})
    labels = tuple(f"{place} network calls (NFE)" for place in places)
    panels = [_by_calls(context, "Default plan", default, places)]
    if tuned:
        panels.append(_by_calls(context, "Tuned plan", tuned, places))
    limit = context.panel("Reference", f"{nfe} calls", [reference])
    panels.append(replace(limit, at=(0,) * len(places), notes=(limit.note,) * len(places)))
    parts: list[Block] = [blocks.Slider("calls", "Calls", labels, panels, "large")]
    if not tuned:
        command = f"scorefield tune {context.folder} --nfe 5,8,10"
        parts.append(blocks.Missing("No plans were tuned for this run. To tune some, run", command))
    text = f"The same samples with more and more network calls.{context.class_note}"
    return Section("over-calls", "How many network calls are enough", text, parts)


def _by_calls(
    context: ReportContext, name: str, results: dict[int, Tensor], places: Sequence[int]
) -> Panel:
    """Return a panel with a frame for every number of calls that has samples."""
    order = sorted(results)
    panel = context.panel(name, f"{order[-1]} calls", [results[nfe] for nfe in order])
    at = tuple(order.index(nfe) if nfe in results else None for nfe in places)
    notes = tuple(f"{nfe} calls" if nfe in results else f"no plan of {nfe} calls" for nfe in places)
    return replace(panel, at=at, notes=notes)


def interpolations(context: ReportContext) -> Section:
    """Return the section of interpolations between items of the data."""
    x, view, title = context.x, context.view, "Between items of the data"
    text = (
        "The probability-flow ODE carries two items to their latent codes, and points between the "
        "codes back to data. The first and the last of each row are the items themselves."
    )
    if x is None or len(x) < 2:
        return Section("between", title, text, [context.missing_data])
    pairs = min(_PAIRS, len(x) // 2)
    ends = x[:pairs], x[pairs : 2 * pairs]
    result = context.run.interpolate(
        *ends, points=_POINTS, given=context.given, batch_size=2 * pairs
    )
    alt = f"{_POINTS} {view.noun} from one item to another"
    panels = [Panel("", "", alt, picture) for picture in view.strips(result.x)]
    note = (
        f"{pairs} interpolations of {_POINTS} points, with {ROUND_TRIP_CALLS} network calls in "
        "each direction. Encoding and decoding an item changes it by at most "
        f"{float(result.error.max()):.1g} of its size. {view.way or view.caption}"
    )
    size: blocks.Size = "wide" if x.ndim > 3 else "large"
    return Section("between", title, text, [Panels(panels, size), Note(note)])
