r"""The quantity that a multistep method interpolates, the variable, and the integral.

On the probability-flow ODE of every process, a linear prediction ``F`` from the posterior means is
the derivative of a rescaled state; with ``r = sigma / alpha``::

    d(x / n) = F(u) w(u) du                                                         (1)

===================  ============================  ============================  ========  =======
prediction           F                             n                             u         w
===================  ============================  ============================  ========  =======
`DataPrediction`     x0                            sigma                         -log r    e^u
`NoisePrediction`    eps                           alpha                         -log r    -e^-u
`AnglePrediction`    (c alpha eps - sigma x0/c)/n  sqrt(c^2 alpha^2 + sigma^2)   angle     1
===================  ============================  ============================  ========  =======

with ``angle = atan(r / c)``; data and noise prediction are its limits ``c = 0`` and ``c = inf``.
With noise ``eta``, towards the reverse SDE, and ``m = n / alpha``, ``k = 1 + eta^2``::

    x_s / n_s = (m_s / m_t)^(k - 1) x_t / n_t + k int_t^s (m_s / m)^(k - 1) F w du + noise   (2)

A quadrature replaces ``F`` by the polynomial through some of its values, in some variable of the
noise level, and integrates (2): exactly, or as a published method does.

Reference: Lu et al. (2022), arXiv:2211.01095 (data prediction), arXiv:2206.00927 (noise
prediction); Zhang and Chen (2022), arXiv:2204.13902 (exact weights).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from scorefield.process import Process, check_one_level, check_positive, growth, total
from scorefield.solvers.linear import Level

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))

_FAST = 1.25  # growth of a step over the one before

# the variable of a polynomial, strictly monotone, from ``log r``
Basis = Callable[[Process, Tensor], Tensor]


class Prediction(ABC):
    """A row of the table of (1)."""

    @abstractmethod
    def value(self, level: Level) -> tuple[Tensor, Tensor]:
        """Return the coefficients of ``x0`` and ``eps`` in ``F``."""

    @abstractmethod
    def norm(self, level: Level) -> Tensor:
        """Return ``n``."""

    @abstractmethod
    def variable(self, log_ratio: Tensor) -> Tensor:
        """Return ``u`` at ``log r``."""

    @abstractmethod
    def log_ratio(self, u: Tensor) -> Tensor:
        """Return ``log r``: the inverse of `variable`."""

    @abstractmethod
    def coarse(self, log_ratio: Tensor) -> Tensor:
        """Return the variable of polynomials at ``log r`` where steps in ``u`` grow fast."""

    @abstractmethod
    def weight(self, u: Tensor) -> Tensor:
        """Return ``w(u)``."""

    @abstractmethod
    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        """Return ``m(end) / m(u)``."""

    @abstractmethod
    def constant(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        """Return the coefficients of ``x0`` and ``eps`` in the integral of (2), both constant."""

    @abstractmethod
    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        """Return the standard deviation of the noise in (2), from ``u`` to ``end``."""


class _InLogSnr(Prediction, ABC):
    """A prediction whose variable is ``-log r``."""

    def variable(self, log_ratio: Tensor) -> Tensor:
        return -log_ratio

    def log_ratio(self, u: Tensor) -> Tensor:
        return -u

    def coarse(self, log_ratio: Tensor) -> Tensor:
        return -log_ratio


@dataclass(frozen=True)
class DataPrediction(_InLogSnr):
    """Interpolate ``x0``, as DPM-Solver++ does."""

    def value(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.ones_like(level.t), torch.zeros_like(level.t)

    def norm(self, level: Level) -> Tensor:
        return level.sigma

    def weight(self, u: Tensor) -> Tensor:
        return u.exp()

    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        return (u - end).exp()

    def constant(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        of_x0 = -torch.expm1((1 + eta**2) * (u - end)) * end.exp()
        return of_x0, torch.zeros_like(of_x0)

    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        return (-torch.expm1(2 * eta**2 * (u - end))).sqrt()


@dataclass(frozen=True)
class NoisePrediction(_InLogSnr):
    """Interpolate ``eps``, as DPM-Solver and DEIS do."""

    def value(self, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(level.t), torch.ones_like(level.t)

    def norm(self, level: Level) -> Tensor:
        return level.alpha

    def weight(self, u: Tensor) -> Tensor:
        return -(-u).exp()

    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        return torch.ones_like(u * end)

    def constant(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        of_eps = (1 + eta**2) * (-u).exp() * torch.expm1(u - end)
        return torch.zeros_like(of_eps), of_eps

    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        return eta * (-u).exp() * (-torch.expm1(2 * (u - end))).sqrt()


@dataclass(frozen=True)
class AnglePrediction(Prediction):
    """Interpolate EDM's preconditioned output in the noise angle; regular at every noise level.

    A few long steps from nearly pure noise grow fast in the angle, and their polynomials would
    extrapolate far and multiply the errors of a network. There they are in `Growth`.

    Args:
        data_std: ``c``, the root-mean-square deviation of the data; 1 for standardised data.

    Raises:
        ValueError: ``data_std`` is not a positive number.
    """

    data_std: float = 1.0

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std)

    def value(self, level: Level) -> tuple[Tensor, Tensor]:
        n = self.norm(level)
        return -level.sigma / (self.data_std * n), self.data_std * level.alpha / n

    def norm(self, level: Level) -> Tensor:
        return ((self.data_std * level.alpha) ** 2 + level.sigma**2).sqrt()

    def variable(self, log_ratio: Tensor) -> Tensor:
        return torch.atan(log_ratio.exp() / self.data_std)

    def log_ratio(self, u: Tensor) -> Tensor:
        return u.tan().log() + math.log(self.data_std)

    def coarse(self, log_ratio: Tensor) -> Tensor:
        return _growth(log_ratio - math.log(self.data_std))

    def weight(self, u: Tensor) -> Tensor:
        return torch.ones_like(u)

    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        return u.cos() / end.cos()

    def constant(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        points, weights = _gauss(u, end)
        weights = weights * (1 + eta**2) * self.decay(points, end[..., None]) ** eta**2
        of_x0 = -total(weights * points.sin()) / self.data_std
        return of_x0, total(weights * points.cos())

    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        return (1 - self.decay(u, end) ** (2 * eta**2)).sqrt()


@dataclass(frozen=True)
class Growth:
    """A basis, ``log(1 + (r / c)^2)^power`` with the data's deviation ``c``: 0 without noise.

    With power 1/2 it is like ``r`` where there is little noise, and so regular there, and like
    ``sqrt(log r)`` where there is much. It levels off above ``r = 1e4 c``, so that it is finite
    also for pure noise.
    """

    data_std: float = 1.0
    power: float = 0.5

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std, power=self.power)

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        return _growth(log_ratio - math.log(self.data_std), self.power)


def _growth(scaled: Tensor, power: float = 0.5) -> Tensor:
    level = -0.5 * (torch.exp(-2 * scaled) + 1e-8).log()
    # not a power, whose bits may depend on the number of steps
    return (power * growth(level).log()).exp()


@dataclass(frozen=True)
class Power:
    """A basis, ``r^(1/rho)``: EDM's spacing; DEIS's rhoAB with ``rho = 1``."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive(rho=self.rho)

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        return (log_ratio / self.rho).exp()


@dataclass(frozen=True)
class OwnTime:
    """A basis, the process's time ``t``: that of DEIS's tAB."""

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        check_one_level("OwnTime", process)
        return process.time(-log_ratio)


class Quadrature(ABC):
    """How the integral of (2) is computed."""

    @abstractmethod
    def __call__(
        self, prediction: Prediction, nodes: Sequence[Level], t: Level, s: Level, eta: float
    ) -> list[Tensor]:
        """Return the weight in (2) of the value at each of the nodes, for steps from t to s.

        The nodes are levels of ``N`` steps, newest first; ``s`` comes first if the estimate at the
        step's end is one of them, and ``t`` is always one.
        """


@dataclass(frozen=True)
class Exact(Quadrature):
    """Integrate the polynomial through the nodes, in a basis variable, exactly.

    Args:
        basis: the variable, a function of process and ``log r`` such as `Growth`, `Power` or
            `OwnTime`; None for the prediction's own ``u``, or `Prediction.coarse` where a step is
            more than 1.25 times as long in it as the one before.
    """

    basis: Basis | None = None

    def __call__(
        self, prediction: Prediction, nodes: Sequence[Level], t: Level, s: Level, eta: float
    ) -> list[Tensor]:
        u, measure = gauss(prediction, t, s, eta)
        if self.basis is None:
            b, points = _own(prediction, nodes, s, u)
        else:
            b = [self.basis(t.process, node.log_ratio) for node in nodes]
            points = self.basis(t.process, prediction.log_ratio(u))
        for node, value in zip(nodes, b, strict=True):
            _check_finite(prediction, node, value)
        weights = []
        for j, node_j in enumerate(b):
            lagrange = torch.ones_like(points)
            for k, node_k in enumerate(b):
                if k != j:
                    lagrange = (
                        lagrange * (points - node_k[..., None]) / (node_j - node_k)[..., None]
                    )
            weights.append(total(measure * lagrange))
        return weights


def _own(
    prediction: Prediction, nodes: Sequence[Level], s: Level, u: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Return the nodes and the points ``u`` in a prediction's own variable."""
    b = [prediction.variable(node.log_ratio) for node in nodes]
    ends = b if nodes[0] is s else [prediction.variable(s.log_ratio), *b]
    steps = [(after - before).abs() for after, before in pairwise(ends)]
    grows = [step > _FAST * before for step, before in pairwise(steps)]
    if not grows:
        return b, u
    coarse = [prediction.coarse(node.log_ratio) for node in nodes]
    there = torch.stack(grows).any(0)
    b = [torch.where(there, one, other) for one, other in zip(coarse, b, strict=True)]
    return b, torch.where(there[..., None], prediction.coarse(prediction.log_ratio(u)), u)


def gauss(prediction: Prediction, t: Level, s: Level, eta: float) -> tuple[Tensor, Tensor]:
    """Return 40 values of ``u`` from t to s and their weights in (2), along a last dimension.

    Raises:
        ValueError: ``u`` is infinite at t or s.
    """
    start, end = (prediction.variable(level.log_ratio) for level in (t, s))
    for level, value in ((t, start), (s, end)):
        _check_finite(prediction, level, value)
    u, weights = _gauss(start, end)
    weights = weights * prediction.weight(u)
    if eta:
        weights = weights * (1 + eta**2) * prediction.decay(u, end[..., None]) ** eta**2
    return u, weights


def _check_finite(prediction: Prediction, level: Level, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        worst = float(level.t.expand(value.shape)[~value.isfinite()].flatten()[0])
        raise ValueError(
            f"{prediction!r} meets alpha = 0 or sigma = 0 at t={worst:g}, where the log-SNR is "
            "infinite: use AnglePrediction in its own angle, or start the grid later and end it "
            "earlier."
        )


def departures(
    prediction: Prediction,
    nodes: Sequence[Level],
    weights: Sequence[Tensor],
    latest: int,
    n: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    """Return the coefficients of ``n sum_j w_j (F_j - G_j)``, one pair for each node's means.

    ``G_j`` is the value of ``F`` at node ``j`` with the means of the ``latest`` node.
    """
    pairs = [(torch.zeros_like(n), torch.zeros_like(n))] * len(nodes)
    for j, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        if j != latest:
            of_x0, of_eps = prediction.value(node)
            pairs[j] = n * weight * of_x0, n * weight * of_eps
            pairs[latest] = pairs[latest][0] - pairs[j][0], pairs[latest][1] - pairs[j][1]
    return pairs


def _gauss(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points and weights of Gauss and Legendre between two values, last dimension."""
    half = 0.5 * (end - start)[..., None]
    return start[..., None] + half * (1 + _NODES.to(half)), half * _WEIGHTS.to(half)
