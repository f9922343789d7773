r"""The distribution of the samples of a solver that adds noise, against exact ones.

*Weak order.* On a Gaussian field a solver is an affine map of the state and of its noise. A batch
of unit vectors in the place of samples gives the mean and covariance of its distribution without
sampling error; their distance to the exact ones falls as ``n^-order``. A Langevin corrector
converges to a distribution of its own, with covariance ``V (1 - delta V^-1 / 2)^-1`` instead of
``V``.

*Distribution.* 20,000 samples of the solver and as many exact ones, of a Gaussian and of the
mixture, compared by the test of Kolmogorov and Smirnov along eight directions; at the end of a
grid, and after a single step. One step changes the distribution little, so there the test finds
gross errors only; the weak order measures the noise that a step adds exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from scorefield._internal.statistics import kolmogorov_smirnov
from scorefield.evaluate.certify.order import grid, product, slope
from scorefield.evaluate.certify.subjects import Make
from scorefield.field import Gaussian, Mixture
from scorefield.noise import Noise
from scorefield.process import Coefficient, Process
from scorefield.sampling import prepare
from scorefield.solvers import Langevin, PredictorCorrector, Solver, State

_COUNT, _DIRECTIONS = 20_000, 8
_MEAN = torch.tensor([0.8, -0.5], dtype=torch.float64)
_COVARIANCE = torch.tensor([[0.9, 0.4], [0.4, 0.5]], dtype=torch.float64)
_IDENTITY = torch.eye(2, dtype=torch.float64)


def langevin(solver: Solver) -> Langevin | None:
    """Return the corrector whose bias is that of the solver's distribution, if there is one."""
    corrector = solver.corrector if isinstance(solver, PredictorCorrector) else None
    return corrector if isinstance(corrector, Langevin) else None


@dataclass(frozen=True)
class _Probe:
    """Noise whose every draw is a unit vector of its own, which shows the solver's linear map.

    The batch holds the state's constant part, its unit vectors, and those of each draw.
    """

    draws: list[int]
    dim: int

    def normal(self, like: Tensor) -> tuple[Tensor, _Probe]:
        z, first = torch.zeros_like(like), 1 + self.dim * (1 + len(self.draws))
        rows = torch.arange(first, first + self.dim)
        if len(like) > first:
            z[rows, torch.arange(self.dim)] = 1
        self.draws.append(first)
        return z, self

    def increment(self, start: Any, end: Any, like: Tensor) -> tuple[Tensor, _Probe]:
        return self.normal(like)

    def skipped(self) -> _Probe:
        return self


def affine_moments(field: Gaussian, solver: Solver, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and covariance of a solver's samples at the end of a grid, exactly."""
    mean, covariance = _gaussian_at(field.process, times[0])
    dim, run = len(mean), prepare(field, solver, times)
    draws: list[int] = []
    run(State(mean[None], times[0], _Probe(draws, dim)))  # type: ignore[arg-type]
    x = mean.expand(1 + dim * (1 + len(draws)), dim).clone()
    x[1 : 1 + dim] += torch.linalg.cholesky(covariance).T
    x = run(State(x, times[0], _Probe([], dim))).x  # type: ignore[arg-type]
    columns = x[1:] - x[0]
    return x[0], columns.T @ columns


def measure_weak_orders(make: Make, process: Process) -> tuple[float, float]:
    """Return the orders of mean and covariance of a Gaussian, over four halvings."""
    counts, errors = [16 * 2**k for k in range(5)], []
    field = Gaussian(process, _MEAN, _COVARIANCE)
    for steps in counts:
        solver, times = make(steps), grid(process, steps, 4.0, 0.5)
        mean, covariance = affine_moments(field, solver, times)
        exact_mean, exact_covariance = _gaussian_at(process, times[-1])
        corrector = langevin(solver)
        if corrector is not None:
            alpha, sigma = process.coefficients(times[-1])
            delta = 2 * alpha.clamp(max=1) * (corrector.snr * sigma) ** 2
            bias = _IDENTITY - 0.5 * delta * exact_covariance.inverse()
            exact_covariance = exact_covariance @ bias.inverse()
        scale = exact_covariance.norm()
        gaps = (mean - exact_mean).norm() / scale.sqrt(), (covariance - exact_covariance).norm()
        errors.append([float(gaps[0]), float(gaps[1] / scale)])
    of_mean, of_covariance = zip(*errors, strict=True)
    return slope(counts, of_mean), slope(counts, of_covariance)


def _gaussian_at(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = process.coefficients(t)
    a, s = alpha.expand(2), sigma.expand(2)
    return a * _MEAN, a[:, None] * _COVARIANCE * a + s**2 * _IDENTITY


def p_value(make: Make, process: Process, kind: str, steps: int) -> float:
    """Return the p-value of a solver's samples against as many exact ones.

    A Langevin corrector is tested with small moves, whose bias the test cannot detect.

    Args:
        kind: the field, ``"gaussian"`` or ``"mixture"``.
        steps: of the grid; 1 for a single, shorter step.
    """
    field = Gaussian(process, _MEAN, _COVARIANCE) if kind == "gaussian" else product(process)
    solver = make(steps)
    if isinstance(solver, PredictorCorrector) and langevin(solver) is not None:
        # without a predictor's step the moves have to do all the work
        small = Langevin(0.3, 10) if solver.predictor.order == 0 else Langevin(0.1, 1)
        solver = replace(solver, corrector=small)
    times = grid(process, steps, *((2.0, 0.5) if steps > 1 else (1.0, 0.9)))
    ids = torch.arange(_COUNT)
    begin, exact = (
        _exact(field, t, Noise(seed, ids)) for seed, t in ((2, times[0]), (3, times[-1]))
    )
    noise: Any = _Recalled(Noise(1, ids))
    x = prepare(field, solver, times)(State(begin, times[0], noise)).x
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * math.pi / _DIRECTIONS
    directions = torch.stack([angles.cos(), angles.sin()])
    p = [
        kolmogorov_smirnov(a, b)
        for a, b in zip((x @ directions).T, (exact @ directions).T, strict=True)
    ]
    return min(1.0, min(p) * _DIRECTIONS)


@dataclass(frozen=True)
class _Recalled:
    """Noise with a cache of its paths: certificates use the same levels many times."""

    noise: Noise

    def normal(self, like: Tensor) -> tuple[Tensor, _Recalled]:
        z, noise = self.noise.normal(like)
        return z, _Recalled(noise)

    def increment(
        self, start: Coefficient, end: Coefficient, like: Tensor
    ) -> tuple[Tensor, _Recalled]:
        if isinstance(start, Tensor) or isinstance(end, Tensor):  # a place for each coordinate
            return self.noise.increment(start, end, like)[0], self
        return _increment(self.noise.seed, round(start, 9), round(end, 9)), self

    def skipped(self) -> _Recalled:
        return _Recalled(self.noise.skipped())


@cache
def _increment(seed: int, start: float, end: float) -> Tensor:
    """Return the increments of the paths of `_COUNT` samples in two dimensions."""
    like = torch.empty(_COUNT, 2, dtype=torch.float64)
    return Noise(seed, torch.arange(_COUNT)).increment(start, end, like)[0]


def _exact(field: Mixture, t: Tensor, noise: Noise) -> Tensor:
    """Return exact samples at ``t``."""
    like = torch.empty(0, dtype=torch.float64)
    choice, noise = noise.uniform(like)
    spread, noise = noise.draw(field.shape, like)
    eps, _ = noise.draw(field.shape, like)
    return field.process.perturb(field.data(spread, choice), t, eps)
