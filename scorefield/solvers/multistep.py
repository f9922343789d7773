r"""Multistep exponential integrators: one class, one coefficient routine.

On the probability-flow ODE of every process, some linear prediction ``F`` made of the posterior
means drives a rescaled state::

    d(x / n) = F(u) w(u) du                                                         (1)

===================  ============================  ============================  ========  =======
prediction           F                             n                             u         w
===================  ============================  ============================  ========  =======
`DataPrediction`     x0                            sigma                         lambda    e^u
`NoisePrediction`    eps                           alpha                         lambda    -e^-u
`AnglePrediction`    (c alpha eps - sigma x0/c)/n  sqrt(c^2 alpha^2 + sigma^2)   angle     1
===================  ============================  ============================  ========  =======

with ``lambda = log(alpha / sigma)`` and ``angle = atan2(sigma, c alpha)``. The rule replaces ``F``
by a polynomial in ``u`` through its last ``order`` values and integrates (1) exactly. What it
interpolates is the departure ``F - G`` from the value ``G(u)`` that the latest means ``x0`` and
``eps``, held fixed, would give; so a step is DDIM plus a correction, of order 1 DDIM itself::

    x_s = alpha_s x0 + sigma_s eps + n_s sum_j (F_j - G_j) int_t^s l_j(u) w(u) du    (2)

where ``l_j`` are the Lagrange polynomials. Nothing large cancels, at either end.

Start-up: the first step of a method of order 3 is corrected with the prediction at its own end,
which then serves the second step, so that no call is spent and the order is kept.

Reference: Lu et al. (2022), arXiv:2211.01095 (data prediction), arXiv:2206.00927 (noise
prediction); Zhang and Chen (2022), arXiv:2204.13902 (exact weights).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scorefield.field import Estimate, ScoreField
from scorefield.process import Process, cast
from scorefield.solvers.base import Solver, State

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))


class Prediction(ABC):
    """A row of the table of (1): what a multistep method interpolates, and in which variable."""

    @abstractmethod
    def value(self, found: Estimate) -> Tensor:
        """Return ``F`` of an estimate."""

    @abstractmethod
    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ``n``."""

    @abstractmethod
    def variable(self, process: Process, t: Tensor) -> Tensor:
        """Return ``u``."""

    @abstractmethod
    def weight(self, u: Tensor) -> Tensor:
        """Return ``w(u)``."""


@dataclass(frozen=True)
class DataPrediction(Prediction):
    """Interpolate ``x0`` in log-SNR, as DPM-Solver++ does."""

    def value(self, found: Estimate) -> Tensor:
        return found.x0

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma

    def variable(self, process: Process, t: Tensor) -> Tensor:
        return process.half_log_snr(t)

    def weight(self, u: Tensor) -> Tensor:
        return u.exp()


@dataclass(frozen=True)
class NoisePrediction(Prediction):
    """Interpolate ``eps`` in log-SNR, as DPM-Solver does."""

    def value(self, found: Estimate) -> Tensor:
        return found.eps

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha

    def variable(self, process: Process, t: Tensor) -> Tensor:
        return process.half_log_snr(t)

    def weight(self, u: Tensor) -> Tensor:
        return -(-u).exp()


@dataclass(frozen=True)
class AnglePrediction(Prediction):
    """Interpolate EDM's preconditioned output in the noise angle; regular at every noise level.

    Args:
        data_std: ``c``, the root-mean-square deviation of the data; 1 for standardised data.
    """

    data_std: float = 1.0

    def value(self, found: Estimate) -> Tensor:
        alpha, sigma = found.process.coefficients(found.t)
        n = self.norm(alpha, sigma)
        cos, sin = cast(self.data_std * alpha / n, found.x), cast(sigma / n, found.x)
        return cos * found.eps - sin / self.data_std * found.x0

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.hypot(self.data_std * alpha, sigma)

    def variable(self, process: Process, t: Tensor) -> Tensor:
        alpha, sigma = process.coefficients(t)
        return torch.atan2(sigma, self.data_std * alpha)

    def weight(self, u: Tensor) -> Tensor:
        return torch.ones_like(u)


@dataclass(frozen=True)
class History:
    """What `Multistep` remembers: the state it returned, and its estimates, newest first."""

    x: Tensor
    found: tuple[Estimate, ...]


@dataclass(frozen=True)
class Multistep(Solver):
    """The multistep method (2); one call a step.

    The history is kept while each step starts at the time the last one ended. If something else
    moved ``x`` in between, the stored predictions of earlier times still serve.

    Args:
        order: 1 (DDIM), 2 or 3; 2 and `DataPrediction` make DPM-Solver++(2M) with exact weights.
        prediction: what is interpolated.

    Raises:
        ValueError: another order; at a time where ``u`` is infinite (log-SNR at ``alpha = 0``).
    """

    order: int = 3
    prediction: Prediction = AnglePrediction()

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order = {self.order}: Multistep has orders 1, 2 and 3.")

    @property
    def calls(self) -> int:
        return 1

    def step(self, field: ScoreField, at: State, s: Tensor) -> State:
        past = self._past(field, at)
        if len(past) == 1 and at.memory is None and self.order > 2:
            ahead = field(self._move(field.process, at, past, past, s), s)
            x = self._move(field.process, at, past, (past[0], ahead), s)
            past = (ahead, *past)
        else:
            x = self._move(field.process, at, past, past, s)
        return replace(at, x=x, t=s, memory=History(x, past), error=None)

    def _past(self, field: ScoreField, at: State) -> tuple[Estimate, ...]:
        """Return the estimates the step rests on, newest (at ``at.t``) first."""
        if at.memory is None:
            return (field(at.x, at.t),)
        known: tuple[Estimate, ...] = at.memory.found
        if at.memory.x is at.x and torch.equal(known[0].t, at.t):
            return known  # start-up has already looked here
        known = tuple(e for e in known if not torch.equal(e.t, at.t))
        return (field(at.x, at.t), *known)[: self.order]

    def _move(
        self,
        process: Process,
        at: State,
        past: Sequence[Estimate],
        through: Sequence[Estimate],
        s: Tensor,
    ) -> Tensor:
        """Return (2) from ``past[0]``, with the polynomial ``through`` the given estimates."""
        now = past[0]
        alpha, sigma = process.coefficients(s)
        x = cast(alpha, at.x) * now.x0 + cast(sigma, at.x) * now.eps
        n = self.prediction.norm(alpha, sigma)
        if now.x is not at.x:
            n_now = self.prediction.norm(*process.coefficients(at.t))
            x = x + cast(n / n_now, x) * (at.x - now.x)
        if len(through) == 1:
            return x
        weights = self._weights(process, [e.t for e in through], s)
        for weight, other in zip(weights[1:], through[1:], strict=True):
            constant = replace(now, t=other.t)
            change = self.prediction.value(other) - self.prediction.value(constant)
            x = x + cast(n * weight, x) * change
        return x

    def _weights(self, process: Process, nodes: Sequence[Tensor], s: Tensor) -> list[Tensor]:
        """Return ``int l_j(u) w(u) du`` from the newest node to ``s``, for each node."""
        u = [self.prediction.variable(process, t) for t in nodes]
        if not all(bool(v.isfinite().all()) for v in u):
            raise ValueError(
                f"{self!r} meets alpha = 0 at t = {float(nodes[-1].max()):g}, where the log-SNR is "
                "infinite: use AnglePrediction, or start the grid later."
            )
        end = self.prediction.variable(process, s)
        half = 0.5 * (end - u[0])[..., None]
        at = u[0][..., None] + half * (1 + _NODES.to(half))
        measure = half * _WEIGHTS.to(half) * self.prediction.weight(at)
        weights = []
        for j, node in enumerate(u):
            lagrange = torch.ones_like(at)
            for k, other in enumerate(u):
                if k != j:
                    lagrange = lagrange * (at - other[..., None]) / (node - other)[..., None]
            weights.append((measure * lagrange).sum(-1))
        return weights
