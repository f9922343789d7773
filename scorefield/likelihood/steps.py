r"""The line integral of a log-density by steps that each sample chooses for itself.

The integral joins the state: beside the ``d`` coordinates of ``y`` a sample has one for each probe,
or one in all, ``l``, with ``dl / dlog r`` the trace less its Gaussian part. Dormand and Prince's
method takes both through ``r``. Probes are drawn once and kept along the path: a trace that changed
from call to call would be no function that steps could follow.
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
from scorefield.likelihood.ends import Ends, far
from scorefield.likelihood.moments import Moments
from scorefield.noise import Noise
from scorefield.process import EDM
from scorefield.sampling import Adaptive, walk
from scorefield.solvers import Dopri5, State

_BEFORE = 0.8  # of the last r, where the field is asked once more


class Steps:
    """Runs of a field from ``t_min`` to a last time; the arguments are those of `Nodes`.

    Args:
        control: the tolerances, per step: of ``y`` per coordinate, of the integral in nats.
    """

    def __init__(
        self,
        field: ScoreField,
        control: Adaptive,
        moments: Moments,
        top: float,
        directions: Directions,
    ) -> None:
        ends = torch.tensor([field.process.t_min, top], dtype=torch.float64)
        alpha, sigma = field.process.coefficients(ends)
        self.low, self.high = (sigma / alpha).tolist()
        field = field.under(EDM(t_min=self.low, t_max=self.high))
        # the first step tried is within the data's deviation, however far away the prior is
        first = min(control.first, 0.1 * moments.deviation / (self.high - self.low))
        self.control = replace(control, start=self.low, end=self.high, first=first)
        self.field, self.moments, self.directions = field, moments, directions
        self.dim = math.prod(field.shape)

    def solve(self, x: Tensor, noise: Noise, rows: Sequence[int], goal: float, most: int) -> Tensor:
        """Return the fields of `Likelihood`, stacked, for the given rows of a batch of data.

        ``goal`` and ``most`` are those of `Nodes.solve`, which alone can keep to them.
        """
        joined = _Joined(self.field, self.moments, self.directions, noise)
        y = x.flatten(1)
        begin = torch.cat([y, y.new_zeros(len(y), joined.count)], 1)
        t = torch.full((len(x),), self.low, dtype=torch.float64)
        error, calls = y.new_zeros(len(y)), 3 + y.new_zeros(len(y))
        stood, begun = t, torch.zeros(len(y), dtype=torch.bool)
        for at in walk(joined, Dopri5(), State(begin, t, noise), self.control):
            if at.error is None:
                continue
            # as if alone: a step knows its first call once one has been taken
            calls = calls + ((stood < self.high) * (Dopri5().calls + ~begun)).to(calls)
            begun, stood = begun | (at.t.flatten().cpu() != stood), at.t.flatten().cpu()
            error = error + joined.error(at)
            if bool((stood[list(rows)] == self.high).all()):
                break
        last = joined.split(at.x)
        first_eps, first_trace = joined.look(y, self.low)
        eps, mean = joined.look(last[0], self.high)
        before = last[0] - (1 - _BEFORE) * self.high * eps
        before_eps, _ = joined.look(before, _BEFORE * self.high)
        r = torch.tensor([self.low, _BEFORE * self.high, self.high], dtype=torch.float64)
        ends = Ends(
            self.moments,
            r.to(y.device)[:, None, None],
            torch.stack([y, before, last[0]]),
            torch.stack([first_eps, before_eps, eps]),
        )
        products = calls * self.directions.products(self.dim)
        out = ends.fields(
            last[1].T, error, (first_trace, mean), calls, products, self.directions.exact
        )
        return out[:, list(rows)]


class _Joined(ScoreField):
    """A field with the integral as further coordinates, ``scale`` times as large."""

    def __init__(
        self, base: ScoreField, moments: Moments, directions: Directions, noise: Noise
    ) -> None:
        self.dim, self.count = math.prod(base.shape), max(1, directions.last)
        c = moments.deviation
        super().__init__(base.process, (self.dim + self.count,), 0.0, c**2)
        self.base, self.moments = base, moments
        self.directions, self.noise = directions, noise
        # so that a step's size, a mean over coordinates, sees the integral as it sees all of y
        self.scale = math.sqrt((self.dim + self.count) / self.count)

    def prepare_times(self, t: Tensor) -> Sequence[Instant]:
        return self.base.instants(t)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y`` ``(B, d)`` and the integral ``(B, K)`` of a joined state."""
        return x[:, : self.dim], x[:, self.dim :] / self.scale

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        y = x[:, : self.dim].reshape(-1, *self.base.shape)
        eps, traces = trace(self.base, y, at.prepared, self.directions, self.noise)
        r = torch.as_tensor(at.sigma, dtype=torch.float64, device=x.device).reshape(-1, 1)
        gaussian = self.moments.trace(r)[:, None]
        self.eps = eps.flatten(1)
        rest = self.scale * (traces.T - gaussian) / r
        return Estimate.from_eps(at, x, torch.cat([self.eps, rest], 1))

    def error(self, at: State) -> Tensor:
        """Return a step's error in nats: of the integral, and of (1) for what ``y`` is off by."""
        assert at.error is not None
        off, own = self.split(at.error)
        r = at.t.reshape(-1)
        return own.mean(1).abs() + far(r, self.moments) * (self.eps * off).sum(1).abs() / r

    def look(self, y: Tensor, r: float) -> tuple[Tensor, Tensor]:
        """Return ``eps`` ``(B, d)`` and the mean trace ``(B,)`` at one noise level."""
        at = self.base.instants(torch.tensor([r], dtype=torch.float64))[0]
        shaped = y.reshape(-1, *self.base.shape)
        eps, traces = trace(self.base, shaped, at, self.directions, self.noise)
        return eps.flatten(1), traces.mean(0)
