r"""Stochastic interpolants between two distributions, and the exact one between two Gaussians.

A pair ``(a, b)`` of a coupling is joined by a Brownian bridge, for ``t`` from 0 to 1::

    x_t = (1 - t) a + t b + gamma z,    gamma = sigma sqrt(t (1 - t)),  z ~ N(0, I)     (1)

``z`` is independent of the pair, so that the mixture over pairs has a velocity and a score for any
coupling, with ``gamma gamma' = sigma^2 (1 - 2 t) / 2``::

    velocity = E[b - a + gamma' z | x_t],    score = grad log p_t = -E[z | x_t] / gamma  (2)

Every member of a family of SDEs has the distributions ``p_t``, forwards in time or backwards::

    dx = (velocity + eta^2 sigma^2 / 2 score) dt + eta sigma dw                         (3)
    dx = (-velocity + eta^2 sigma^2 / 2 score) du + eta sigma dw,    u = 1 - t          (4)

For Gaussians with ``K = Cov(a, b)`` everything is affine. With ``C_t`` the covariance of ``x_t``::

    C_t = (1 - t)^2 C_a + t^2 C_b + t (1 - t) (K + K^T) + gamma^2 I                     (5)
    velocity = m_b - m_a + ((1 - t) (K^T - C_a) + t (C_b - K) + gamma gamma' I) C_t^{-1} (x - m_t)
    score = -C_t^{-1} (x - m_t)                                                         (6)

The entropic coupling makes (3) with ``eta = 1`` the Schrödinger bridge, the diffusion from ``a`` to
``b`` that is nearest to Brownian motion ``sigma w``; at ``sigma = 0`` it is optimal transport::

    K = (C_a^{1/2} D C_a^{-1/2} - sigma^2 I) / 2
    D = (4 C_a^{1/2} C_b C_a^{1/2} + sigma^4 I)^{1/2}                                   (7)

Reference: Albergo, Boffi and Vanden-Eijnden (2023), arXiv:2303.08797; Tong et al. (2023),
arXiv:2307.03672; Bunne et al. (2023), arXiv:2202.05722 (Schrödinger bridges of Gaussians).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from scorefield.theory.sde import Coefficient

Coupling = Literal["independent", "ot", "entropic"]
_COUPLINGS = ("independent", "ot", "entropic")


class Interpolant(ABC):
    """The velocity and the score of an interpolant (1), exact or learned: write both methods.

    Args:
        sigma: the diffusion of the bridges; 0 is without noise.

    Raises:
        ValueError: ``sigma < 0``.
    """

    def __init__(self, sigma: float) -> None:
        if not 0 <= sigma < math.inf:
            raise ValueError(f"sigma={sigma:g}: must be 0 or more.")
        self.sigma = float(sigma)

    @abstractmethod
    def velocity(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Return the velocity of (2) at points ``(..., d)`` and one time ``()``, like ``x``."""

    @abstractmethod
    def score(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Return ``grad log p_t`` at points ``(..., d)`` and one time ``()``, like ``x``."""

    def sde(self, eta: float = 1.0, back: bool = False) -> tuple[Coefficient, Coefficient]:
        """Return the drift and the diffusion of (3), for `scorefield.theory.simulate`.

        Args:
            eta: 0 is the ODE; 1 has the diffusion of the bridges.
            back: return those of (4), from samples of ``b`` to samples of ``a``.

        Raises:
            ValueError: ``eta < 0``.
        """
        if not 0 <= eta < math.inf:
            raise ValueError(f"eta={eta:g}: must be 0 (the ODE) or more.")

        weight = 0.5 * (eta * self.sigma) ** 2

        def drift(x: Tensor, t: Tensor) -> Tensor:
            place = 1 - t if back else t
            velocity = -self.velocity(x, place) if back else self.velocity(x, place)
            return velocity + weight * self.score(x, place) if weight else velocity

        def diffusion(x: Tensor, t: Tensor) -> Tensor:
            return torch.tensor(eta * self.sigma)

        return drift, diffusion


class GaussianInterpolant(Interpolant):
    """The interpolant (1) between ``N(m_a, C_a)`` at ``t = 0`` and ``N(m_b, C_b)`` at ``t = 1``.

    Simulate (3) from samples ``x`` of the first one::

        drift, diffusion = interpolant.sde(eta=1.0)
        paths = theory.simulate(drift, diffusion, x, torch.linspace(0, 1, 101))

    Args:
        a, b: a mean ``(d,)`` and a covariance ``(d, d)`` each, positive definite.
        sigma: the diffusion of the bridges; 0 is without noise.
        coupling: of the pairs: ``"independent"``, ``"ot"`` (optimal transport), or ``"entropic"``
            (the Schrödinger bridge).

    Raises:
        ValueError: a shape does not fit, a covariance is not positive definite, ``sigma < 0``, or
            another coupling.
    """

    def __init__(
        self,
        a: tuple[Tensor, Tensor],
        b: tuple[Tensor, Tensor],
        sigma: float,
        coupling: Coupling = "entropic",
    ) -> None:
        super().__init__(sigma)
        if coupling not in _COUPLINGS:
            raise ValueError(f"coupling={coupling!r}: must be one of {', '.join(_COUPLINGS)}.")
        (self._mean_a, self._cov_a), (self._mean_b, self._cov_b) = (
            _checked("a", a),
            _checked("b", b),
        )
        if self._mean_a.shape != self._mean_b.shape:
            raise ValueError(
                f"a has {len(self._mean_a)} coordinates and b {len(self._mean_b)}: give one number."
            )
        self.coupling = coupling
        self._cross = torch.zeros_like(self._cov_a)
        if coupling != "independent":
            regularisation = self.sigma if coupling == "entropic" else 0.0
            self._cross = _coupled(self._cov_a, self._cov_b, regularisation)

    def moments(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean ``(d,)`` and the covariance (5) ``(d, d)`` of ``x_t``, in float64."""
        t = torch.as_tensor(t, dtype=torch.float64)
        own = (1 - t) ** 2 * self._cov_a + t**2 * self._cov_b
        mixed = self._cross + self._cross.T + self.sigma**2 * torch.eye(len(own)).to(own)
        return (1 - t) * self._mean_a + t * self._mean_b, own + t * (1 - t) * mixed

    def velocity(self, x: Tensor, t: float | Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        mean, covariance = self.moments(t)
        rate = (1 - t) * (self._cross.T - self._cov_a) + t * (self._cov_b - self._cross)
        rate = rate + 0.5 * self.sigma**2 * (1 - 2 * t) * torch.eye(len(rate)).to(rate)
        slope = torch.linalg.solve(covariance, rate.T)
        value: Tensor = (self._mean_b - self._mean_a).to(x) + (x - mean.to(x)) @ slope.to(x)
        return value

    def score(self, x: Tensor, t: float | Tensor) -> Tensor:
        mean, covariance = self.moments(t)
        score: Tensor = (mean.to(x) - x) @ torch.linalg.inv(covariance).to(x)
        return score


def _coupled(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    """Return ``K`` of (7) for covariances ``(d, d)``."""
    root, square = _power(a, 0.5), sigma**2 * torch.eye(len(a)).to(a)
    mixed = _power(4 * root @ b @ root + square @ square, 0.5)
    cross: Tensor = 0.5 * (root @ mixed @ _power(a, -0.5) - square)
    return cross


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, basis = torch.linalg.eigh(matrix)
    power: Tensor = (basis * values**exponent) @ basis.T
    return power


def _checked(name: str, moments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    mean, covariance = (torch.as_tensor(value, dtype=torch.float64) for value in moments)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{name} has a mean {tuple(mean.shape)} and a covariance {tuple(covariance.shape)}: "
            "give (d,) and (d, d)."
        )
    symmetric = torch.allclose(covariance, covariance.T, rtol=1e-8, atol=1e-10)
    if not symmetric or not bool((torch.linalg.eigvalsh(covariance) > 0).all()):
        raise ValueError(f"{name}: its covariance must be symmetric and positive definite.")
    return mean, covariance
