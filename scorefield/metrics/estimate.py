"""A number with its standard error and confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.likelihood.result import student


@dataclass(frozen=True)
class Estimate:
    """What a metric says, and how far new samples of the same sizes would change it.

    Attributes:
        value: the metric of the samples.
        stderr: its standard error, from halves of the samples.
        low, high: the ends of Student's confidence interval for the mean over new samples.
    """

    value: float
    stderr: float
    low: float
    high: float


def estimated(values: Tensor, level: float) -> Estimate:
    """Return the estimate from the value of all points, of halves, and of the other halves.

    The standard error is (1) of `scorefield.metrics.base`, with a degree of freedom for each pair.
    """
    value, halves = float(values[0]), values[1:].reshape(2, -1)
    stderr = float((halves[0] - halves[1]).square().mean().sqrt() / 2)
    half = float(student(level, torch.tensor(float(halves.shape[1])))) * stderr
    return Estimate(value, stderr, value - half, value + half)


def check_level(level: float) -> None:
    """Raise `ValueError` unless a confidence level is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level = {level:g}: give a number between 0 and 1, such as 0.95.")
