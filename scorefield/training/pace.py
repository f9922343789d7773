"""How many steps there is time for."""

from __future__ import annotations

import time

import torch

from scorefield.training.loop import Fit

# what is tried to see what a step costs: this share of the time, not more than so many seconds, and
# not more than so many steps
_SHARE, _LONGEST, _TRIED = 0.03, 20.0, 1000


def steps_within(fit: Fit, minutes: float) -> int:
    """Return how many steps a fit can take in some minutes, the same number in every process.

    Some are taken to see what one costs, and then taken back; the same share of the time is left
    over.
    """
    began = time.monotonic()
    start = {name: value.clone() for name, value in fit.state().items()}
    steps, fit.steps = fit.steps, fit.step + _TRIED + 2
    next(fit)  # which has the costs of a start
    allowed = min(_SHARE * 60 * minutes, _LONGEST)
    tried = max(1, min(_TRIED, int(allowed / _seconds_each(fit, 1))))
    each = _seconds_each(fit, tried)
    fit.restore(start)
    fit.steps = steps
    left = 60 * minutes * (1 - _SHARE) - _agreed(fit, time.monotonic() - began)
    return max(1, int(left / each))


def _seconds_each(fit: Fit, steps: int) -> float:
    began = time.monotonic()
    for _ in range(steps):
        next(fit)
    return _agreed(fit, (time.monotonic() - began) / steps)


def _agreed(fit: Fit, seconds: float) -> float:
    """Return the mean over the workers."""
    return float(fit.workers.total(torch.tensor(seconds).double())) / fit.workers.size
