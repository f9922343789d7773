"""The items, noise and times of a training step, as functions of (seed, epoch, item)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from scorefield.data.channels import absent
from scorefield.field import Denoiser
from scorefield.noise import OFFSET, ORDER, TRAINING, Noise
from scorefield.training.objective import Objective

_GOLDEN = (math.sqrt(5) - 1) / 2
_LEVELS = 512  # noise levels of a training on a space


def batch(
    step: int, size: int, count: int, seed: int, part: slice = slice(None)
) -> tuple[Tensor, Noise]:
    """Return the items ``(size,)`` of a step and the noise keyed by their positions in training.

    Every epoch visits each of the ``count`` items once, in its own order. ``part`` selects some of
    the batch; the division into parts changes nothing.
    """
    places = torch.arange(step * size, (step + 1) * size)[part]
    epochs, within = places // count, places % count
    items = torch.empty_like(places)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        items[here] = _order(epoch, count, seed)[within[here]]
    return items, Noise(seed, places, stream=TRAINING)


@lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> Tensor:
    u, _ = Noise(seed, torch.arange(count), epoch, ORDER).uniform(torch.empty(0))
    return u.argsort()


@lru_cache(maxsize=2)
def _offset(seed: int) -> float:
    u, _ = Noise(seed, torch.zeros(1, dtype=torch.int64), stream=OFFSET).uniform(torch.empty(0))
    return float(u)


def draw(
    objective: Objective,
    denoiser: Denoiser,
    x0: Tensor,
    noise: Noise,
    conditions: Mapping[str, Tensor],
    low_discrepancy: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the times ``(B,)``, on the CPU, the noise and the conditions of a step.

    A condition is hidden with probability ``dropout``. Of several conditions each is hidden
    independently, and all of them together with the same probability once more, so that the field
    without any is learned too.
    """
    here = torch.empty(0)
    if low_discrepancy:
        # an additive recurrence over the positions fills (0, 1) evenly for any batch size
        u = (_offset(noise.seed) + noise.ids.double() * _GOLDEN) % 1
        u, noise = u.clamp(1e-12, 1 - 1e-12), noise.skipped()
    else:
        u, noise = noise.uniform(here)
    if denoiser.process.space is not None:  # so many tables of heat kernels
        u = ((u * _LEVELS).floor() + 0.5) / _LEVELS
    t = objective.times(denoiser.process, u)
    eps, noise = denoiser.process.noise(x0, t, noise)
    several, every = len(conditions) > 1, torch.zeros(len(x0), dtype=torch.bool)
    if several:
        hidden, noise = noise.uniform(here)
        every = hidden < dropout
    condition = {}
    for name, value in conditions.items():
        hidden, noise = noise.uniform(here)
        mask = (every | (hidden < dropout)).reshape(-1, *[1] * (value.ndim - 1))
        value = torch.where(mask, absent(value), value)
        condition[name] = value.to(x0.device, non_blocking=True)
    return t, eps, condition
