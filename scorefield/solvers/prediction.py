r"""What a multistep method interpolates, in which variable, and the integral of the result.

On the probability-flow ODE of every process, some linear prediction ``F`` made of the posterior
means drives a rescaled state; with ``r = sigma / alpha``::

    d(x / n) = F(u) w(u) du                                                         (1)

===================  ============================  ============================  ========  =======
prediction           F                             n                             u         w
===================  ============================  ============================  ========  =======
`DataPrediction`     x0                            sigma                         -log r    e^u
`NoisePrediction`    eps                           alpha                         -log r    -e^-u
`AnglePrediction`    (c alpha eps - sigma x0/c)/n  sqrt(c^2 alpha^2 + sigma^2)   angle     1
===================  ============================  ============================  ========  =======

with ``angle = atan(r / c)``; data and noise prediction are its limits ``c = 0`` and ``c = inf``.
With ``d = eta`` towards the reverse SDE, and ``m = n / alpha``, ``k = 1 + d^2``::

    x_s / n_s = (m_s / m_t)^(k - 1) x_t / n_t + k int_t^s (m_s / m)^(k - 1) F w du + noise   (2)

A quadrature replaces ``F`` by the polynomial through some of its values, in a variable of its own
choice, a `Basis`, and integrates (2): exactly, or as a published method does.

Reference: Lu et al. (2022), arXiv:2211.01095 (data prediction), arXiv:2206.00927 (noise
prediction); Zhang and Chen (2022), arXiv:2204.13902 (exact weights).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield.process import Process, check_positive, growth, total

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))


class Prediction(ABC):
    """A row of the table of (1)."""

    @abstractmethod
    def value(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients of ``x0`` and ``eps`` in ``F``."""

    @abstractmethod
    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ``n``."""

    @abstractmethod
    def variable(self, log_ratio: Tensor) -> Tensor:
        """Return ``u`` where ``log r`` is given."""

    @abstractmethod
    def log_ratio(self, u: Tensor) -> Tensor:
        """Return ``log r``: the inverse of `variable`."""

    @abstractmethod
    def weight(self, u: Tensor) -> Tensor:
        """Return ``w(u)``."""

    @abstractmethod
    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        """Return ``m(end) / m(u)``."""

    @abstractmethod
    def held(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        """Return the coefficients of ``x0`` and ``eps`` in the integral of (2), both held fixed."""

    @abstractmethod
    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        """Return the standard deviation of the noise in (2), on the way from ``u`` to ``end``."""


@dataclass(frozen=True)
class DataPrediction(Prediction):
    """Interpolate ``x0``, as DPM-Solver++ does."""

    def value(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(alpha), torch.zeros_like(alpha)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma

    def variable(self, log_ratio: Tensor) -> Tensor:
        return -log_ratio

    def log_ratio(self, u: Tensor) -> Tensor:
        return -u

    def weight(self, u: Tensor) -> Tensor:
        return u.exp()

    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        return (u - end).exp()

    def held(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        of_x0 = -torch.expm1((1 + eta**2) * (u - end)) * end.exp()
        return of_x0, torch.zeros_like(of_x0)

    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        return (-torch.expm1(2 * eta**2 * (u - end))).sqrt()


@dataclass(frozen=True)
class NoisePrediction(Prediction):
    """Interpolate ``eps``, as DPM-Solver and DEIS do."""

    def value(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(alpha), torch.ones_like(alpha)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha

    def variable(self, log_ratio: Tensor) -> Tensor:
        return -log_ratio

    def log_ratio(self, u: Tensor) -> Tensor:
        return -u

    def weight(self, u: Tensor) -> Tensor:
        return -(-u).exp()

    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        return torch.ones_like(u * end)

    def held(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        of_eps = (1 + eta**2) * (-u).exp() * torch.expm1(u - end)
        return torch.zeros_like(of_eps), of_eps

    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        return eta * (-u).exp() * (-torch.expm1(2 * (u - end))).sqrt()


@dataclass(frozen=True)
class AnglePrediction(Prediction):
    """Interpolate EDM's preconditioned output in the noise angle; regular at every noise level.

    Args:
        data_std: ``c``, the root-mean-square deviation of the data; 1 for standardised data.

    Raises:
        ValueError: ``data_std`` is not a positive number.
    """

    data_std: float = 1.0

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std)

    def value(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        n = self.norm(alpha, sigma)
        return -sigma / (self.data_std * n), self.data_std * alpha / n

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return ((self.data_std * alpha) ** 2 + sigma**2).sqrt()

    def variable(self, log_ratio: Tensor) -> Tensor:
        return torch.atan(log_ratio.exp() / self.data_std)

    def log_ratio(self, u: Tensor) -> Tensor:
        return u.tan().log() + math.log(self.data_std)

    def weight(self, u: Tensor) -> Tensor:
        return torch.ones_like(u)

    def decay(self, u: Tensor, end: Tensor) -> Tensor:
        return u.cos() / end.cos()

    def held(self, u: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        at, weights = _gauss(u, end)
        weights = weights * (1 + eta**2) * self.decay(at, end[..., None]) ** eta**2
        of_x0 = -total(weights * at.sin()) / self.data_std
        return of_x0, total(weights * at.cos())

    def spread(self, u: Tensor, end: Tensor, eta: float) -> Tensor:
        return (1 - self.decay(u, end) ** (2 * eta**2)).sqrt()


class Basis(ABC):
    """The variable in which a prediction is taken for a polynomial."""

    @abstractmethod
    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        """Return the variable, strictly monotone, where ``log r`` is given."""


@dataclass(frozen=True)
class LogRatio(Basis):
    """``log r``: that of the DPM-Solvers."""

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        return log_ratio


@dataclass(frozen=True)
class Angle(Basis):
    """``atan(r / c)``, with the data's deviation ``c``."""

    data_std: float = 1.0

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std)

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        return torch.atan(log_ratio.exp() / self.data_std)


@dataclass(frozen=True)
class Growth(Basis):
    """``log(1 + (r / c)^2)^power``, with the data's deviation ``c``: 0 where there is no noise.

    Of power 1/2 it is like ``r`` where there is little noise, and so regular there, and like
    ``sqrt(log r)`` where there is much.
    """

    data_std: float = 1.0
    power: float = 0.5

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std, power=self.power)

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        # not a power, whose bits may depend on the number of steps
        return (self.power * growth(log_ratio - math.log(self.data_std)).log()).exp()


@dataclass(frozen=True)
class Power(Basis):
    """``r^(1/rho)``: EDM's spacing; DEIS's rhoAB with ``rho = 1``."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive(rho=self.rho)

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        return (log_ratio / self.rho).exp()


@dataclass(frozen=True)
class OwnTime(Basis):
    """The process's time ``t``: that of DEIS's tAB."""

    def __call__(self, process: Process, log_ratio: Tensor) -> Tensor:
        return process.time(-log_ratio)


class Quadrature(ABC):
    """How the integral of (2) is taken."""

    @abstractmethod
    def __call__(
        self,
        prediction: Prediction,
        process: Process,
        nodes: Sequence[Tensor],
        t: Tensor,
        s: Tensor,
        eta: float,
    ) -> list[Tensor]:
        """Return the weight in (2) of the value at each of the nodes, on the way from t to s.

        Times have one shape ``(N, ...)``. The nodes are times, newest first; ``s`` comes first
        where the estimate at the step's end is among them, and ``t`` is always one.
        """


@dataclass(frozen=True)
class Exact(Quadrature):
    """Integrate the polynomial through the nodes, in a basis variable, exactly.

    Args:
        basis: the variable; the prediction's own ``u`` unless given.
    """

    basis: Basis | None = None

    def __call__(
        self,
        prediction: Prediction,
        process: Process,
        nodes: Sequence[Tensor],
        t: Tensor,
        s: Tensor,
        eta: float,
    ) -> list[Tensor]:
        def place(log_ratio: Tensor) -> Tensor:
            if self.basis is None:
                return prediction.variable(log_ratio)
            return self.basis(process, log_ratio)

        b = [place(-process.half_log_snr(node)) for node in nodes]
        for time, value in zip(nodes, b, strict=True):
            _check_finite(prediction, time, value)
        at, measure = gauss(prediction, process, t, s, eta)
        seen = place(prediction.log_ratio(at))
        weights = []
        for j, node in enumerate(b):
            lagrange = torch.ones_like(seen)
            for k, other in enumerate(b):
                if k != j:
                    lagrange = lagrange * (seen - other[..., None]) / (node - other)[..., None]
            weights.append(total(measure * lagrange))
        return weights


def gauss(
    prediction: Prediction, process: Process, t: Tensor, s: Tensor, eta: float
) -> tuple[Tensor, Tensor]:
    """Return 40 values of ``u`` from t to s and their weights in (2), along a last dimension.

    Raises:
        ValueError: ``u`` is infinite at t or s.
    """
    start, end = (prediction.variable(-process.half_log_snr(u)) for u in (t, s))
    for time, value in ((t, start), (s, end)):
        _check_finite(prediction, time, value)
    at, weights = _gauss(start, end)
    weights = weights * prediction.weight(at)
    if eta:
        weights = weights * (1 + eta**2) * prediction.decay(at, end[..., None]) ** eta**2
    return at, weights


def _check_finite(prediction: Prediction, time: Tensor, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        worst = float(time[~value.isfinite()].flatten()[0])
        raise ValueError(
            f"{prediction!r} meets alpha = 0 or sigma = 0 at t = {worst:g}, where the log-SNR is "
            "infinite: use AnglePrediction in its own angle, or start the grid later and end it "
            "earlier."
        )


def departures(
    prediction: Prediction,
    process: Process,
    nodes: Sequence[Tensor],
    weights: Sequence[Tensor],
    latest: int,
    n: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    """Return the coefficients of ``n sum_j w_j (F_j - G_j)``, one pair for each node's means.

    ``G_j`` is what ``F`` would be at node ``j`` with the means of the ``latest`` node.
    """
    pairs = [(torch.zeros_like(n), torch.zeros_like(n))] * len(nodes)
    for j, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        if j != latest:
            of_x0, of_eps = prediction.value(*process.coefficients(node))
            pairs[j] = n * weight * of_x0, n * weight * of_eps
            pairs[latest] = pairs[latest][0] - pairs[j][0], pairs[latest][1] - pairs[j][1]
    return pairs


def _gauss(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points and weights of Gauss and Legendre between two values, last dimension."""
    half = 0.5 * (end - start)[..., None]
    return start[..., None] + half * (1 + _NODES.to(half)), half * _WEIGHTS.to(half)
