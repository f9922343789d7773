"""The section on the likelihood of items of data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from scorefield._internal.text import plus_minus
from scorefield.likelihood import Likelihood
from scorefield.report.axis import Axis
from scorefield.report.blocks import Charts, Section
from scorefield.report.chart import Chart, Series
from scorefield.report.context import ReportContext

_BINS = 20
_CALLS, _PROBES = 28, 4
_BATCH_SIZE = 64
_EXACT = 8  # coordinates up to which the trace is exact


def likelihood(context: ReportContext) -> Section:
    """Return the section on the likelihood of the first items of the data."""
    title, levels = "Likelihood", context.run.config.train.levels
    if context.run.codec is not None:
        text = "The run models the latents of an autoencoder, so an image has no density under it."
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
