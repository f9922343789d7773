"""Means and standard errors of columns that come in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class ColumnStatistics:
    """Running statistics of a column of numbers.

    Attributes:
        count, mean: of the numbers so far.
        scatter: the sum of their squared distances from the mean.
        size: the sum of their absolute values.
        largest: of them all.
    """

    count: int = 0
    mean: float = 0.0
    scatter: float = 0.0
    size: float = 0.0
    largest: float = -math.inf

    def add(self, column: np.ndarray) -> None:
        """Add a block of numbers, ``(B,)``.

        Reference: Chan, Golub and LeVeque (1983), The American Statistician 37.
        """
        values = column.astype(np.float64)
        count, mean = self.count + len(values), float(values.mean())
        step = mean - self.mean
        self.scatter += float(((values - mean) ** 2).sum())
        self.scatter += step**2 * self.count * len(values) / count
        self.mean += step * len(values) / count
        self.size += float(np.abs(values).sum())
        self.largest = max(self.largest, float(values.max()))
        self.count = count

    @property
    def stderr(self) -> float:
        """The standard error of the mean; NaN for a single number."""
        if self.count < 2:
            return math.nan
        return math.sqrt(self.scatter / (self.count - 1) / self.count)

    @property
    def rms(self) -> float:
        """The root of the mean square."""
        return math.sqrt(self.mean**2 + self.scatter / self.count)
