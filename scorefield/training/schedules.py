"""Schedules of the learning rate and of the decay of weight averages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def rate(step: int, steps: int, warmup: int) -> float:
    """Return the learning rate at a step, relative to its peak: warm-up, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


class Average:
    """Averages with a decay that starts low, so that early weights are forgotten."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, old: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        decay = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(old), list(new), 1 - decay)
