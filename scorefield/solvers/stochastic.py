r"""Stochastic solvers: steps that add noise.

A whole family of SDEs shares the marginals of the probability-flow ODE. With ``eta >= 0``, towards
data::

    dx = [f x - (1 + eta^2)/2 g^2 score] dt + eta g dw                              (1)

``eta = 0`` is the ODE and ``eta = 1`` Anderson's reverse SDE. Time runs down, so ``dt < 0``.

DDIM combines the two posterior means at the new level and adds noise, for any ``s < t``::

    x_s = alpha_s x0 + sqrt(sigma_s^2 - std^2) eps + std z                          (2)
    std = eta sigma_s sqrt(1 - e^{2 (lambda_t - lambda_s)}),  lambda = log(alpha/sigma)   (3)

``std`` is a standard deviation, for VP ``eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t /
abar_s)``; ``eta = 1`` is DDPM's ancestral step with the posterior variance (not ``beta``).

The reverse diffusion step inverts the forward kernel ``x_t = a x_s + k z`` to first order::

    x_s = (2 - a) x + k^2 score + k z,    a = alpha_t / alpha_s,  k its deviation   (4)

Reference: Anderson (1982); Song et al. (2021), arXiv:2011.13456; Song, Meng and Ermon (2021),
arXiv:2010.02502, equations 12 and 16; Zhang and Chen (2021), arXiv:2110.07579 (eta).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield.process import Process
from scorefield.solvers.base import check_towards_data
from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule

Eta = float | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EulerMaruyama(LinearSolver):
    """Euler-Maruyama on (1); weak order 1, one call a step.

    Towards noise the sign of eta in the drift flips, so that the marginals hold both ways.

    Args:
        eta: ``eta`` of (1), a number or a function of time: 0 is the ODE, 1 the reverse SDE.

    Raises:
        ValueError: ``eta < 0``.
    """

    eta: Eta = 1.0

    def __post_init__(self) -> None:
        check_eta(self.eta)

    @property
    def weak_order(self) -> int | None:
        return 1 if _noisy(self.eta) else None

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        (of_x0, of_eps), h = _drift(t, self.eta, t, s), s.t - t.t
        std = h.abs().sqrt() * _spread(t.process, self.eta, t.t)
        return Rule(((t, None),), Row(1.0, ((h * of_x0, h * of_eps),), std), _noisy(self.eta))


@dataclass(frozen=True)
class StochasticHeun(LinearSolver):
    """Heun's method on (1), whose noise does not depend on ``x``; weak order 2, two calls a step.

    The error estimate is the distance from Euler-Maruyama on the same noise.

    Args:
        eta: as in `EulerMaruyama`.

    Raises:
        ValueError: ``eta < 0``.

    Reference: Kloeden and Platen (1992), Numerical Solution of Stochastic Differential Equations,
    section 15.1.
    """

    order = 2
    calls = 2
    eta: Eta = 1.0

    def __post_init__(self) -> None:
        check_eta(self.eta)

    @property
    def weak_order(self) -> int | None:
        return 2 if _noisy(self.eta) else None

    @property
    def error_order(self) -> float | None:
        return 1.5 if _noisy(self.eta) else 2

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        h = s.t - t.t
        here, there = ([h * c for c in _drift(level, self.eta, t, s)] for level in (t, s))
        stds = [h.abs().sqrt() * _spread(t.process, self.eta, level.t) for level in (t, s)]
        std = (0.5 * (stds[0] ** 2 + stds[1] ** 2)).sqrt()
        ahead = Row(1.0, ((here[0], here[1]),), std)
        halves = tuple((0.5 * a, 0.5 * b) for a, b in (there, here))
        change = ((0.5 * there[0], 0.5 * there[1]), (-0.5 * here[0], -0.5 * here[1]))
        return Rule(
            ((t, None), (s, ahead)),
            Row(1.0, halves, std),
            _noisy(self.eta),
            error=Row(0.0, change) if error else None,
        )


@dataclass(frozen=True)
class DDIM(LinearSolver):
    """DDIM, rule (2): the exponential Euler method with ``eta = 0``; one call a step.

    Args:
        eta: 0 for the ODE (order 1, both directions), 1 for DDPM's ancestral step (weak order 1,
            towards data only), or between.

    Raises:
        ValueError: ``eta`` outside [0, 1]; a step towards noise with ``eta > 0``.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta:g}: give a number from 0 (ODE) to 1 (ancestral).")

    @property
    def weak_order(self) -> int | None:
        return 1 if self.eta else None

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        if self.eta == 0:
            return Rule(((t, None),), Row(0.0, ((s.alpha, s.sigma),)))
        share = self.eta**2 * _open_share(t, s)
        return _renoised(t, s, share, s.sigma * share.sqrt())


@dataclass(frozen=True)
class DDPM(LinearSolver):
    """DDPM's ancestral step, towards data only; weak order 1, one call a step.

    The mean is that of (2) with ``eta = 1``. The noise has the posterior variance (``beta-tilde``,
    "fixed small", exact for data at one point: ``DDIM(eta=1)``), or that of the forward kernel from
    ``s`` to ``t``, times ``(alpha_s^2 + sigma_s^2) / (alpha_t^2 + sigma_t^2)``, which is 1 on VP
    (``beta``, "fixed large", exact for data of unit variance).

    Args:
        variance: ``"posterior"`` or ``"forward"``.

    Raises:
        ValueError: another variance; a step towards noise.

    Reference: Ho, Jain and Abbeel (2020), arXiv:2006.11239, section 3.2.
    """

    weak_order = 1
    variance: Literal["posterior", "forward"] = "posterior"

    def __post_init__(self) -> None:
        if self.variance not in ("posterior", "forward"):
            raise ValueError(f'variance={self.variance!r}: give "posterior" or "forward".')

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        share = _open_share(t, s)
        std = s.sigma * share.sqrt()
        if self.variance == "forward":
            std = t.sigma * (share * (s.alpha**2 + s.sigma**2) / (t.alpha**2 + t.sigma**2)).sqrt()
        return _renoised(t, s, share, std)


@dataclass(frozen=True)
class ReverseDiffusion(LinearSolver):
    """The reverse diffusion step (4), towards data only; weak order 1, one call a step.

    Raises:
        ValueError: a step towards noise.

    Reference: Song et al. (2021), arXiv:2011.13456, equation 46.
    """

    weak_order = 1

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        check_towards_data("ReverseDiffusion", t.t, s.t)
        keep, std = t.alpha / s.alpha, t.process.kernel_std(s.t, t.t)
        score = torch.zeros_like(t.t), -(std**2) / t.sigma
        return Rule(((t, None),), Row(2 - keep, (score,), std), noisy=True)


def check_eta(eta: Eta) -> None:
    """Reject a negative number."""
    if not callable(eta) and not 0 <= eta < math.inf:
        raise ValueError(f"eta={eta:g}: give 0 (the ODE), 1 (the SDE) or another number >= 0.")


def _noisy(eta: Eta) -> bool:
    return callable(eta) or eta != 0


def _spread(process: Process, eta: Eta, t: Tensor) -> Tensor:
    """Return ``eta g`` of (1)."""
    if not callable(eta) and eta == 0:
        return torch.zeros_like(t)
    values = torch.as_tensor(eta(t) if callable(eta) else eta, dtype=torch.float64)
    if not bool((values >= 0).all()):
        raise ValueError(f"eta={float(values.min()):g} at some time: give values >= 0.")
    g = values * process.diffusion(t)
    if not bool(g.isfinite().all()):
        worst = t.expand(g.shape)[~g.isfinite()].flatten()[0].item()
        raise ValueError(
            f"the SDE of {process!r} has an infinite diffusion at t={worst:g}: start the grid "
            "at an earlier time, or use a solver of the ODE."
        )
    return g


def _drift(at: Level, eta: Eta, t: Level, s: Level) -> tuple[Tensor, Tensor]:
    """Return the coefficients of ``x0`` and ``eps`` in the drift of (1) at a level, from t to s.

    ``f x - g^2 score / 2`` is the velocity; the rest of (1) denoises in either direction of time.
    """
    alpha_rate, sigma_rate = at.rates
    noising = -0.5 * (s.t - t.t).sign() * _spread(at.process, eta, at.t) ** 2 / at.sigma
    return alpha_rate, sigma_rate + noising


def _renoised(t: Level, s: Level, share: Tensor, std: Tensor) -> Rule:
    """Return (2): a share of the noise variance at ``s`` is removed, and ``std`` of noise added."""
    mean = s.alpha, s.sigma * (1 - share).sqrt()
    return Rule(((t, None),), Row(0.0, (mean,), std), noisy=True)


def _open_share(t: Level, s: Level) -> Tensor:
    """Return the share of the variance of ``x_s`` left undetermined by ``x_t``, given ``x_0``.

    Raises:
        ValueError: ``s`` is noisier than ``t``.
    """
    check_towards_data("an ancestral step", t.t, s.t)
    return -torch.expm1(2 * (s.log_ratio - t.log_ratio))
