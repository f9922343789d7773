"""Data for a command: items of the kind that a run was trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.rows import Rows, moments_of
from scorefield.runs.run import Run

_WIDEST = 8.0  # the largest ratio of scales between data and training data


def read_items(run: Run, source: str, any_scale: bool = True) -> Rows:
    """Return the items of a source.

    Raises:
        DataError: another shape than the run's, values that are not its levels, or another scale
            than that of the training data.
    """
    x = run.read(source).x
    if any_scale or len(x) < 16 or math.prod(x.shape) < 64:
        return x
    there = moments_of(x, lambda chunk: run.to_field(chunk).cpu())  # float64 is not everywhere
    ratio = _width(there.mean, there.variance) / _width(run.field.mean, run.field.variance)
    if not 1 / _WIDEST <= ratio <= _WIDEST:
        raise DataError(
            f"{source} spreads {ratio:.3g} times as wide as the training data: convert it to the "
            "same units, or give --any-scale if the difference is intended."
        )
    return x


def _width(mean: float | Tensor, variance: float | Tensor) -> float:
    """Return the standard deviation over all coordinates, the spread of their means included."""
    mean, variance = (torch.as_tensor(m, dtype=torch.float64) for m in (mean, variance))
    return float((variance + (mean - mean.mean()) ** 2).mean().sqrt())
