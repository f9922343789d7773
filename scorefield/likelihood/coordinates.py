r"""The log-density of a field whose process has one noise level per coordinate.

With ``y_i = x_i / alpha_i`` and ``r_i = sigma_i / alpha_i`` the probability-flow ODE is ``dy_i =
eps_i dr_i``, and `scorefield.likelihood.density` (1) becomes, on its path::

    log q(y_0) = log q(y_1) + int sum_i Q_i dlog r_i,    Q_i = sigma_i d eps_i / d x_i     (1)

The integral joins the state, as in `scorefield.likelihood.steps`: in the noise ``r`` of the
process's clock its slope is ``sum_i Q_i (dlog r_i / dlog r) / r``, less the Gaussian part
``r_i^2 / (e_i + r_i^2)`` of each ``Q_i``, which is integrated in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, ScoreField
from scorefield.likelihood.divergence import Directions, trace
from scorefield.likelihood.moments import Moments
from scorefield.noise import Noise
from scorefield.process import Process, check_times
from scorefield.sampling import Adaptive, Plan, prepare
from scorefield.solvers import State

_END_CALLS = 2  # at both ends of a path, for the budget


class Coordinates:
    """Runs of a field from data to its last time; the arguments are those of `Steps`."""

    def __init__(
        self, field: ScoreField, plan: Plan, moments: Moments, directions: Directions
    ) -> None:
        if isinstance(plan.times, Adaptive):
            raise ValueError(
                f"times={plan.times!r}: with one noise level per coordinate give a number of steps "
                "or a grid."
            )
        if moments.basis is not None:
            raise ValueError(
                "prior: has a full covariance; with one noise level per coordinate give "
                "Moments.of(data, diagonal=True)."
            )
        rising = torch.as_tensor(plan.times, dtype=torch.float64).flip(0)
        self.times = check_times(field.process, rising)
        self.joined = _Joined(field, moments, directions)
        self.run = prepare(self.joined, plan.solver, rising)

    def solve(self, x: Tensor, noise: Noise, rows: Sequence[int], goal: float, most: int) -> Tensor:
        """Return the fields of `Likelihood`, stacked, for the given rows of a batch of data."""
        joined = self.joined.opened(noise)
        y = x.flatten(1)
        begin = torch.cat([y, y.new_zeros(len(y), joined.count)], 1)
        with torch.no_grad():
            end = self.run(State(begin, self.times[0], noise))
        y_end, integral = end.x[:, : joined.dim], end.x[:, joined.dim :]
        calls = joined.calls + _END_CALLS
        (r, eps, first), (r_end, _, last) = (
            joined.look(v, t) for v, t in ((y, self.times[0]), (y_end, self.times[-1]))
        )
        e = joined.moments.eigenvalues
        value = joined.moments.log_prob(y_end, r_end) + integral.mean(1)
        value = value + 0.5 * torch.log((e + r_end**2) / (e + r**2)).sum(-1)
        count, whole = joined.count, torch.ones_like(value)
        exact = joined.directions.exact
        out = torch.stack(
            [
                value,
                0 * whole if exact else integral.std(1) / math.sqrt(count),
                math.nan * whole,
                0.5 * (first - (eps**2).sum(1)),
                0.5 * (last - (r_end**2 / (e + r_end**2)).sum(-1)),
                calls * whole,
                calls * joined.directions.products(joined.dim) * whole,
                (0 if exact else count) * whole,
            ]
        )
        return out[:, list(rows)]


@dataclass(frozen=True, eq=False, repr=False)
class _Ratios(Process):
    """``y_i = x_i / alpha_i`` of a process, and ``count`` coordinates in the noise of its clock."""

    base: Process
    count: int

    def __post_init__(self) -> None:
        dim = math.prod(self.base.coordinates) + self.count
        own = {"coordinates": (dim,), "t_min": self.base.t_min, "t_max": self.base.t_max}
        for name, value in own.items():
            object.__setattr__(self, name, value)
        super().__post_init__()

    def of_base(self, t: Tensor) -> Tensor:
        """Return a time, ``()`` or ``(..., 1)``, in the form of the base."""
        ones = len(self.base.coordinates)
        return t if t.ndim == 0 else t.reshape(*t.shape[:-1], *[1] * ones)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(self.sigma(t))

    def sigma(self, t: Tensor) -> Tensor:
        inner = self.of_base(t)
        alpha, sigma = self.base.coefficients(inner)
        shape = t.shape[:-1]
        ratio = (sigma / alpha).reshape(*shape, -1)
        clock = (-self.base.half_log_snr(t)).exp().reshape(*shape, 1)
        return torch.cat([ratio, clock.expand(*shape, self.count)], -1)


class _Joined(ScoreField):
    """A field of ``y`` with the integral (1) as further coordinates."""

    def __init__(self, base: ScoreField, moments: Moments, directions: Directions) -> None:
        self.dim, self.count = math.prod(base.shape), max(1, directions.last)
        process = _Ratios(base.process, self.count)
        super().__init__(process, (self.dim + self.count,), 0.0, moments.deviation**2)
        self.base, self.moments, self.directions = base, moments, directions

    def opened(self, noise: Noise) -> _Joined:
        """Draw probes from ``noise`` from now on, and count calls from 0."""
        self.noise, self.calls = noise, 0
        return self

    def prepare_times(
        self, t: Tensor, alpha: Tensor, sigma: Tensor
    ) -> list[tuple[Instant, Tensor, Tensor]]:
        # dlog r_i / dlog r, and log r itself
        rates = self.process.rates(t)[1] / sigma
        weights = (rates[..., : self.dim] / rates[..., -1:]).unbind()
        process: Any = self.process
        instants = self.base.instants(process.of_base(t))
        return list(zip(instants, weights, sigma.unbind(), strict=True))

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        self.calls += 1
        instant, weights, r = at.prepared
        eps, traces = self._trace(x[:, : self.dim], instant, weights.to(x))
        e, r = self.moments.eigenvalues, r.to(x)
        squares = r[:, : self.dim] ** 2
        gaussian = (weights.to(x) * squares / (e + squares)).sum(-1, keepdim=True)
        rest = (traces.T - gaussian) / r[:, -1:]
        return Estimate.from_eps(x, at, torch.cat([eps, rest], 1))

    def look(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``r`` ``(1, d)``, ``eps`` ``(B, d)`` and the mean of ``sum_i Q_i`` at a time."""
        (at,) = self.instants(self.process.lift(t.reshape(1)))
        instant, _, r = at.prepared
        eps, traces = self._trace(y, instant, torch.ones_like(y[:1]))
        return r.to(y)[:, : self.dim], eps, traces.mean(0)

    def _trace(self, y: Tensor, at: Instant, weights: Tensor) -> tuple[Tensor, Tensor]:
        shape = self.base.shape
        alpha, sigma = (torch.as_tensor(c).to(y) for c in (at.alpha, at.sigma))
        x = y.reshape(-1, *shape) * alpha
        weighted = sigma * weights.reshape(-1, *shape)
        eps, traces = trace(self.base, x, at, self.directions, self.noise, weights=weighted)
        return eps.flatten(1), traces
