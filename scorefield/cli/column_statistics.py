"""Means and standard errors of columns that come in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from scorefield._internal.statistics import Moments


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
