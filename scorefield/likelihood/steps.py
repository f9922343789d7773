r"""The line integral of a log-density by any solver of the probability-flow ODE.

The integral joins the state: besides the ``d`` coordinates of ``y = x / alpha`` a sample has one
for each probe, or one in all, ``l``, with ``dl / dlog r`` the trace less its Gaussian part. So
``dl / dr`` plays the part of ``eps``, and a field of ``(y, l)`` in the time ``r`` has both: its
solvers integrate both. On another process's own time, near the data, steps would be far from small
and their error estimates too small. Probes are drawn once and stay the same along the path, since
steps cannot follow a trace that changes from call to call.

On a space the state is a point of its product with the Euclidean space of the integrals, the trace
is the divergence of eps, and no Gaussian part is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, ScoreField
from scorefield.likelihood.divergence import Directions, trace
from scorefield.likelihood.moments import Ends, Moments, at_noise
from scorefield.noise import Noise
from scorefield.process import EDM, check_times
from scorefield.sampling import Adaptive, Plan, walk
from scorefield.solvers import Solver, State

END_CALLS = 3  # at both ends of a path, for the prior and the budget
_BEFORE = 0.8  # of the last r, where the field is evaluated once more


class Steps:
    """Runs of a field from data to a last time; the other arguments are those of `Nodes`.

    Args:
        plan: a solver of the ODE, with a grid that falls to the time of the data, or the tolerances
            of a step: of ``y`` per coordinate, of the integral in nats.
    """

    def __init__(
        self, field: ScoreField, plan: Plan, moments: Moments, top: float, directions: Directions
    ) -> None:
        self.solver, times = plan.solver, plan.times
        process = field.process
        own = [process.t_min, top] if isinstance(times, Adaptive) else times.flip(0)
        alpha, sigma = process.coefficients(check_times(process, torch.as_tensor(own)))
        r = sigma / alpha
        self.low, self.high = r[[0, -1]].tolist()
        self.space = process.space
        self.field = field if self.space else field.under(EDM(t_min=self.low, t_max=self.high))
        self.times: Tensor | Adaptive = r
        if isinstance(times, Adaptive):
            # the first step tried is within the data's deviation, however far away the prior is,
            # and no longer than the data's noise: it would miss details of that size
            first = min(0.1 * moments.deviation, self.low) / (self.high - self.low)
            first = min(times.first, first)
            self.times = replace(times, start=self.low, end=self.high, first=first)
        self.moments, self.directions = moments, directions
        self.dim = math.prod(field.shape)

    def solve(self, x: Tensor, noise: Noise, rows: Sequence[int], goal: float, most: int) -> Tensor:
        """Return the fields of `Likelihood`, stacked, for the given rows of a batch of data.

        ``goal`` and ``most`` are those of `Nodes.solve`, which alone can keep to them.
        """
        joined = _Joined(self.field, self.moments, self.directions, noise)
        at = self.field.instants(torch.tensor([self.low], dtype=torch.float64))[0]
        y = at_noise(self.field, x, at).flatten(1)
        begin = torch.cat([y, y.new_zeros(len(y), joined.count)], 1)
        if isinstance(self.times, Adaptive):
            state, error, calls = self._adapt(joined, begin, noise, rows, self.times)
        else:
            state, error, calls = self._follow(joined, begin, noise, self.times)
        y_end, integral = joined.split(state)
        first_eps, first_trace = self._look(y, self.low, noise)
        eps, mean = self._look(y_end, self.high, noise)
        if self.space:
            looks = (y_end, first_eps, first_trace, mean)
            return self._on_space(looks, integral, error, calls + END_CALLS - 1)[:, list(rows)]
        before = y_end - (1 - _BEFORE) * self.high * eps
        before_eps, _ = self._look(before, _BEFORE * self.high, noise)
        r = torch.tensor([self.low, _BEFORE * self.high, self.high], dtype=torch.float64)
        ends = Ends(
            self.moments,
            r.to(y)[:, None, None],
            torch.stack([y, before, y_end]),
            torch.stack([first_eps, before_eps, eps]),
            not self.field.has_score,
        )
        calls = calls + END_CALLS
        products = calls * self.directions.products(self.dim)
        calls = calls + (0 if self.field.has_score else 1)  # of `at_noise`
        out = ends.fields(
            integral.T, error, (first_trace, mean), calls, products, self.directions.exact
        )
        return out[:, list(rows)]

    def _on_space(
        self, looks: tuple[Tensor, ...], integral: Tensor, error: Tensor, calls: Tensor
    ) -> Tensor:
        """Return the fields of `Likelihood` from the last point and both ends' eps and traces."""
        field, count = self.field, integral.shape[1]
        y_end, eps = (v.reshape(-1, *field.shape) for v in looks[:2])
        first, last = looks[2:]
        prior = field.process.prior(field.mean, field.variance, self.high)
        value = prior.log_prob(y_end) + integral.mean(1)
        return torch.stack(
            [
                value,
                integral.std(1) / math.sqrt(count) if count > 1 else 0 * value,
                error,
                0.5 * (first - field.process.space.inner(eps, eps)),
                0.5 * (last - prior.trace(self.high)),
                calls,
                calls * self.directions.products(self.dim),
                0 * value + self.directions.last,
            ]
        )

    def _adapt(
        self, joined: _Joined, begin: Tensor, noise: Noise, rows: Sequence[int], control: Adaptive
    ) -> tuple[State, Tensor, Tensor]:
        """Return the last state, the error of each sample and its calls, as if it were alone."""
        error, calls = begin.new_zeros(len(begin)), begin.new_zeros(len(begin))
        t = torch.full((len(begin),), self.low, dtype=torch.float64)
        begun, first_calls = torch.zeros(len(begin), dtype=torch.bool), None
        for state in walk(joined, self.solver, State(begin, t, noise), control):
            if state.error is None:
                continue
            # some methods make one call more until a step of the sample has been accepted
            first_calls = joined.calls - self.solver.calls if first_calls is None else first_calls
            calls = calls + ((t < self.high) * (self.solver.calls + first_calls * ~begun)).to(calls)
            error = error + joined.error(state, t, self.solver)
            begun, t = begun | (state.t.flatten().cpu() != t), state.t.flatten().cpu()
            if bool((t[list(rows)] == self.high).all()):
                break
        return state, error, calls

    def _follow(
        self, joined: _Joined, begin: Tensor, noise: Noise, times: Tensor
    ) -> tuple[State, Tensor, Tensor]:
        """Return the last state on a grid, the error of each sample and the calls of all.

        The error is not known, NaN, for a solver without an error estimate.
        """
        estimates = self.solver.error_order is not None
        error = begin.new_full((len(begin),), 0.0 if estimates else math.nan)
        state = State(begin, times[0], noise)
        moves = self.solver.moves(joined, times[:-1], times[1:], error=estimates)
        for begun, move in zip(times, moves, strict=False):
            state = move(state)
            error = error + joined.error(state, begun, self.solver) if estimates else error
        return state, error, torch.full_like(error, joined.calls)

    def _look(self, y: Tensor, r: float, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return ``eps`` ``(B, d)`` and the mean trace ``(B,)`` at one noise level."""
        at = self.field.instants(torch.tensor([r], dtype=torch.float64))[0]
        x = y.reshape(-1, *self.field.shape)
        eps, traces = trace(self.field, x, at, self.directions, noise)
        return eps.flatten(1), traces.mean(0)


class _Joined(ScoreField):
    """A field with the integral as further coordinates, ``scale`` times as large."""

    def __init__(
        self, base: ScoreField, moments: Moments, directions: Directions, noise: Noise
    ) -> None:
        self.dim, self.count = math.prod(base.shape), max(1, directions.last)
        c = moments.deviation
        process: Any = base.process
        shape = (self.dim + self.count,)
        super().__init__(process.beside(self.count) if process.space else process, shape, 0.0, c**2)
        self.base, self.moments = base, moments
        self.directions, self.noise = directions, noise
        # so that a step's size, a mean over coordinates, weighs the integral as it does all of y
        self.scale = math.sqrt((self.dim + self.count) / self.count)
        self.calls = 0

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Instant]:
        # a time per sample comes aligned with the joined state, which is flat
        shape = t.shape if t.ndim == 1 else (*t.shape[:2], *[1] * len(self.base.shape))
        return self.base.instants(t.reshape(shape))

    def split(self, state: State, error: bool = False) -> tuple[Tensor, Tensor]:
        """Return ``y`` ``(B, d)`` and the integral ``(B, K)`` of a state, or their errors."""
        values = state.error if error else state.x
        assert values is not None
        return values[:, : self.dim], values[:, self.dim :] / self.scale

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        self.calls += 1
        shaped = x[:, : self.dim].reshape(-1, *self.base.shape)
        eps, traces = trace(self.base, shaped, at.prepared, self.directions, self.noise)
        r = torch.as_tensor(at.sigma, dtype=torch.float64).to(x).reshape(-1, 1)
        gaussian = 0.0 if self.base.process.space else self.moments.trace(r)[:, None]
        self.eps = eps.flatten(1)
        rest = self.scale * (traces.T - gaussian) / r
        return Estimate.from_eps(x, at, torch.cat([self.eps, rest], 1))

    def error(self, state: State, begun: Tensor, solver: Solver) -> Tensor:
        """Return a step's error in nats: of the integral, and of (1) for the error of ``y``.

        The solver's estimate is one of small steps. Traces have poles at imaginary ``r``, as far
        away as ``r`` itself, so that a step from ``r`` to ``r + h`` is small if ``h / r`` is; the
        estimate grows by ``(1 + h / r)^(k/2)`` for an error of order ``k``.
        """
        assert solver.error_order is not None
        error, integral = self.split(state, error=True)
        r = state.t.reshape(-1).to(error)
        caution = torch.pow(r / begun.to(error), solver.error_order / 2)
        stray = (self.eps * error).sum(1) / r
        return caution * (integral.mean(1).abs() + stray.abs())
