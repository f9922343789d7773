r"""Stochastic solvers: steps that add noise on the way.

A whole family of SDEs shares the marginals of the probability-flow ODE. With a dial ``d >= 0``,
towards data::

    dx = [f x - (1 + d^2)/2 g^2 score] dt + d g dw                                  (1)

``d = 0`` is the ODE and ``d = 1`` Anderson's reverse SDE. Time runs down, so ``dt < 0``.

DDIM moves the two posterior means apart and noises back, for any ``s < t``::

    x_s = alpha_s x0 + sqrt(sigma_s^2 - std^2) eps + std z                          (2)
    std = eta sigma_s sqrt(1 - e^{2 (lambda_t - lambda_s)}),  lambda = log(alpha/sigma)   (3)

``std`` is a standard deviation, for VP ``eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t /
abar_s)``; ``eta = 1`` is DDPM's ancestral step with the posterior variance (not ``beta``).

Reference: Anderson (1982); Song et al. (2021), arXiv:2011.13456; Song, Meng and Ermon (2021),
arXiv:2010.02502, equations 12 and 16; Zhang and Chen (2021), arXiv:2110.07579 (the dial).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scorefield.field import Estimate, ScoreField
from scorefield.process import Process, cast
from scorefield.solvers.base import Solver, State


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """Euler-Maruyama on (1); weak order 1, one call a step.

    Towards noise the drift's sign of the dial flips, so that the marginals hold both ways.

    Args:
        dial: ``d`` of (1), a number or a function of time: 0 is the ODE, 1 the reverse SDE.

    Raises:
        ValueError: a negative dial.
    """

    dial: float | Callable[[Tensor], Tensor] = 1.0

    def __post_init__(self) -> None:
        if not callable(self.dial) and not self.dial >= 0:
            raise ValueError(
                f"dial = {self.dial:g}: give 0 (the ODE), 1 (the SDE) or another >= 0."
            )

    @property
    def order(self) -> int:
        return 1

    @property
    def calls(self) -> int:
        return 1

    def step(self, field: ScoreField, at: State, s: Tensor) -> State:
        h, found = s - at.t, field(at.x, at.t)
        dial = self.dial(at.t) if callable(self.dial) else self.dial
        g = dial * field.process.diffusion(at.t)
        if not bool(g.isfinite().all()):
            raise ValueError(
                f"the SDE of {field.process!r} has no finite diffusion at t = "
                f"{float(at.t.max()):g}: start the grid earlier, or use a solver of the ODE."
            )
        z, noise = at.noise.normal(at.x)
        # f x - g^2 score / 2 is the velocity; the rest of (1) is Langevin noising and denoising
        x = at.x + cast(h, at.x) * found.velocity
        x = x + cast(0.5 * h.abs() * g**2, x) * found.score + cast(g * h.abs().sqrt(), x) * z
        return replace(at, x=x, t=s, noise=noise, memory=None, error=None)


@dataclass(frozen=True)
class DDIM(Solver):
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
            raise ValueError(f"eta = {self.eta:g}: give a number from 0 (ODE) to 1 (ancestral).")

    @property
    def order(self) -> int:
        return 1

    @property
    def calls(self) -> int:
        return 1

    def step(self, field: ScoreField, at: State, s: Tensor) -> State:
        process, found = field.process, field(at.x, at.t)
        alpha, sigma = process.coefficients(s)
        if self.eta == 0:
            x = cast(alpha, at.x) * found.x0 + cast(sigma, at.x) * found.eps
            return replace(at, x=x, t=s, memory=None, error=None)
        share = self.eta**2 * _open_share(process, at.t, s)
        return _noised_back(found, at, s, share, sigma * share.sqrt())


@dataclass(frozen=True)
class DDPM(Solver):
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

    variance: Literal["posterior", "forward"] = "posterior"

    def __post_init__(self) -> None:
        if self.variance not in ("posterior", "forward"):
            raise ValueError(f'variance = {self.variance!r}: give "posterior" or "forward".')

    @property
    def order(self) -> int:
        return 1

    @property
    def calls(self) -> int:
        return 1

    def step(self, field: ScoreField, at: State, s: Tensor) -> State:
        process, found = field.process, field(at.x, at.t)
        share = _open_share(process, at.t, s)
        std = process.sigma(s) * share.sqrt()
        if self.variance == "forward":
            size_s, size_t = (torch.hypot(*process.coefficients(time)) for time in (s, at.t))
            std = process.sigma(at.t) * share.sqrt() * size_s / size_t
        return _noised_back(found, at, s, share, std)


def _noised_back(found: Estimate, at: State, s: Tensor, share: Tensor, std: Tensor) -> State:
    """Return (2): all but a share of the noise variance at ``s`` kept, ``std`` of fresh noise."""
    alpha, sigma = found.process.coefficients(s)
    kept, (z, noise) = sigma * (1 - share).sqrt(), at.noise.normal(at.x)
    x = cast(alpha, z) * found.x0 + cast(kept, z) * found.eps + cast(std, z) * z
    return replace(at, x=x, t=s, noise=noise, memory=None, error=None)


def _open_share(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """Return the share of the variance of ``x_s`` that ``x_t`` leaves open, given ``x_0``.

    Raises:
        ValueError: ``s`` is noisier than ``t``.
    """
    if bool((s > t).any()):
        raise ValueError(
            f"ancestral steps go towards data, not from t = {float(t.min()):g} to "
            f"{float(s.max()):g}: use DDIM(eta=0), or process.diffuse."
        )
    return -torch.expm1(2 * (process.half_log_snr(t) - process.half_log_snr(s)))
