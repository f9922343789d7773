r"""Generated samples against real data, by several metrics, each with its interval and its floor.

Most metrics of finite samples are above 0, or below 1, even if both samples have the same
distribution. The value estimated here is therefore the mean of the metric over new samples *of the
same sizes*. It is returned together with::

    floor  = the same metric of as much other real data against the same real data     (1)
    excess = value - floor                                                             (2)

If the generated distribution is the real one, the excess averages exactly 0, for any metric and
sizes. All three have intervals from halves, as in `scorefield.evaluate.metrics.base`. For (2) both
terms are halved together, so that the interval accounts for the real data they share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, ranks, split_halves
from scorefield.evaluate.metrics.measurement import Measurement, check_level
from scorefield.evaluate.metrics.neighbours import C2ST, PRDC
from scorefield.evaluate.metrics.pairs import MMD, EnergyDistance
from scorefield.evaluate.metrics.points import check_points
from scorefield.evaluate.metrics.sliced import SlicedWasserstein
from scorefield.process import check_instance

# all except the Fréchet distance, which costs d^3 for every half and has the largest bias
METRICS: tuple[Metric, ...] = (SlicedWasserstein(), EnergyDistance(), MMD(), C2ST(), PRDC())


@dataclass(frozen=True)
class Comparison:
    """Metrics of generated samples; `dataclasses.asdict` converts it to JSON values.

    Attributes:
        values: each metric of the generated samples against the real ones, by name.
        floors: the same of other real data, (1); empty without other real data.
        excesses: value minus floor, (2); empty without other real data.
        n, m: the numbers of generated and of real samples.
        dim: the number of coordinates of a sample.
        level: confidence level of the intervals.
        seed: of the halves.
    """

    values: dict[str, Measurement]
    floors: dict[str, Measurement]
    excesses: dict[str, Measurement]
    n: int
    m: int
    dim: int
    level: float
    seed: int


def compare(
    x: Tensor,
    real: Tensor,
    *,
    other: Tensor | None = None,
    metrics: Sequence[Metric] = METRICS,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Return metrics of samples ``x`` ``(N, ...)`` against ``real`` ``(M, ...)``.

    The intervals need no more distances than the metrics alone. Memory is bounded: a float64 copy
    of both samples, and blocks of distances.

    Args:
        x: generated samples.
        real: real samples, held out from training.
        other: more real samples, at least ``N``, for the floor; the seed selects ``N`` of them.
        metrics: built-in ones, or your own `Metric`.
        level: confidence level of the intervals.
        seed: determines the halves.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`; fewer of ``other`` than of
            ``x``; no metrics, or two with the same name; fewer than 32 points, or than the
            neighbours of a metric; a level outside (0, 1).
    """
    check_level(level)
    names = metric_names(metrics)
    chosen = None if other is None else _as_many(other, x, seed)

    def measure(points: Tensor) -> dict[str, Tensor]:
        split = split_halves(points, real, seed, "real")
        numbers = torch.cat([metric.values(split) for metric in metrics])
        if len(numbers) != len(names):
            raise ValueError(f"metrics have names {names}, and {len(numbers)} numbers: name each.")
        return dict(zip(names, numbers, strict=True))

    own = measure(x)
    floors = {} if chosen is None else measure(chosen)
    excesses = {name: own[name] - floors[name] for name in floors}
    values, floor, excess = (
        {name: Measurement.of_halves(numbers, level) for name, numbers in by_name.items()}
        for by_name in (own, floors, excesses)
    )
    dim = math.prod(real.shape[1:])
    return Comparison(values, floor, excess, len(x), len(real), dim, level, seed)


def metric_names(metrics: Sequence[Metric]) -> list[str]:
    """Return the names of the numbers of metrics.

    Raises:
        ValueError: no metrics, or two with the same name.
    """
    for metric in metrics:
        check_instance("metric", metric, Metric, "one such as metrics.EnergyDistance()")
    names = [name for metric in metrics for name in metric.names or (type(metric).__name__,)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ValueError(
            f"metrics contain {twice[0]} twice: call compare once for each."
            if twice
            else "metrics=(): give at least one, such as EnergyDistance()."
        )
    return names


def _as_many(other: Tensor, x: Tensor, seed: int) -> Tensor:
    """Return as many of the other real samples as there are in ``x``, selected by the seed."""
    check_points("x", x)
    check_points("other", other)
    if other.shape[1:] != x.shape[1:] or len(other) < len(x):
        raise ValueError(
            f"other has shape {tuple(other.shape)}: a floor needs at least as many points as x, "
            f"{len(x)}, of shape {tuple(x.shape[1:])}."
        )
    return other[ranks(other, seed, step=3) < len(x)]
