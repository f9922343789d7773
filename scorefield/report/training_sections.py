"""The sections on the training, on the error at each noise level and on likelihoods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import tomli_w
import torch

from scorefield._internal.text import plus_minus, short_name
from scorefield.likelihood import Likelihood
from scorefield.report import blocks
from scorefield.report.blocks import Charts, Section
from scorefield.report.chart import Axis, Chart, Point, Series
from scorefield.report.context import ReportContext
from scorefield.runs.folder import settings
from scorefield.runs.summary import summary
from scorefield.training.held_out import HeldOut, bins
from scorefield.training.log import FINAL

_DRAWN = 400  # points of a line
_STEPS = 10**12  # no training has more
_TEXT = 20_000  # characters


def training(context: ReportContext) -> Section:
    """Return the section on the data, the network and the loss during training."""
    facts = [(name, short_name(text)) for name, text in summary(context.run).items()]
    text = tomli_w.dumps(settings(context.run.config)["train"])
    parts: list[blocks.Block] = [blocks.Facts(facts), blocks.Text("All settings", text[:_TEXT])]
    lines = {
        "Loss, averaged over 100 steps": _numbers(context, "train", "loss"),
        "Error on held-out data, relative to a Gaussian": _numbers(context, "evaluation", "error"),
    }
    charts = [_line(*line, tone) for tone, line in enumerate(lines.items()) if len(line[1]) > 1]
    if charts:
        parts.append(blocks.Charts(charts))
    elif context.run.config.source is None:
        command = "scorefield train DATA --held-out 0.1 --out RUN"
        text = "The run folder has no training log. To write one, run"
        parts.append(blocks.Missing(text, command))
    parts += _quality(context)
    return Section("training", "Data and training", "The run, and how it was trained.", parts)


_QUALITY = {
    "generated": ("energy distance of samples to held-out data", "lower is better"),
    "real": ("energy distance of training data to held-out data", "of a perfect field"),
    "closest_ratio": ("distance to the closest training record, relative to data", "1 of new data"),
    "copies": ("share of copies above that of data", "0 of new data"),
}


def _quality(context: ReportContext) -> list[blocks.Block]:
    """Return the table of the last comparison of samples with data, if the log has one."""
    rows = []
    for record in list(_records(context, FINAL))[-1:]:
        for name, (text, expected) in _QUALITY.items():
            ends = record.get(f"{name}_interval")
            numbers = [record.get(name), *ends] if isinstance(ends, list) else []
            if len(numbers) == 3 and all(map(_finite, numbers)):
                value, low, high = numbers
                rows.append([text, plus_minus(value, (high - low) / 2), expected])
    names = ["at the end of training", "value and 95 % interval", "expected"]
    return [blocks.Table("Samples next to data", names, rows)] if rows else []


def _line(label: str, points: Sequence[Point], tone: int) -> Chart:
    """Return a chart of one number against the training steps."""
    heights = [y for _, y in points]
    alt = f"{label}: {heights[0]:.3g} at step {points[0][0]:g}, {heights[-1]:.3g} at the last"
    x = Axis("step", 0.0, max(1.0, *(x for x, _ in points)))
    y = Axis.around(label, heights, log=min(heights) > 0)
    return Chart(alt, x, y, [Series("", points, tone)])


def _records(context: ReportContext, event: str) -> Iterator[dict[str, Any]]:
    """Yield the records of one kind that have a plausible step."""
    for record in context.log:
        if record.get("event") == event and 0 <= record["step"] < _STEPS:
            yield record


def _numbers(context: ReportContext, event: str, name: str) -> list[Point]:
    """Return steps and values of one kind of record, if they are finite numbers."""
    points = [
        (float(record["step"]), float(record[name]))
        for record in _records(context, event)
        if _finite(record.get(name))
    ]
    apart = max(1, -(-len(points) // _DRAWN))
    return points[::-apart][::-1]  # the last point is always one of them


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and (value == 0 or 1e-100 < abs(value) < 1e100)


def noise_levels(context: ReportContext) -> Section:
    """Return the section on the error at each noise level, on held-out data and on the data."""
    title = "Error at each noise level"
    text = (
        "The error of the denoiser at each noise level, divided by the error of the optimal "
        "denoiser for independent Gaussian coordinates. A value of 1 means that nothing beyond the "
        "mean and the variance of each coordinate was learned; lower is better."
    )
    edges, note = bins(context.run.field.process).exp().tolist(), ""
    evaluations = _evaluations(context, len(edges) - 1)
    series = [
        _levels(f"held out, step {step}", edges, values, 1, faint=k < len(evaluations) - 1)
        for k, (step, values) in enumerate(evaluations)
    ]
    if context.x is not None:
        items = torch.arange(len(context.x))
        data = HeldOut(context.x, {}, items, context.noised, context.seed)
        series.append(_levels(context.source, edges, data.errors(context.field).tolist(), 0))
        note = (
            f"{min(len(items), 256)} items of {context.source}, with the same noise for every "
            f"network.{context.class_of_items}"
        )
    if not series:
        return Section("levels", title, text, [context.missing_data])
    values = ", ".join(f"{y:.3g}" for _, y in series[-1].points)
    alt = f"Error from the least to the most noise. {series[-1].name}: {values}"
    x = Axis("noise-to-signal ratio σ/α", edges[0], edges[-1], log=True)
    top = max(1.0, *(y for one in series for _, y in one.points))
    chart = Chart(alt, x, Axis("Error relative to a Gaussian", 0.0, 1.05 * top), series)
    return Section("levels", title, text, [blocks.Charts([chart], note)])


def _evaluations(context: ReportContext, count: int) -> list[tuple[int, list[float]]]:
    """Return the first, a middle and the last evaluation: the step, and the error of each level."""
    records = [
        (int(record["step"]), [float(v) for v in record["levels"]])
        for record in _records(context, "evaluation")
        if isinstance(record.get("levels"), list)
        and len(record["levels"]) == count
        and all(map(_finite, record["levels"]))
    ]
    return [records[k] for k in sorted({0, len(records) // 2, len(records) - 1}) if records]


def _levels(
    name: str, edges: Sequence[float], values: Sequence[float], tone: int, faint: bool = False
) -> Series:
    """Return the error of each level as points."""
    middles = [math.sqrt(low * high) for low, high in pairwise(edges)]
    points = list(zip(middles, values, strict=True))
    titles = [] if faint else [f"σ/α = {x:.2g}: {y:.3g}" for x, y in points]
    return Series(name, points, tone, titles=titles, faint=faint)


_BINS = 20
_CALLS, _PROBES = 28, 4
_BATCH_SIZE = 64
_EXACT = 8  # coordinates up to which the trace is exact


def likelihood(context: ReportContext) -> Section:
    """Return the section on the likelihood of the first items of the data."""
    title, levels = "Likelihood", context.run.config.train.levels
    if context.run.codec is not None:
        text = "The run models the latents of a codec, so data has no density under it."
        return Section("likelihood", title, text, [])
    if context.x is None:
        text = "The likelihood of items of data, computed with the probability-flow ODE."
        return Section("likelihood", title, text, [context.missing_data])
    x, dim = context.x[: context.items], context.x[0].numel()
    probes = 0 if math.prod(context.run.field.shape) <= _EXACT else _PROBES
    settings: dict[str, Any] = {
        "nfe": _CALLS,
        "probes": probes,
        "batch_size": min(len(x), _BATCH_SIZE),
    }
    result = context.run.log_prob(x, **settings, **context.settings)
    unit, scale = ("bits per dimension", 1 / (dim * math.log(2))) if levels else ("nats", 1.0)
    values = result.bits_per_dim(dim) if levels else result.value
    error = float(values.std()) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    mean = f"{plus_minus(float(values.mean()), error)} {unit}"
    chance = f"lower is better; guessing would score {math.log2(levels):.3f}" if levels else ""
    text = (
        f"{mean} ({chance or 'higher is better'}): the mean over {len(x)} "
        f"{'held-out ' * context.held_out}items of {context.source} and its standard error."
    )
    chart, note = _histogram(values.tolist(), unit, mean), _doubts(context, result, probes, scale)
    return Section("likelihood", title, text, [Charts([chart], note)])


def _doubts(context: ReportContext, result: Likelihood, probes: int, scale: float) -> str:
    """Return a remark on the errors of one item's likelihood, in nats times ``scale``."""
    probe = float(result.stderr.square().mean().sqrt()) * scale
    solver = float(result.solver_error.abs().mean()) * scale
    trace = f"is ±{probe:.2g} from {probes} probes of the trace" if probes else "has an exact trace"
    note = (
        f"The error of one item {trace}, and about {solver:.2g} from the solver, with {_CALLS} "
        "network calls."
    )
    if not context.run.encoding.exact:
        note += " This is a bound: noise makes the data continuous, and the likelihood is better."
    return note + context.class_of_items


def _histogram(values: Sequence[float], unit: str, mean: str) -> Chart:
    """Return a histogram of values, with a line at their mean."""
    x = Axis.around(unit, values)
    numbers = torch.tensor(values, dtype=torch.float64)
    counts, edges = torch.histogram(numbers, _BINS, range=(x.low, x.high))
    # from the axis along the top of each bar and back to the axis
    heights = [0.0, *counts.repeat_interleave(2).tolist(), 0.0]
    outline = list(zip(edges.repeat_interleave(2).tolist(), heights, strict=True))
    bars = Series("", outline, 0, filled=True)
    top, middle = float(counts.max()) * 1.1, float(numbers.mean())
    line = Series(f"mean, {mean}", [(middle, 0.0), (middle, top)], 1)
    alt = f"Histogram of {len(values)} items from {min(values):.3g} to {max(values):.3g} {unit}"
    return Chart(alt, x, Axis("Items", 0.0, top), [bars, line])
