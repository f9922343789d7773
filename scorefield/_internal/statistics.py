"""Statistics without SciPy: running moments, Student's t, the Kolmogorov-Smirnov test."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """The number, mean and summed squares of the values that are not NaN, for each coordinate.

    Reference: Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for
    computing sample variances.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def none(cls) -> Moments:
        """Return the moments of no samples, to join others to."""
        return cls(torch.zeros((), dtype=torch.int64), *torch.zeros(2, dtype=torch.float64))

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Return the moments of samples ``(B, ...)``, in float64."""
        x = x.double()
        count = (~x.isnan()).sum(0)
        mean = x.nansum(0) / count.clamp(min=1)
        return cls(count, mean, ((x - mean) ** 2).nansum(0))

    def joined(self, other: Moments) -> Moments:
        """Return the moments of both sets of samples."""
        count = self.count + other.count
        share = other.count.double() / count.clamp(min=1)
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * self.count * share
        return Moments(count, self.mean + step * share, squares)

    @property
    def variance(self) -> Tensor:
        """The mean squared distance from the mean."""
        return self.squares / self.count.clamp(min=1)


def student(level: float, freedom: Tensor) -> Tensor:
    """Return the quantiles of Student's t for two-sided intervals, in the shape of ``freedom``.

    In closed form for 1 and 2 degrees of freedom, by Fisher's expansion beyond.
    """
    z, n = NormalDist().inv_cdf(0.5 + level / 2), freedom.clamp(min=3)
    one, two = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    three = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    four = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    expanded = z + one / n + two / n**2 + three / n**3 + four / n**4
    first, second = math.tan(math.pi * level / 2), level * math.sqrt(2 / (1 - level**2))
    return torch.where(freedom < 1.5, first, torch.where(freedom < 2.5, second, expanded))


def kolmogorov_smirnov(a: Tensor, b: Tensor) -> float:
    """Return the asymptotic p-value of two samples ``(N,)``, ``(M,)`` having one distribution.

    Reference: Smirnov (1939); Press et al., Numerical Recipes, section 14.3.
    """
    both = torch.cat([a, b]).sort().values
    shares = [torch.searchsorted(c.sort().values, both, right=True) / len(c) for c in (a, b)]
    largest = float((shares[0] - shares[1]).abs().max())
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    size = (root + 0.12 + 0.11 / root) * largest
    terms = [(-1) ** (k - 1) * math.exp(-2 * (k * size) ** 2) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * sum(terms))) if size > 0.2 else 1.0


@dataclass
class ColumnStatistics:
    """Running statistics of a column of numbers.

    Attributes:
        count: the numbers so far, missing ones included.
        moments: of the numbers that are not missing.
        size: the sum of their absolute values.
        largest: of them all.
    """

    count: int = 0
    moments: Moments = field(default_factory=Moments.none)
    size: float = 0.0
    largest: float = -math.inf

    def add(self, column: np.ndarray) -> None:
        """Add a block of numbers, ``(B,)``."""
        values = torch.from_numpy(column.astype(np.float64))
        self.count += len(values)
        self.moments = self.moments.joined(Moments.of(values))
        self.size += float(values.abs().sum())
        self.largest = max(self.largest, float(values.max()))

    @property
    def mean(self) -> float:
        """The mean; NaN with a missing number."""
        return float(self.moments.mean) if self.moments.count == self.count else math.nan

    @property
    def stderr(self) -> float:
        """The standard error of the mean; NaN for a single number."""
        if self.count < 2:
            return math.nan
        return math.sqrt(float(self.moments.squares) / (self.count - 1) / self.count)

    @property
    def rms(self) -> float:
        """The root of the mean square."""
        return math.sqrt(self.mean**2 + float(self.moments.variance))
