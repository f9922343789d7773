r"""Paths from noise to data, by the reverse SDE and by the probability-flow ODE.

Both start from the same noise and share their marginals at every time, though no two of their paths
agree. A process may let ``x_t`` grow a hundredfold, so pictures show it at the data's scale ``c``::

    x_t c / sqrt(alpha^2 c^2 + sigma^2)                                             (1)

Reference: Song et al. (2021), arXiv:2011.13456, section 4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import balanced, time_near
from scorefield.sampling import integrate, prior, sample
from scorefield.solvers import AnglePrediction, EulerMaruyama, Multistep, Solver

# The noise-to-signal ratios sigma / (c alpha) between which there is something to see.
NOISIEST, CLEANEST = 30.0, 0.01
_BATCH_SIZE = 512


@dataclass(frozen=True)
class Paths:
    """One coordinate of many paths.

    Attributes:
        times: ``(T,)``, falling, float64.
        sde, ode: ``(T, n)``; path ``k`` of both starts from the same noise.
        ratio: ``(T,)``, ``sigma / alpha`` at those times.
        scale: ``(T,)``, the factor of (1) that brings a time to the data's scale.
    """

    times: Tensor
    sde: Tensor
    ode: Tensor
    ratio: Tensor
    scale: Tensor

    def at_scale(self, kind: str) -> Tensor:
        """Return the paths of the ``sde`` or the ``ode`` at the data's scale, ``(T, n)``."""
        track: Tensor = getattr(self, kind)
        return track * self.scale[:, None]


def paths(
    field: ScoreField, n: int, *, seed: int = 0, steps: int = 300, along: Tensor | None = None
) -> Paths:
    """Follow ``n`` samples from noise to data by the reverse SDE and by the ODE.

    Path ``k`` is a function of (field, seed, k, steps), and is seen along a direction ``(d,)``: the
    first coordinate's unless given. The SDE is solved by `EulerMaruyama`, the
    ODE by third-order `Multistep`, over ``steps`` steps of `balanced` where the noise is between 30
    times and a hundredth of the data's deviation. Makes ``2 steps`` calls per sample.

    Raises:
        ValueError: ``n < 1`` or ``steps < 1``.
    """
    if n < 1 or steps < 1:
        raise ValueError(f"n = {n}, steps = {steps}: give at least one of each.")
    process, c = field.process, field.data_std
    first, last = (time_near(process, ratio * c) for ratio in (NOISIEST, CLEANEST))
    times = balanced(process, steps, start=first, end=last, data_std=c)
    alpha, sigma = process.coefficients(times)
    scale = c / torch.hypot(c * alpha, sigma)
    if along is None:
        along = torch.eye(1, math.prod(field.shape))[0]
    sde = _follow(field, EulerMaruyama(eta=1.0), times, n, seed, along)
    ode = _follow(field, Multistep(3, AnglePrediction(c)), times, n, seed, along)
    return Paths(times, sde, ode, sigma / alpha, scale)


def _follow(
    field: ScoreField, solver: Solver, times: Tensor, n: int, seed: int, along: Tensor
) -> Tensor:
    """Return the coordinate along a direction at every time, ``(T, n)``, in float64 on the CPU."""
    like = sample(field, 0, times=times)  # none: only their type and device are wanted
    along, found = along.to(like), []
    for first in range(0, n, _BATCH_SIZE):
        ids = torch.arange(first, min(first + _BATCH_SIZE, n))
        with torch.no_grad():
            at = prior(field, ids, times[0], seed=seed)
            track = [state.x.flatten(1) @ along for state in integrate(field, solver, at, times)]
        found.append(torch.stack(track).double().cpu())
    return torch.cat(found, 1)
