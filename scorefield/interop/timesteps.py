"""Lists of timesteps: checks of a pipeline's numbers, and distinct ones for every call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from scorefield.process import Process, check_times


def distinct(timesteps: Tensor, whole: bool) -> Tensor:
    """Return distinct timesteps of calls: int64 if all are and may be whole, else float32.

    If calls share a time, the earlier ones are a rounding error before it, so that a timestep
    identifies its call.
    """
    calls = timesteps.tolist()
    if whole and len({*calls}) == len(calls) and all(t == round(t) for t in calls):
        return torch.tensor(calls).long()
    sign = -1 if calls[-1] > calls[0] else 1
    values: list[float] = []
    for t in reversed(calls):
        value = np.float32(t)
        while float(value) in values:
            value = np.nextafter(np.float32(value + sign * 1e-6), np.float32(sign * math.inf))
        values.append(float(value))
    return torch.tensor(values[::-1], dtype=torch.float32)


def falling(name: str, numbers: Sequence[float]) -> Tensor:
    """Return a pipeline's decreasing numbers, float64 ``(N,)``, without a last 0 of ``sigmas``.

    Raises:
        ValueError: they do not decrease, are not finite, or none; ``sigmas`` are not positive.
    """
    values = torch.as_tensor(np.asarray(numbers), dtype=torch.float64)
    if values.ndim == 1 and name == "sigmas":
        values = values[: -1 if values[-1:].eq(0).any() else None]
    if values.ndim != 1 or len(values) == 0 or not bool((values.diff() < 0).all()):
        raise ValueError(f"{name}={numbers!r}: must be decreasing numbers, at least one.")
    if not bool(values.isfinite().all()) or (name == "sigmas" and not float(values[-1]) > 0):
        raise ValueError(f"{name}={numbers!r}: must be finite, and sigmas positive.")
    return values


def check_count(name: str, count: int | None) -> int:
    """Return a number of steps.

    Raises:
        ValueError: not a whole number, or below 1.
    """
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name}={count!r}: must be a whole number, at least 1.")
    return count


def check_grid(process: Process, times: Tensor) -> Tensor:
    """Return times, one or more, that are inside the process.

    Raises:
        ValueError: as `scorefield.process.check_times`.
    """
    if len(times) != 1:
        return check_times(process, times)
    if not process.contains(times):
        raise ValueError(
            f"t = {float(times):g} is outside [{process.t_min:g}, {process.t_max:g}], the times of "
            f"{process!r}."
        )
    return times
