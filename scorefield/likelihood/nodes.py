r"""The line integral of a log-density by fixed nodes, `scorefield.likelihood.density` (1).

The Gaussian part is taken out in closed form; the rest vanishes like a power at both ends. In ``w =
log(1 + (r / c)^2)^(1/6)``, or the seventh root with few nodes, it is smooth, and the integral is a
trapezoid sum over equally spaced nodes, corrected at the ends by differences (Gregory's rule).
Every node draws its own probes: the sum is linear in them, so it stays unbiased, and their errors
average out along the path.

The error is 1.5 times the sum of four estimates, which need no further calls: a sum with fewer
corrections at the ends; a path whose derivative is of order 4 instead of 6; the part of the path's
first order that is not added; and sixth differences of the integrand, for details that nodes do not
resolve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Estimate, FieldWrapper, Instant, ScoreField
from scorefield.likelihood.divergence import Directions, trace
from scorefield.likelihood.moments import Ends, Moments, at_noise, far
from scorefield.noise import Noise
from scorefield.process import balanced, growth
from scorefield.sampling import prepare, round_trip_solver
from scorefield.solvers import State

_FEW = 36  # nodes, below which they are denser towards the data
_MANY = 48  # nodes, from which on the first order of the path's error dominates
_ROUGH = 6  # the order of the differences that measure details between nodes
_CAUTION = 1.5  # times the sum of the estimates
_GREGORY = (-1 / 12, -1 / 24, -19 / 720, -3 / 160)


class Nodes:
    """The nodes of a field, equally spaced in ``w``, and runs along them.

    Args:
        field: whose density it is.
        count: how many nodes.
        moments: the Gaussian of the closed form, and of the distribution at the last node.
        top: the last time.
        directions: of the traces.
    """

    def __init__(
        self, field: ScoreField, count: int, moments: Moments, top: float, directions: Directions
    ) -> None:
        process, c = field.process, moments.deviation
        power = 7.0 if count < _FEW else 6.0
        times = balanced(process, count - 1, start=top, end=process.t_min, data_std=c, power=power)
        self.times = times.flip(0)
        self.moments, self.directions = moments, directions
        self.dim = math.prod(field.shape)
        alpha, sigma = process.coefficients(self.times)
        r, like = sigma / alpha, moments.mean
        w = growth(r.log() - math.log(c)) ** (1 / power)
        step = (w[-1] - w[0]) / (count - 1)
        self.dlog = (step * power * w ** (power - 1) * (c**2 + r**2) / (2 * r**2)).to(like)
        self.alpha, self.r = (v.to(like).reshape(-1, 1, 1) for v in (alpha, r))
        self.m = (c**2 + self.r**2).sqrt()
        self.weights, self.lower = (_sum(count, terms).to(like) for terms in (4, 2))
        self.derivatives = [_slope(count, width).to(like) for width in (6, 4)]
        self.gaussian = moments.trace(self.r[:, 0])
        self.traced = _Traced(field, directions)
        self.run = prepare(self.traced, round_trip_solver(c), self.times)

    def solve(self, x: Tensor, noise: Noise, rows: Sequence[int], goal: float, most: int) -> Tensor:
        """Return the fields of `Likelihood`, stacked, for the given rows of a batch of data.

        Probes are doubled until the standard errors of the rows are within ``goal``, or there are
        ``most``.
        """
        traced, calls = self.traced.opened(noise), len(self.times)
        first_calls = 0 if traced.has_score else 1  # of `at_noise`
        with torch.no_grad():
            begin = at_noise(traced.base, x, traced.base.instants(self.times[:1])[0])
            end = self.run(State(begin, self.times[0], noise))
            traced(end.x, end.t)
        path = _Path(self, traced.records)
        traces, directions = torch.stack(traced.traces), self.directions
        products = calls * directions.products(self.dim)
        out = path.result(traces, directions, calls + first_calls, products)
        while not directions.exact and bool((out[1, rows] > goal).any()):
            count, next_ = directions.last, min(2 * directions.last, most)
            if self.dim <= (next_ - count if next_ > count else most):
                directions = Directions(0)
            elif next_ > count:
                directions = Directions(next_, count)
            else:
                break
            new = torch.stack(
                [
                    trace(traced.base, at, instant, directions, noise, node)[1]
                    for node, (instant, at, _) in enumerate(traced.records)
                ]
            )
            traces = new if directions.exact else torch.cat([traces, new], 1)
            calls += len(self.times)
            products += len(self.times) * directions.products(self.dim)
            finer = path.result(traces, directions, calls + first_calls, products)
            out = torch.where(out[1] > goal, finer, out)
        return out[:, rows]


class _Traced(FieldWrapper):
    """A field that records its inputs and estimates, with the traces."""

    def __init__(self, base: ScoreField, directions: Directions) -> None:
        super().__init__(base)
        self.directions = directions

    def opened(self, noise: Noise) -> _Traced:
        """Clear the records; draw probes from ``noise`` from now on."""
        self.noise = noise
        self.records: list[tuple[Instant, Tensor, Tensor]] = []
        self.traces: list[Tensor] = []
        return self

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        eps, traces = trace(
            self.base, x, at.prepared, self.directions, self.noise, len(self.records)
        )
        self.records.append((at.prepared, x, eps))
        self.traces.append(traces)
        return Estimate.from_eps(x, at, eps)


class _Path:
    """The path that a solver left: everything in the integral but the traces."""

    def __init__(self, nodes: Nodes, records: Sequence[tuple[Instant, Tensor, Tensor]]) -> None:
        self.nodes = nodes
        r, m, dlog = nodes.r, nodes.m, nodes.dlog[:, None, None]
        y = torch.stack([x.flatten(1) for _, x, _ in records]) / nodes.alpha
        eps = torch.stack([eps.flatten(1) for _, _, eps in records])
        z = y / m
        slope = (eps - r / m**2 * y) / m * (r * dlog)
        # m (D z - slope) is the difference of the path's dy from the ODE's
        self.stray, lower = (
            (eps * ((of @ z.flatten(1)).reshape(z.shape) - slope) * m / r).sum(2)
            for of in nodes.derivatives
        )
        weights, near = nodes.weights[:, None], far(r, nodes.moments)[:, 0]
        strayed = (weights * self.stray).sum(0)
        self.added = (weights * self.stray * near).sum(0)
        if len(nodes.times) < _MANY:
            self.added = 0 * self.added
        self.error = (strayed - self.added).abs() + (strayed - (weights * lower).sum(0)).abs()
        ends = r[[0, -2, -1]], y[[0, -2, -1]], eps[[0, -2, -1]]
        self.ends = Ends(nodes.moments, *ends, not nodes.traced.has_score)

    def result(self, traces: Tensor, directions: Directions, nfe: int, products: int) -> Tensor:
        """Return the fields of `Likelihood` stacked, ``(8, B)``, from traces ``(N, K, B)``."""
        nodes = self.nodes
        rest = nodes.dlog[:, None, None] * (traces - nodes.gaussian[:, None, None])
        totals, lower = (
            (weights[:, None, None] * rest).sum(0) for weights in (nodes.weights, nodes.lower)
        )
        rough = (rest.mean(1) + self.stray).diff(n=_ROUGH, dim=0) / 2**_ROUGH
        error = self.error + (totals - lower).mean(0).abs() + 0.5 * rough.square().sum(0).sqrt()
        error = _CAUTION * error
        mean = traces.mean(1)
        return self.ends.fields(
            totals + self.added, error, (mean[0], mean[-1]), nfe, products, directions.exact
        )


def _sum(count: int, terms: int) -> Tensor:
    """Return Gregory's weights of ``count`` nodes, corrected by differences up to ``terms``."""
    weights = torch.ones(count, dtype=torch.float64)
    weights[0] = weights[-1] = 0.5
    for k, coefficient in enumerate(_GREGORY[:terms], 1):
        for j in range(k + 1):
            change = coefficient * (-1) ** j * math.comb(k, j)
            weights[j] += change
            weights[-1 - j] += change
    return weights


def _slope(count: int, width: int) -> Tensor:
    """Return the derivative at each node of the polynomial through ``width + 1`` nodes near it."""
    matrix = torch.zeros(count, count, dtype=torch.float64)
    for k in range(count):
        first = min(max(k - width // 2, 0), count - 1 - width)
        places = torch.arange(first, first + width + 1, dtype=torch.float64) - k
        powers = places ** torch.arange(width + 1, dtype=torch.float64)[:, None]
        unit = torch.eye(width + 1, dtype=torch.float64)[1]
        matrix[k, first : first + width + 1] = torch.linalg.solve(powers, unit)
    return matrix
