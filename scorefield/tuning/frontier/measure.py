r"""Measuring plans: their calls, their time, their distance from exact paths and from real data.

Every plan starts from the same noises. One that follows the probability-flow ODE is told by how far
it ends from where the exact path does, ``y_k`` from standard normal noise ``z_k``::

    e_k = |x_k - y_k| / sqrt(d),    error = mean over k of e_k                      (1)

with an interval for the mean over new noises, by `Measurement.of_mean`. This is
the solver's error and nothing else: the field's own is in both terms of the difference. The exact
paths are those of a fine run, checked by one of half as many steps.

The distance to real data holds all of it, and serves plans that add noise as well.
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
from scorefield.noise import Noise
from scorefield.sampling import Plan, check_evaluating, count_calls, prepare, sample, template
from scorefield.tuning.frontier.result import Frontier, Point
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.teacher import NODES, ends

METRICS: tuple[Metric, ...] = (SlicedWasserstein(), EnergyDistance(), C2ST())
SMALLEST = 32  # samples that a metric has a standard error of
_TIMES = 3  # that the time of a batch is taken

Named = tuple[str, Plan]


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
    progress: Callable[[Sequence[Named]], Iterable[Named]] = iter,
) -> Frontier:
    """Measure what plans are worth on a field, and what they cost.

    Takes the calls of all plans for each of ``n`` samples, and 288 more if one follows the ODE.

    Args:
        field: to measure on.
        plans: by the name of the line they are on; each a `Plan` or several.
        real: held-out data as the field sees it, ``(m, *field.shape)``, to tell distances from.
        other: more of it, ``n`` or more, for the floor.
        n: how many samples, of the ids ``0 .. n-1``.
        seed: with an id, determines the noise of a sample.
        metrics: of the distance to data. Where every plan adds noise, `Frontier.for_time` goes by
            the first, which is to be less for better samples.
        features: what metrics are told of instead of the samples and the data themselves.
        level: of the confidence intervals.
        batch_size: samples per call of the field.
        progress: is given the work and yields it, as a progress bar does.

    Raises:
        ValueError: no plans, or one that does not fit the field; data of another shape, or too
            little of it; as `scorefield.sample` and `scorefield.evaluate.metrics.compare`.
        NumericalError: as `scorefield.sample`.
    """
    work = _work(plans)
    metric_names(metrics)
    _check(field, n, batch_size, level, real, other)
    for name, plan in work:
        run = prepare(field, plan)
        if run.first < run.last:
            raise ValueError(f"the times of {name} rise: samples go from t_max down.")
    like = template(field)
    followed = any(plan.solver.weak_order is None for _, plan in work)
    reached, teacher = _reached(field, n, seed, batch_size) if followed else (None, None)
    against, rest = (None if x is None else features(x.to(like)) for x in (real, other))
    judge = _Judge(reached, against, rest, features, metrics, level, seed)
    judged = [judge(*named, _run(field, named[1], n, seed, batch_size)) for named in progress(work)]
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
    """Return what is told of a machine beside the times that were taken there."""
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} thread(s)"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return f"{where}, torch {torch.__version__}"


class _Made(NamedTuple):
    """Samples, and what one costs."""

    x: Tensor
    nfe: float
    milliseconds: float


def _run(field: ScoreField, plan: Plan, n: int, seed: int, batch_size: int) -> _Made:
    """Draw samples batch by batch, and time every batch but the first, which warms up."""
    blocks = [range(first, min(first + batch_size, n)) for first in range(0, n, batch_size)]
    seconds: list[float] = []

    def made(ids: range) -> Tensor:
        began = time.perf_counter()
        x = sample(field, ids, plan, seed=seed, batch_size=batch_size)
        seconds.append(time.perf_counter() - began)
        return x

    with count_calls(field) as calls:
        x = torch.cat([made(ids) for ids in blocks])
    while len(seconds) <= _TIMES:
        made(blocks[0])
    nfe = calls.count / len(blocks)
    return _Made(x, nfe, 1e3 * statistics.median(seconds[1:]) / batch_size)


def _reached(field: ScoreField, n: int, seed: int, batch_size: int) -> tuple[Tensor, float]:
    """Return where the exact paths end, ``(n, d)``, and how far those of half as many steps do."""
    like = template(field)
    z, _ = Noise(seed, torch.arange(n, device=like.device)).draw(field.shape, like)
    fine, coarse = (ends(Noises(field, z, {}, batch_size), nodes) for nodes in (NODES, NODES // 2))
    return fine, float(distances(coarse, fine).mean())


@dataclass(frozen=True)
class _Judge:
    """What all plans are judged by; the arguments are those of `frontier`, and where paths end."""

    reached: Tensor | None
    real: Tensor | None
    other: Tensor | None
    features: Callable[[Tensor], Tensor]
    metrics: Sequence[Metric]
    level: float
    seed: int

    def __call__(self, name: str, plan: Plan, made: _Made) -> tuple[Point, dict[str, Measurement]]:
        """Return what a plan is worth, and the floors, which are the same for all."""
        error = None
        if self.reached is not None and plan.solver.weak_order is None:
            error = Measurement.of_mean(
                distances(made.x.flatten(1).double(), self.reached), self.level
            )
        cost = made.nfe, made.milliseconds
        if self.real is None:
            return Point(name, plan, *cost, error, {}, {}), {}
        told = compare(
            self.features(made.x),
            self.real,
            other=self.other,
            metrics=self.metrics,
            level=self.level,
            seed=self.seed,
        )
        return Point(name, plan, *cost, error, told.values, told.excesses), told.floors


def _work(plans: Mapping[str, Plan | Sequence[Plan]]) -> list[Named]:
    work = []
    for name, given in plans.items():
        several = given if isinstance(given, Sequence) else (given,)
        for plan in several:
            if not isinstance(plan, Plan):
                raise ValueError(f"plans of {name} hold {plan!r}: give plans, such as Plan(...).")
            work.append((name, plan))
    if not work:
        raise ValueError("plans is empty: give some, such as {'default': default_plan(field, 10)}.")
    return work


def _check(
    field: ScoreField,
    n: int,
    batch_size: int,
    level: float,
    real: Tensor | None,
    other: Tensor | None,
) -> None:
    """Refuse what would be refused after the first plan has run."""
    check_level(level)
    check_evaluating(field)
    least = 2 if real is None else SMALLEST
    if n < least or batch_size < 1:
        raise ValueError(
            f"n = {n}, batch_size = {batch_size}: needs {least} samples, and a batch of one."
        )
    if real is None and other is not None:
        raise ValueError("other is for the floor of distances to real: give real as well.")
    for name, x, needed in (("real", real, SMALLEST), ("other", other, n)):
        if x is not None and (x.shape[1:] != field.shape or len(x) < needed):
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}: needs {needed} or more of {field.shape}."
            )
