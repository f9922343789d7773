"""The sections that show samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scorefield.data.columns import as_table
from scorefield.process import balanced
from scorefield.report import frames
from scorefield.report.axis import Axis
from scorefield.report.blocks import (
    Charts,
    Missing,
    Note,
    Panel,
    Panels,
    Part,
    Section,
    Size,
    Slider,
    Table,
)
from scorefield.report.chart import Chart
from scorefield.report.context import ReportContext
from scorefield.report.frames import draw, frame_ratios, samples_by_calls, solver_frames
from scorefield.report.reverse_paths import Paths, paths
from scorefield.report.text import short_name
from scorefield.report.trajectory import path_chart
from scorefield.report.view_vectors import principal
from scorefield.sampling import DEFAULT_CALLS, ROUND_TRIP_CALLS, Plan, default_plan
from scorefield.solvers import EulerMaruyama

_CLASSES = 10
_OF_CLASS = 9  # samples that are not vectors
_COLUMNS, _ROWS = 8, 6
_PATHS, _STEPS = 24, 80
_COLOURED = 5
_RATIO = "noise-to-signal ratio σ/α, from noise to data"
_PAIRS, _POINTS = 4, 9


def samples(context: ReportContext) -> Section:
    """Samples, of each class if there are some, beside data."""
    view, x, config = context.view, context.inputs.x, context.run.config.data
    many = min(view.many, len(context.samples))
    shown = [
        context.panel("Samples", f"seed {context.inputs.seed}", [context.samples[:many]], False)
    ]
    if x is not None:
        shown.append(context.panel("Data", context.source, [x[:many]], False))
    parts: list[Part] = [Panels(shown, "large"), Note(view.caption + context.class_note)]
    if config.classes:
        parts.append(Panels(_classes(context)))
        if config.classes > _CLASSES:
            parts.append(Note(f"These are the first {_CLASSES} of {config.classes} classes."))
    if config.columns.names:
        parts.append(_rows(context))
    text = (
        f"Drawn by the default plan, with {DEFAULT_CALLS} calls of the network each. Sample k is a "
        "function of the seed and k alone."
    )
    return Section("samples", "Samples", text, parts)


def _classes(context: ReportContext) -> list[Panel]:
    """Return a panel of samples of each of the first classes."""
    config = context.run.config.data
    count = context.view.few(1) if len(config.shape) == 1 else _OF_CLASS
    names = [short_name(name) for name in config.class_names] or list(
        map(str, range(config.classes))
    )
    how, seed = (context.run, default_plan(context.run.field), count), context.inputs.seed
    return [
        context.panel(f"Class {names[y]}", "", [draw(*how, seed=seed, y=y)[0]], False)
        for y in range(min(config.classes, _CLASSES))
    ]


def _rows(context: ReportContext) -> Table:
    """Return the first samples as rows of a table."""
    table = as_table(context.samples[:_ROWS].numpy(), context.run.config.data.columns)
    some = dict(list(table.items())[:_COLUMNS])
    more = f", in the first {_COLUMNS} of {len(table)} columns" if len(table) > _COLUMNS else ""
    cells = [[_cell(value) for value in column.tolist()] for column in some.values()]
    names = [short_name(name) for name in some]
    return Table(f"Samples 0 to {_ROWS - 1}{more}", names, list(zip(*cells, strict=True)))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.5g}"
    return short_name(str(value))


def two_ways(context: ReportContext) -> Section:
    """The same noise through the SDE and the ODE."""
    field, seed = context.field, context.inputs.seed
    seen = context.run.to_field(context.samples)
    along = principal(seen.flatten(1))[1][0].float()
    found = paths(field, _PATHS, seed=seed, steps=_STEPS, along=along)
    text = (
        "Both start from the same noise; solved exactly, both have the same law at every noise "
        "level. Where the "
        "probability-flow ODE ends is a function of its start; the reverse SDE takes fresh noise "
        "at every step and ends elsewhere."
    )
    note = (
        f"{_PATHS} paths each, along the direction in which samples vary most, in deviations of "
        "the data and at the data's scale. The same colour is the same start."
    )
    parts: list[Part] = [Charts(_path_charts(found)), Note(note), Panels(_ends(context))]
    return Section("two-ways", "The same noise, two ways", text, parts)


def _ends(context: ReportContext) -> list[Panel]:
    """Return a panel of where the ODE leads, and one of where the SDE does, from the same start."""
    field = context.run.field
    ode = default_plan(field)
    first = float(ode.times[0])  # type: ignore[index]
    times = balanced(field.process, _STEPS, start=first, data_std=field.data_std)
    panels = []
    for name, plan in (("ODE", ode), ("SDE", Plan(EulerMaruyama(eta=1.0), times))):
        x, nfe = draw(context.run, plan, context.few(1), **context.settings)
        panels.append(context.panel(f"Ends of the {name}", f"{nfe} calls", [x]))
    return panels


def _path_charts(result: Paths) -> list[Chart]:
    """Return a chart of the ODE's paths and one of the SDE's, over the same axes."""
    both = torch.stack([result.at_scale("ode"), result.at_scale("sde")])
    y = Axis.around("", both.flatten().tolist())
    order = result.ode[0].argsort()
    drawn = order[torch.linspace(2, len(order) - 3, _COLOURED).long()].tolist()
    tones = {k: tone for tone, k in enumerate(drawn)}
    return [
        path_chart(
            result, kind, tones, replace(y, label=f"Paths of the {kind}"), _RATIO, others=True
        )
        for kind in ("ODE", "SDE")
    ]


def over_time(context: ReportContext) -> Section:
    """A slider over time, for several solvers."""
    ratios = frame_ratios(context.run.field)
    between = [f"noise-to-signal ratio σ/α = {float(r):.2g}" for r in ratios]
    labels = ("starting noise", *between, "finished samples")
    n = context.few(len(labels))
    places = tuple(range(len(labels)))
    panels = []
    for walk in solver_frames(context.run, n, **context.settings):
        panel = context.panel(walk.name, f"{walk.nfe} calls", walk.frames)
        panels.append(moving(panel, places, (panel.note,) * len(places)))
    text = (
        "Every solver starts from the same noise and spends about as many calls of the network for "
        "each sample; Euler–Maruyama and DDPM are stochastic. States on the way are shown at the "
        "data's scale, each as far as its solver has come at that noise level." + context.class_note
    )
    slider = Slider("time", "Time", labels, panels, plays=True)
    note = Note(f"{context.view.caption} {context.view.hint}")
    return Section("over-time", "From noise to data", text, [slider, note])


def over_calls(context: ReportContext) -> Section:
    """A slider over the number of calls, for the default plan and tuned ones."""
    n, tuned, settings = context.few(len(frames.NFES), 36), context.inputs.tuned, context.settings
    default, fitted = samples_by_calls(context.run, tuned, n, **settings)
    limit, made_by = draw(
        context.run, default_plan(context.run.field, frames.REFERENCE), n, **settings
    )
    places = sorted({*default, *fitted})
    labels = tuple(f"{nfe} calls of the network (NFE)" for nfe in places)
    panels = [_by_calls(context, "Default plan", default, places)]
    parts: list[Part] = []
    if fitted:
        panels.append(_by_calls(context, "Tuned plan", fitted, places))
    reference = context.panel("Reference", f"{made_by} calls", [limit])
    panels.append(moving(reference, (0,) * len(places), (reference.note,) * len(places)))
    parts.append(Slider("calls", "Calls", labels, panels, "large"))
    if not fitted:
        command = f"scorefield tune {context.folder} --nfe 5,8,10"
        parts.append(Missing("No plans were tuned for this run. They are made by", command))
    text = (
        "The same samples for more and more calls of the network, beside those that very "
        "many calls lead to." + context.class_note
    )
    return Section("over-calls", "How many calls are enough", text, parts)


def _by_calls(
    context: ReportContext, name: str, found: dict[int, Tensor], places: Sequence[int]
) -> Panel:
    """Return a panel with a frame for every number of calls that there are samples of."""
    order = sorted(found)
    at = tuple(order.index(nfe) if nfe in found else None for nfe in places)
    notes = tuple(f"{nfe} calls" if nfe in found else f"none of {nfe} calls" for nfe in places)
    panel = context.panel(name, f"{order[-1]} calls", [found[nfe] for nfe in order])
    return moving(panel, at, notes)


def moving(panel: Panel, at: tuple[int | None, ...], notes: tuple[str, ...]) -> Panel:
    """Return a panel for a slider, with the frame and the note of each of its places."""
    return replace(panel, at=at, notes=notes)


def interpolations(context: ReportContext) -> Section:
    """The ways between items of the data, by their latent codes."""
    x, title = context.inputs.x, "Between items of the data"
    text = (
        "Two items are carried to their latent codes by the probability-flow ODE, and points "
        "between the codes back to data. The ends of each way are the items themselves."
    )
    if x is None or len(x) < 2:
        needs = Missing("This needs data, by", f"scorefield report {context.folder} {context.data}")
        return Section("between", title, text, [needs])
    pairs = min(_PAIRS, len(x) // 2)
    ends = x[:pairs], x[pairs : 2 * pairs]
    found = context.run.interpolate(*ends, points=_POINTS, y=context.inputs.y, batch_size=2 * pairs)
    panels = [
        Panel("", "", f"{_POINTS} {context.view.noun} on the way from one item to another", picture)
        for picture in context.view.strips(found.x)
    ]
    size: Size = "wide" if len(context.run.config.data.shape) == 3 else "large"
    worst = f"{float(found.error.max()):.1g}"
    caption = context.view.way or context.view.caption
    note = Note(
        f"{pairs} ways of {_POINTS} points, by {ROUND_TRIP_CALLS} calls each way. A round trip "
        f"changes the items by at most {worst} of their size. {caption}"
    )
    return Section("between", title, text, [Panels(panels, size), note])
