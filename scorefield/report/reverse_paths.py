r"""Paths from noise to data, by the reverse SDE and by the probability-flow ODE.

Both start from the same noise and share their marginals at every time, though their paths differ. A
process may let ``x_t`` grow a hundredfold, so pictures show it at the data's scale ``c``::

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
from scorefield.sampling import integrate, prior
from scorefield.solvers import AnglePrediction, EulerMaruyama, Multistep, Solver

# the noise-to-signal ratios sigma / (c alpha) between which something is visible
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

    Path ``k`` depends on (field, seed, k, steps) alone. `EulerMaruyama` solves the SDE and
    third-order `Multistep` the ODE, over ``steps`` steps of `visible_times`. Both together make
    ``2 steps`` network calls per sample.

    Args:
        along: the direction ``(d,)`` along which paths are measured; by default that of the first
            coordinate.

    Raises:
        ValueError: ``n < 1`` or ``steps < 1``.
    """
    if n < 1 or steps < 1:
        raise ValueError(f"n={n}, steps={steps}: both must be at least 1.")
    times = visible_times(field, steps)
    if along is None:
        along = torch.eye(1, math.prod(field.shape))[0]
    sde = _follow(field, EulerMaruyama(eta=1.0), times, n, seed, along)
    ode = _follow(field, Multistep(3, AnglePrediction(field.data_std)), times, n, seed, along)
    return Paths(times, sde, ode, *ratio_and_scale(field, times))


def visible_times(field: ScoreField, steps: int) -> Tensor:
    """Return the `balanced` grid from 30 times the data's deviation to a hundredth of it."""
    process, c = field.process, field.data_std
    first, last = (time_near(process, ratio * c) for ratio in (NOISIEST, CLEANEST))
    return balanced(process, steps, start=first, end=last, data_std=c)


def ratio_and_scale(field: ScoreField, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sigma / alpha`` at times, and the factor of (1)."""
    alpha, sigma = field.process.coefficients(times)
    return sigma / alpha, field.data_std / torch.hypot(field.data_std * alpha, sigma)


def _follow(
    field: ScoreField, solver: Solver, times: Tensor, n: int, seed: int, along: Tensor
) -> Tensor:
    """Return the coordinate along a direction at every time, ``(T, n)``, in float64 on the CPU."""
    tracks = []
    for first in range(0, n, _BATCH_SIZE):
        ids = range(first, min(first + _BATCH_SIZE, n))
        with torch.no_grad():
            states = integrate(field, solver, prior(field, ids, times[0], seed=seed), times)
            track = [state.x.flatten(1) @ along.to(state.x) for state in states]
        tracks.append(torch.stack(track).double().cpu())
    return torch.cat(tracks, 1)
