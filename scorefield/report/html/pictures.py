"""The sections that show samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scorefield.data.columns import as_table
from scorefield.process import balanced
from scorefield.report.html.charts import Axis, Chart, Series, bounds
from scorefield.report.html.material import Material
from scorefield.report.html.parts import (
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
from scorefield.report.html.vectors import principal
from scorefield.report.html.walks import NFES, REFERENCE, by_calls, finished, levels, walks
from scorefield.report.html.words import named
from scorefield.report.tracks import Paths, paths
from scorefield.sampling import DEFAULT_CALLS, ROUND_TRIP_CALLS, Plan, default_plan
from scorefield.solvers import EulerMaruyama

_CLASSES = 10
_OF_CLASS = 9  # samples that are not vectors
_COLUMNS, _ROWS = 8, 6
_PATHS, _STEPS = 24, 80
_PLAIN = 6  # the tone of text
_PAIRS, _POINTS = 4, 9


def samples(made: Material) -> Section:
    """Samples, of each class if there are some, beside data."""
    view, x, config = made.view, made.opened.x, made.run.config.data
    many = min(view.many, len(made.samples))
    shown = [made.panel("Samples", f"seed {made.opened.seed}", [made.samples[:many]], False)]
    if x is not None:
        shown.append(made.panel("Data", named(made.opened.source or ""), [x[:many]], False))
    parts: list[Part] = [Panels(shown, "large"), Note(view.caption + made.class_note)]
    if config.classes:
        parts.append(Panels(_classes(made)))
        if config.classes > _CLASSES:
            parts.append(Note(f"These are the first {_CLASSES} of {config.classes} classes."))
    if config.columns.names:
        parts.append(_rows(made))
    text = (
        f"Drawn by the general plan, with {DEFAULT_CALLS} calls of the network each. Sample k is a "
        "function of the seed and k alone."
    )
    return Section("samples", "Samples", text, parts)


def _classes(made: Material) -> list[Panel]:
    """Return a panel of samples of each of the first classes."""
    config = made.run.config.data
    count = made.view.few(1) if len(config.shape) == 1 else _OF_CLASS
    names = [named(name) for name in config.class_names] or list(map(str, range(config.classes)))
    how, seed = (made.run, default_plan(made.run.field), count), made.opened.seed
    return [
        made.panel(f"Class {names[y]}", "", [finished(*how, seed=seed, y=y)[0]], False)
        for y in range(min(config.classes, _CLASSES))
    ]


def _rows(made: Material) -> Table:
    """Return the first samples as rows of a table."""
    table = as_table(made.samples[:_ROWS].numpy(), made.run.config.data.columns)
    some = dict(list(table.items())[:_COLUMNS])
    more = f", in the first {_COLUMNS} of {len(table)} columns" if len(table) > _COLUMNS else ""
    cells = [[_cell(value) for value in column.tolist()] for column in some.values()]
    names = [named(name) for name in some]
    return Table(f"Samples 0 to {_ROWS - 1}{more}", names, list(zip(*cells, strict=True)))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.5g}"
    return named(str(value))


def two_ways(made: Material) -> Section:
    """The same noise through the SDE and the ODE."""
    field, seed = made.field, made.opened.seed
    seen = made.run.seen(made.samples)
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
    parts: list[Part] = [Charts(_tracks(found)), Note(note), Panels(_ends(made))]
    return Section("two-ways", "The same noise, two ways", text, parts)


def _ends(made: Material) -> list[Panel]:
    """Return a panel of where the ODE leads, and one of where the SDE does, from the same start."""
    field = made.run.field
    ode = default_plan(field)
    first = float(ode.times[0])  # type: ignore[index]
    times = balanced(field.process, _STEPS, start=first, data_std=field.data_std)
    panels = []
    for name, plan in (("ODE", ode), ("SDE", Plan(EulerMaruyama(eta=1.0), times))):
        x, nfe = finished(made.run, plan, made.few(1), **made.settings)
        panels.append(made.panel(f"Ends of the {name}", f"{nfe} calls", [x]))
    return panels


def _tracks(found: Paths) -> list[Chart]:
    """Return a chart of the ODE's paths and one of the SDE's, over the same axes."""
    ratio = found.ratio.tolist()
    tracks = {"ODE": found.ode * found.scale[:, None], "SDE": found.sde * found.scale[:, None]}
    ends = bounds(torch.stack(list(tracks.values())).flatten().tolist())
    across = Axis("noise-to-signal ratio σ/α, from noise to data", ratio[0], ratio[-1], log=True)
    order = found.ode[0].argsort()
    some = order[torch.linspace(2, len(order) - 3, 5).long()].tolist()
    marked = {k: tone for tone, k in enumerate(some)}
    charts = []
    for name, track in tracks.items():
        looks = {k: (_PLAIN, True) for k in range(track.shape[1]) if k not in marked}
        looks |= {k: (tone, False) for k, tone in marked.items()}  # drawn last, so above
        series = [
            Series("", list(zip(ratio, track[:, k].tolist(), strict=True)), tone, faint=faint)
            for k, (tone, faint) in looks.items()
        ]
        alt = f"{track.shape[1]} paths of the {name} from noise on the left to data on the right"
        upwards = Axis(f"Paths of the {name}", *ends)
        charts.append(Chart(alt, across, upwards, series, legend=False))
    return charts


def over_time(made: Material) -> Section:
    """A slider over time, for several solvers."""
    ratios = levels(made.run.field)
    between = [f"noise-to-signal ratio σ/α = {float(r):.2g}" for r in ratios]
    labels = ("starting noise", *between, "finished samples")
    n = made.few(len(labels))
    places = tuple(range(len(labels)))
    panels = []
    for walk in walks(made.run, n, **made.settings):
        panel = made.panel(walk.name, f"{walk.nfe} calls", walk.frames)
        panels.append(moving(panel, places, (panel.note,) * len(places)))
    text = (
        "Every solver starts from the same noise and spends about as many calls of the network for "
        "each sample; Euler–Maruyama and DDPM are stochastic. States on the way are shown at the "
        "data's scale, each as far as its solver has come at that noise level." + made.class_note
    )
    slider = Slider("time", "Time", labels, panels, plays=True)
    note = Note(f"{made.view.caption} {made.view.hint}")
    return Section("over-time", "From noise to data", text, [slider, note])


def over_calls(made: Material) -> Section:
    """A slider over the number of calls, for the general plan and tuned ones."""
    n, tuned, settings = made.few(len(NFES), 36), made.opened.tuned, made.settings
    general, fitted = by_calls(made.run, tuned, n, **settings)
    limit, made_by = finished(made.run, default_plan(made.run.field, REFERENCE), n, **settings)
    places = sorted({*general, *fitted})
    labels = tuple(f"{nfe} calls of the network (NFE)" for nfe in places)
    panels = [_by_calls(made, "General plan", general, places)]
    parts: list[Part] = []
    if fitted:
        panels.append(_by_calls(made, "Tuned plan", fitted, places))
    reference = made.panel("Reference", f"{made_by} calls", [limit])
    panels.append(moving(reference, (0,) * len(places), (reference.note,) * len(places)))
    parts.append(Slider("calls", "Calls", labels, panels, "large"))
    if not fitted:
        command = f"scorefield tune {made.folder} --nfe 5,8,10"
        parts.append(Missing("No plans were tuned for this run. They are made by", command))
    text = (
        "The same samples for more and more calls of the network, beside those that very "
        "many calls lead to." + made.class_note
    )
    return Section("over-calls", "How many calls are enough", text, parts)


def _by_calls(made: Material, name: str, found: dict[int, Tensor], places: Sequence[int]) -> Panel:
    """Return a panel with a frame for every number of calls that there are samples of."""
    order = sorted(found)
    at = tuple(order.index(nfe) if nfe in found else None for nfe in places)
    notes = tuple(f"{nfe} calls" if nfe in found else f"none of {nfe} calls" for nfe in places)
    panel = made.panel(name, f"{order[-1]} calls", [found[nfe] for nfe in order])
    return moving(panel, at, notes)


def moving(panel: Panel, at: tuple[int | None, ...], notes: tuple[str, ...]) -> Panel:
    """Return a panel for a slider, with the frame and the note of each of its places."""
    return replace(panel, at=at, notes=notes)


def interpolations(made: Material) -> Section:
    """The ways between items of the data, by their latent codes."""
    x, title = made.opened.x, "Between items of the data"
    text = (
        "Two items are carried to their latent codes by the probability-flow ODE, and points "
        "between the codes back to data. The ends of each way are the items themselves."
    )
    if x is None or len(x) < 2:
        needs = Missing("This needs data, by", f"scorefield report {made.folder} {made.data}")
        return Section("between", title, text, [needs])
    pairs = min(_PAIRS, len(x) // 2)
    ends = x[:pairs], x[pairs : 2 * pairs]
    found = made.run.interpolate(*ends, points=_POINTS, y=made.opened.y, batch_size=2 * pairs)
    panels = [
        Panel("", "", f"{_POINTS} {made.view.noun} on the way from one item to another", picture)
        for picture in made.view.strips(found.x)
    ]
    size: Size = "wide" if len(made.run.config.data.shape) == 3 else "large"
    worst = f"{float(found.error.max()):.1g}"
    note = Note(
        f"{pairs} ways of {_POINTS} points, by {ROUND_TRIP_CALLS} calls each way. A round trip "
        f"changes the items by at most {worst} of their size. {made.view.way or made.view.caption}"
    )
    return Section("between", title, text, [Panels(panels, size), note])
