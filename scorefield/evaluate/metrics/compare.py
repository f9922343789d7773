r"""Generated samples against real data, by several metrics, each with its interval and its floor.

A metric of finite samples does not tell a distance alone: most are above 0, or below 1, for two
samples of one law. What is told here is therefore the mean of the metric over new samples *of the
same sizes*, and beside it::

    floor  = the same metric of as much other real data against the same real data     (1)
    excess = value - floor                                                             (2)

Where the generated law is the real one, the excess averages exactly 0, for any metric and sizes.
All three have intervals from halves, as in `base`; for (2) both terms are halved
at once, so that it is known that they share real data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, dealt, ranks
from scorefield.evaluate.metrics.c2st import C2ST
from scorefield.evaluate.metrics.energy import EnergyDistance
from scorefield.evaluate.metrics.measurement import Measurement, check_level
from scorefield.evaluate.metrics.mmd import MMD
from scorefield.evaluate.metrics.points import check_points
from scorefield.evaluate.metrics.prdc import PRDC
from scorefield.evaluate.metrics.sliced import SlicedWasserstein

# all but the Fréchet distance, which takes d^3 for every half and is biased most
METRICS: tuple[Metric, ...] = (SlicedWasserstein(), EnergyDistance(), MMD(), C2ST(), PRDC())


@dataclass(frozen=True)
class Comparison:
    """What metrics say of generated samples; `dataclasses.asdict` makes JSON of it.

    Attributes:
        values: each metric of the generated samples against the real ones, by name.
        floors: the same of other real data, (1); empty if none was given.
        excesses: value less floor, (2); empty if no other real data was given.
        n, m: how many generated and how many real samples.
        dim: coordinates of a sample.
        level: of the confidence intervals.
        seed: what dealt the points into halves.
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
    """Return what metrics say of samples ``x`` ``(N, ...)`` against ``real`` ``(M, ...)``.

    Takes as many distances as the metrics alone, in bounded memory: a float64 copy of both samples
    that are compared, and blocks beside.

    Args:
        x: generated samples.
        real: real samples, held out from training.
        other: more real samples, ``N`` or more; the floor is of ``N`` of them, chosen by the seed.
        metrics: which, with their settings.
        level: of the confidence intervals.
        seed: determines which points are in which half.

    Raises:
        ValueError: as `point_clouds`; fewer of ``other`` than of ``x``;
            no metrics, or two of one name; fewer than 32 points, or than the neighbours asked for;
            a level outside (0, 1).
    """
    check_level(level)
    names = names_of(metrics)
    chosen = None if other is None else _as_many(other, x, seed)

    def measured(points: Tensor) -> dict[str, Tensor]:
        split = dealt(points, real, seed, "real")
        return dict(zip(names, torch.cat([m.values(split) for m in metrics]), strict=True))

    ours = measured(x)
    floors = {} if chosen is None else measured(chosen)
    excesses = {name: ours[name] - floors[name] for name in floors}
    values, floor, excess = (
        {name: Measurement.of_halves(numbers, level) for name, numbers in by.items()}
        for by in (ours, floors, excesses)
    )
    dim = math.prod(real.shape[1:])
    return Comparison(values, floor, excess, len(x), len(real), dim, level, seed)


def names_of(metrics: Sequence[Metric]) -> list[str]:
    """Return what metrics tell.

    Raises:
        ValueError: no metrics, or two of one name.
    """
    names = [name for metric in metrics for name in metric.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ValueError(
            f"metrics tell {twice[0]} twice: compare once with each."
            if twice
            else "metrics is empty: give at least one, such as EnergyDistance()."
        )
    return names


def _as_many(other: Tensor, x: Tensor, seed: int) -> Tensor:
    """Return as many of the other real samples as there are of ``x``, chosen by the seed."""
    check_points("x", x)
    check_points("other", other)
    if other.shape[1:] != x.shape[1:] or len(other) < len(x):
        raise ValueError(
            f"other has shape {tuple(other.shape)}: a floor needs {len(x)} points or more, as many "
            f"as x, of shape {tuple(x.shape[1:])}."
        )
    return other[ranks(other, seed, step=3) < len(x)]
