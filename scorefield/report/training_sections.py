"""The sections that tell of the training and of likelihoods, and how to make it all again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import tomli_w
import torch

from scorefield.likelihood import Likelihood
from scorefield.report.axis import Axis
from scorefield.report.blocks import Charts, Commands, Facts, Missing, Part, Section, Text
from scorefield.report.chart import Chart, Series, steps
from scorefield.report.context import ReportContext
from scorefield.report.text import plus_minus, short_name
from scorefield.runs.folder import settings as run_settings
from scorefield.runs.summary import summary
from scorefield.training.held_out import HeldOut, bins

_DRAWN = 400  # points of a line
_STEPS = 10**12  # beyond which no training goes
_BINS = 20
_TEXT = 20_000  # characters
_CALLS, _PROBES = 28, 4  # of the likelihood
_BATCH_SIZE = 64
_EXACT = 8  # coordinates up to which the trace is exact


def training(context: ReportContext) -> Section:
    """What was trained on what, and the loss on the way."""
    facts = [(name, short_name(text)) for name, text in summary(context.run).items()]
    loss = _numbers(context.inputs.log, "train", "loss")
    error = _numbers(context.inputs.log, "evaluation", "error")
    settings = tomli_w.dumps(run_settings(context.run.config)["train"])
    parts: list[Part] = [Facts(facts), Text("All settings", settings[:_TEXT])]
    charts = []
    if len(loss) > 1:
        charts.append(_line("Loss, a mean over 100 steps", loss, 0))
    if len(error) > 1:
        charts.append(_line("Error on held-out data, relative to that of a Gaussian", error, 1))
    if charts:
        parts.append(Charts(charts))
    elif context.run.config.source is None:
        command = "scorefield train DATA --held-out 0.1 --out RUN"
        parts.append(
            Missing("No log of the training lies in the run folder. One is written by", command)
        )
    text = "What the network learned from, and how."
    return Section("training", "What was trained on what", text, parts)


def _line(label: str, points: Sequence[tuple[float, float]], tone: int) -> Chart:
    heights = [y for _, y in points]
    log = min(heights) > 0
    last = f"{label}: {heights[0]:.3g} at step {points[0][0]:g}, {heights[-1]:.3g} at the last"
    across = Axis("step", 0.0, max(1.0, *(x for x, _ in points)))
    upwards = Axis.around(label, heights, log)
    return Chart(last, across, upwards, [Series("", points, tone)])


def _numbers(log: Sequence[Mapping[str, Any]], event: str, name: str) -> list[tuple[float, float]]:
    """Return steps and values of one kind of record, where they are finite numbers."""
    found = [
        (float(record["step"]), float(record[name]))
        for record in log
        if record.get("event") == event
        and _finite(record.get(name))
        and 0 <= record["step"] < _STEPS
    ]
    apart = max(1, -(-len(found) // _DRAWN))
    return found[::-apart][::-1]  # with the last among them


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and (value == 0 or 1e-100 < abs(value) < 1e100)


def noise_levels(context: ReportContext) -> Section:
    """The error at each noise level, of held-out data."""
    edges, x = bins(context.run.field.process).exp().tolist(), context.inputs.x
    logged, source = (
        _levels(context.inputs.log, len(edges) - 1),
        context.source,
    )
    series = [
        _level_series(f"held out, step {step}", edges, values, 1, faint=k < len(logged) - 1)
        for k, (step, values) in enumerate(logged)
    ]
    note = ""
    if x is not None:
        held = HeldOut(x, None, torch.arange(len(x)), context.seen, context.inputs.seed)
        series.append(_level_series(source, edges, held.errors(context.field).tolist(), 0))
        note = f"{min(len(x), 256)} items of {source}; the noise is the same for any network."
        note += context.class_of_items
    title = "Error at each noise level"
    text = (
        "The error of the denoiser at each noise level, as a share of the error of the best "
        "denoiser that knows no more than the mean and the variance of each coordinate. Below 1 "
        "the network knows more than these."
    )
    if not series:
        needs = Missing("This needs data, by", f"scorefield report {context.folder} {context.data}")
        return Section("levels", title, text, [needs])
    across = Axis("noise-to-signal ratio σ/α", edges[0], edges[-1], log=True)
    top = max(1.0, *(y for s in series for _, y in s.points))
    upwards = Axis("Error relative to that of a Gaussian", 0.0, 1.05 * top)
    told = f"{series[-1].name}: {', '.join(f'{y:.3g}' for _, y in series[-1].points)}"
    chart = Chart(f"Error from the least to the most noise. {told}", across, upwards, series)
    return Section("levels", title, text, [Charts([chart], note)])


def _levels(log: Sequence[Mapping[str, Any]], count: int) -> list[tuple[int, list[float]]]:
    """Return the first, a middle and the last evaluation: the step, and the error of each level."""
    found = [
        (int(record["step"]), [float(v) for v in record["levels"]])
        for record in log
        if record.get("event") == "evaluation"
        and 0 <= record["step"] < _STEPS
        and isinstance(record.get("levels"), list)
        and len(record["levels"]) == count
        and all(map(_finite, record["levels"]))
    ]
    return [found[k] for k in sorted({0, len(found) // 2, len(found) - 1})] if found else []


def _level_series(
    name: str, edges: Sequence[float], values: Sequence[float], tone: int, faint: bool = False
) -> Series:
    middles = [math.sqrt(a * b) for a, b in pairwise(edges)]
    titles = [f"σ/α = {x:.2g}: {y:.3g}" for x, y in zip(middles, values, strict=True)]
    points = list(zip(middles, values, strict=True))
    return Series(name, points, tone, titles=() if faint else titles, faint=faint)


def likelihood(context: ReportContext) -> Section:
    """How likely items of the data are under the run."""
    x, levels = context.inputs.x, context.run.config.train.levels
    title = "Likelihood"
    if context.run.codec is not None:
        text = "The run is of latents, and a picture has no density through an autoencoder."
        return Section("likelihood", title, text, [])
    if x is None:
        text = "How likely items of data are under the run, by the probability-flow ODE."
        command = f"scorefield report {context.folder} {context.data}"
        return Section("likelihood", title, text, [Missing("This needs data, by", command)])
    x, dim = x[: context.items], x[0].numel()
    probes = 0 if math.prod(context.run.field.shape) <= _EXACT else _PROBES
    how = {
        "nfe": _CALLS,
        "probes": probes,
        "batch_size": min(len(x), _BATCH_SIZE),
        **context.settings,
    }
    found = context.run.log_prob(x, **how)
    unit, scale = ("bits per dimension", 1 / (dim * math.log(2))) if levels else ("nats", 1.0)
    values = found.bits_per_dim(dim) if levels else found.value
    error = float(values.std()) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    said = f"{plus_minus(float(values.mean()), error)} {unit}"
    better = f"lower is better, {math.log2(levels):.3f} is chance" if levels else "higher is better"
    source = f"{'held-out ' * context.inputs.held_out}items of {context.source}"
    text = f"{said} ({better}): the mean over {len(x)} {source} and its standard error."
    chart = _histogram(values.tolist(), unit, said)
    note = _doubts(context, found, probes, scale)
    return Section("likelihood", title, text, [Charts([chart], note)])


def _doubts(context: ReportContext, found: Likelihood, probes: int, scale: float) -> str:
    """Return what is uncertain in the likelihood of a single item, nats times ``scale``."""
    probe = float(found.stderr.square().mean().sqrt()) * scale
    solver = float(found.solver_error.abs().mean()) * scale
    opened = f"its {probes} probes of the trace leave ±{probe:.2g} open and " if probes else ""
    note = (
        f"Of a single item {opened}the solver leaves about {solver:.2g}, with {_CALLS} calls of "
        f"the network{'' if probes else ' and an exact trace'}."
    )
    if not context.run.encoding.exact:
        note += " By the noise that makes the data continuous this is a bound: the truth is better."
    return note + context.class_of_items


def _histogram(values: Sequence[float], unit: str, said: str) -> Chart:
    x = Axis.around(unit, values)
    counts, edges = torch.histogram(
        torch.tensor(values, dtype=torch.float64), _BINS, range=(x.low, x.high)
    )
    outline = Series("", steps(counts.tolist(), edges.tolist()), 0, filled=True)
    mean = sum(values) / len(values)
    top = float(counts.max()) * 1.1
    line = Series(f"mean, {said}", [(mean, 0.0), (mean, top)], 1)
    alt = f"Histogram of {len(values)} items from {min(values):.3g} to {max(values):.3g} {unit}"
    return Chart(alt, x, Axis("Items", 0.0, top), [outline, line])


def commands(context: ReportContext) -> Section:
    """How all this is made again."""
    folder, data = context.folder, context.data
    held, seed = " --held-out" if context.inputs.held_out else "", context.inputs.seed
    source = short_name(shlex.quote(context.run.config.data.name))
    given = "" if context.inputs.source is None else f" {data}{held}"
    lines = [
        f"scorefield report {folder}{given} --seed {seed}",
        f"scorefield sample {folder} --n 64 --seed {seed}",
        *([] if context.run.codec else [f"scorefield likelihood {folder} {data}"]),
        f"scorefield interpolate {folder} {data} --pairs 0:1 2:3",
    ]
    if context.run.config.source is None:
        lines.append(f"scorefield train {source} --config {folder}/config.toml --out AGAIN")
    text = "Every number and picture here is a function of the run, the data and the seed."
    return Section("commands", "How to make it again", text, [Commands("\n".join(lines))])
