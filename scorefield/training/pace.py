"""The number of steps that fit into a given time."""

from __future__ import annotations

import time

import torch

from scorefield.training.loop import Fit

# a trial measures the time of a step: this share of the time at most, and so many seconds and steps
_SHARE, _LONGEST, _TRIED = 0.03, 20.0, 1000


def steps_within(fit: Fit, minutes: float) -> int:
    """Return the number of steps that a fit can take in some minutes, the same in all workers.

    A trial takes some steps and then restores the fit. The same share of the time is kept free.
    """
    began = time.monotonic()
    start = {name: value.clone() for name, value in fit.state().items()}
    steps, fit.steps = fit.steps, fit.step + _TRIED + 2
    _seconds_each(fit, 1)  # the first step is slower
    allowed = min(_SHARE * 60 * minutes, _LONGEST)
    tried = max(1, min(_TRIED, int(allowed / _seconds_each(fit, 1))))
    each = _seconds_each(fit, tried)
    fit.restore(start)
    fit.steps = steps
    return steps_at(each, minutes, _agreed(fit, time.monotonic() - began))


def steps_at(seconds: float, minutes: float, spent: float = 0.0) -> int:
    """Return the number of steps of so many seconds in some minutes, of which some are spent."""
    return max(1, int((60 * minutes * (1 - _SHARE) - spent) / seconds))


def _seconds_each(fit: Fit, steps: int) -> float:
    began = time.monotonic()
    for _ in range(steps):
        next(fit)
    fit.settle()
    return _agreed(fit, (time.monotonic() - began) / steps)


def _agreed(fit: Fit, seconds: float) -> float:
    """Return the mean over the workers."""
    return float(fit.workers.total(torch.tensor(seconds).double())) / fit.workers.size
