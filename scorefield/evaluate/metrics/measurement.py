"""A number with its standard error and confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._internal.statistics import student
from scorefield._internal.text import plus_minus

_MEANS = 400  # of values drawn again
_HEAVIEST, _LIGHTEST = 0.6, 1e3  # powers of a tail


@dataclass(frozen=True)
class Measurement:
    """A value of a metric with the interval for its mean over new samples of the same sizes.

    Attributes:
        value: the metric of the samples.
        stderr: its standard error.
        low, high: the ends of the confidence interval.
    """

    value: float
    stderr: float
    low: float
    high: float

    def __str__(self) -> str:
        """The value, ± half the interval."""
        return plus_minus(self.value, (self.high - self.low) / 2)

    @classmethod
    def of_halves(cls, values: Tensor, level: float) -> Measurement:
        """Return the measurement from the values of all points, of halves and of the other halves.

        The standard error is (1) of `scorefield.evaluate.metrics.base`, with one degree of freedom
        for each pair of halves. The interval is Student's.
        """
        value, halves = float(values[0]), values[1:].reshape(2, -1)
        stderr = float((halves[0] - halves[1]).square().mean().sqrt() / 2)
        half = float(student(level, torch.tensor(float(halves.shape[1])))) * stderr
        return cls(value, stderr, value - half, value + half)

    @classmethod
    def of_mean(cls, values: Tensor, level: float, *, largest: float | None = None) -> Measurement:
        r"""Return the measurement of the mean of independent values ``(N,)``.

        Distances are skewed to the right, and Student's upper bound for their mean is then too low.
        With the skewness ``g`` of the values, ``T = (mean - mu) / std`` is made symmetric::

            T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 N)                                    (1)

        which lies between Student's quantiles over ``sqrt(N)``.

        Values that are large and rare may have no part in the mean at all. With ``largest``, which
        no value exceeds, the interval has room for them: it contains the quantiles of means of
        values that are drawn again, in which the largest twentieth have a power's tail, of Hill's
        estimate, up to ``largest``.

        Reference: Hall (1992), On the removal of skewness by transformation; Hill (1975), A simple
        general approach to inference about the tail of a distribution.
        """
        count, value = len(values), float(values.mean())
        std = float(values.std(correction=0))
        if std == 0:
            return cls(value, 0.0, value, value)
        skew = float(((values - value) / std).pow(3).mean())
        edge = float(student(level, torch.tensor(count - 1.0))) / math.sqrt(count - 1)
        low, high = (value - std * _symmetric(side, skew, count) for side in (edge, -edge))
        if largest is not None:
            again = _drawn_again(values, largest, level)
            low, high = min(low, again[0]), max(high, again[1])
        return cls(value, std / math.sqrt(count - 1), low, high)


def _drawn_again(values: Tensor, largest: float, level: float) -> tuple[float, float]:
    """Return the quantiles of the mean of as many values, with a tail beyond those found."""
    values, generator = values.double().cpu().sort().values, torch.Generator().manual_seed(0)
    count, tail = len(values), max(5, len(values) // 20)
    edge = values[-tail - 1 :][0].clamp(min=torch.finfo(torch.float64).tiny)
    power = (1 / (values[-tail:] / edge).log().mean()).clamp(_HEAVIEST, _LIGHTEST)
    place = torch.randint(count, (_MEANS, count), generator=generator)
    uniform = torch.rand(place.shape, dtype=torch.float64, generator=generator)
    beyond = edge * (1 - uniform * (1 - (edge / largest) ** power)) ** (-1 / power)
    means = torch.where(place < count - tail, values[place], beyond).mean(1)
    quantiles = means.quantile(torch.tensor([1 - level, 1 + level], dtype=torch.float64) / 2)
    low, high = quantiles.tolist()
    return low, high


def _symmetric(y: float, skew: float, count: int) -> float:
    """Return ``T`` for which (1) of `Measurement.of_mean` is ``y``."""
    if abs(skew) < 1e-6:
        return y
    cube = 1 + skew * (y - skew / (6 * count))
    return 3 / skew * (math.copysign(abs(cube) ** (1 / 3), cube) - 1)


def check_level(level: float) -> None:
    """Raise `ValueError` if a confidence level is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level={level:g}: must be between 0 and 1, such as 0.95.")
