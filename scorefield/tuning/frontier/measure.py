r"""Measurements of plans: network calls, time, distance from exact paths and from real data.

Every plan starts from the same noises. The error of a plan of the probability-flow ODE is the
distance of its samples ``x_k`` from the ends ``y_k`` of the exact paths from the same noise::

    e_k = |x_k - y_k| / sqrt(d),    error = mean over k of e_k                      (1)

with an interval for the mean over new noises, by `Measurement.of_mean`. This is the error of the
solver alone: the error of the field cancels in the difference. The exact paths have many small
steps, and their own error is estimated with half as many.

The distance to real data contains both errors, and applies to plans that add noise, too.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.evaluate.metrics import (
    C2ST,
    EnergyDistance,
    Measurement,
    Metric,
    SlicedWasserstein,
    compare,
)
from scorefield.evaluate.metrics.compare import metric_names
from scorefield.evaluate.metrics.measurement import check_level
from scorefield.field import ScoreField, digest
from scorefield.noise import SAMPLING
from scorefield.process import check_one_level, wide
from scorefield.sampling import Plan, check_evaluating, count_calls, prepare, sample, template
from scorefield.tuning.frontier.result import Frontier, Point
from scorefield.tuning.noises import Noises, distances, draw, mean_distance
from scorefield.tuning.teacher import NODES, ends

METRICS: tuple[Metric, ...] = (SlicedWasserstein(), EnergyDistance(), C2ST())
SMALLEST = 32  # samples, for the standard error of a metric
_TIMES = 3  # measurements of the time of a batch

NamedPlan = tuple[str, Plan]


def frontier(
    field: ScoreField,
    plans: Mapping[str, Plan | Sequence[Plan]],
    *,
    real: Tensor | None = None,
    other: Tensor | None = None,
    n: int = 512,
    seed: int = 0,
    metrics: Sequence[Metric] = METRICS,
    features: Callable[[Tensor], Tensor] = lambda x: x,
    level: float = 0.95,
    batch_size: int = 64,
    progress: Callable[[Sequence[NamedPlan]], Iterable[NamedPlan]] = iter,
) -> Frontier:
    """Measure error, sample quality and cost of plans on a field.

    Needs the calls of all plans for each of ``n`` samples, and 288 more if a plan follows the ODE.

    Args:
        field: to measure on.
        plans: by name; each a `Plan` or several, which form a line.
        real: held-out data in the units of the field, ``(m, *field.shape)``, to measure distances.
        other: more of it, at least ``n``, for the distance of data to data (the floor).
        n: number of samples, with the ids ``0 .. n-1``.
        seed: with an id, determines the noise of a sample.
        metrics: of the distance to data. If every plan adds noise, `Frontier.for_time` uses the
            first, which must be lower for better samples.
        features: of samples and data, which metrics compare; by default the samples and data.
        level: of the confidence intervals.
        batch_size: samples per call of the field.
        progress: takes the list of plans and yields them, as a progress bar does.

    Raises:
        ValueError: no plans, or a plan of another field; data of another shape, or too few items;
            as `scorefield.sample` and `scorefield.evaluate.metrics.compare`.
        NumericalError: as `scorefield.sample`.
    """
    check_one_level("frontier", field.process)
    work = named_plans(plans)
    metric_names(metrics)
    check_sizes(field, n, batch_size, level, real, other)
    for name, plan in work:
        prepared = prepare(field, plan)
        if prepared.first < prepared.last:
            raise ValueError(f"plans: the times of {name} increase; samples start at t_max.")
    like = template(field)
    deterministic = any(plan.solver.weak_order is None for _, plan in work)
    noises = draw(field, n, {}, seed, batch_size, stream=SAMPLING)
    paths, teacher = path_ends(noises) if deterministic else (None, None)
    against, rest = (None if x is None else features(x.to(like)) for x in (real, other))
    judge = _Judge(paths, against, rest, features, metrics, level, seed)
    judged = [
        judge(name, plan, _run(field, plan, n, seed, batch_size)) for name, plan in progress(work)
    ]
    return Frontier(
        field=digest(field),
        process=digest(field.process),
        n=n,
        m=0 if real is None else len(real),
        dim=math.prod(field.shape),
        level=level,
        seed=seed,
        batch_size=batch_size,
        machine=machine(like.device),
        teacher=teacher,
        floors=judged[0][1],
        points=tuple(point for point, _ in judged),
    )


def machine(device: torch.device) -> str:
    """Return the description of a machine that is stored with times measured on it."""
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} thread(s)"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return f"{where}, torch {torch.__version__}"


class _Samples(NamedTuple):
    """Samples, and the cost of one."""

    x: Tensor
    nfe: float
    milliseconds: float


def _run(field: ScoreField, plan: Plan, n: int, seed: int, batch_size: int) -> _Samples:
    """Draw samples batch by batch, and time every batch but the first, which warms up."""
    blocks = [range(first, min(first + batch_size, n)) for first in range(0, n, batch_size)]
    seconds: list[float] = []

    def timed(ids: range) -> Tensor:
        began = time.perf_counter()
        x = sample(field, ids, plan, seed=seed, batch_size=batch_size)
        seconds.append(time.perf_counter() - began)
        return x

    with count_calls(field) as calls:
        x = torch.cat([timed(ids) for ids in blocks])
    while len(seconds) <= _TIMES:
        timed(blocks[0])
    nfe = calls.rows / (len(blocks) * batch_size)
    return _Samples(x, nfe, 1e3 * statistics.median(seconds[1:]) / batch_size)


def path_ends(noises: Noises) -> tuple[Tensor, float]:
    """Return the ends of the exact paths, ``(n, d)``, and the error of paths of half the steps."""
    fine, coarse = (ends(noises, nodes) for nodes in (NODES, NODES // 2))
    return fine, float(distances(coarse, fine).mean())


@dataclass(frozen=True)
class _Judge:
    """Measures samples; the arguments are those of `frontier`, and the ends of the exact paths."""

    paths: Tensor | None
    real: Tensor | None
    other: Tensor | None
    features: Callable[[Tensor], Tensor]
    metrics: Sequence[Metric]
    level: float
    seed: int

    def __call__(
        self, name: str, plan: Plan, samples: _Samples
    ) -> tuple[Point, dict[str, Measurement]]:
        """Return the measurements of a plan, and the floors, which are the same for all plans."""
        error = None
        if self.paths is not None and plan.solver.weak_order is None:
            error = mean_distance(wide(samples.x).flatten(1), self.paths, self.level)
        cost = samples.nfe, samples.milliseconds
        if self.real is None:
            return Point(name, plan, *cost, error, {}, {}), {}
        result = compare(
            self.features(samples.x),
            self.real,
            other=self.other,
            metrics=self.metrics,
            level=self.level,
            seed=self.seed,
        )
        return Point(name, plan, *cost, error, result.values, result.excesses), result.floors


def named_plans(plans: Mapping[str, Plan | Sequence[Plan]]) -> list[NamedPlan]:
    """Return each plan with its name.

    Raises:
        ValueError: no plans, or something else.
    """
    work = []
    for name, value in plans.items():
        several = value if isinstance(value, Sequence) else (value,)
        for plan in several:
            if not isinstance(plan, Plan):
                raise ValueError(f"plans: {name} holds {plan!r}; pass plans, such as Plan(...).")
            work.append((name, plan))
    if not work:
        raise ValueError("plans={}: pass plans, such as {'default': default_plan(field, 10)}.")
    return work


def check_sizes(
    field: ScoreField,
    n: int,
    batch_size: int,
    level: float,
    real: Tensor | None = None,
    other: Tensor | None = None,
) -> None:
    """Reject arguments that would be rejected only after the first plan was measured."""
    check_level(level)
    check_evaluating(field)
    least = 2 if real is None else SMALLEST
    if n < least:
        raise ValueError(f"n={n}: must be at least {least}.")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1.")
    if real is None and other is not None:
        raise ValueError("other: has no effect without real, the data to measure distances to.")
    for name, x, needed in (("real", real, SMALLEST), ("other", other, n)):
        if x is not None and (x.shape[1:] != field.shape or len(x) < needed):
            raise ValueError(
                f"{name}: has shape {tuple(x.shape)}, but needs {needed} or more samples of shape "
                f"{field.shape}."
            )
