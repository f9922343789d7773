r"""The forward processes: each is two formulas, ``alpha(t)`` and ``sigma(t)``.

=============  ==================================  ========================================
process        alpha                               sigma
=============  ==================================  ========================================
`VP`           exp(-B/2), B = int_0^t beta         sqrt(1 - exp(-B))
`SubVP`        exp(-B/2)                           1 - exp(-B)
`VE`           1                                   sqrt(sigma(t)^2 - sigma(0)^2)
`Cosine`       cos(a(t)) / cos(a(0))               sqrt(1 - alpha^2)
`Sigmoid`      sqrt((S(b) - S(a + (b - a) t)) /    sqrt(1 - alpha^2)
               (S(b) - S(a)))
`Flow`         1 - t                               t
`EDM`          1                                   t
`Tabulated`    sin(angle_k) at the knots           cos(angle_k)
=============  ==================================  ========================================

Differences of nearly equal numbers are written with ``expm1`` or as products, so that ``sigma``
keeps its relative accuracy down to ``t_min``. A process from a drift and a diffusion is in
`scorefield.process.linear_sde`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.process.base import Process, polynomial

_RIGHT = torch.tensor(0.5 * math.pi, dtype=torch.float64)


@dataclass(frozen=True)
class _LinearBeta(Process):
    """A process with ``beta(t) = beta_min + t (beta_max - beta_min)`` and ``alpha = e^{-B/2}``."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def _integral(self, t: Tensor) -> Tensor:
        """Return ``B``, the integral of ``beta`` from 0 to ``t``."""
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _time_of(self, integral: Tensor) -> Tensor:
        """Return the time at which ``B`` has a value: the root of a quadratic."""
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt()
        return 2 * integral / (self.beta_min + root)


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance-preserving process with linear ``beta``: ``dx = -beta/2 x dt + sqrt(beta) dw``.

    The variance is preserved only for data of unit covariance and zero mean: in general it is
    ``I + e^{-B} (C_0 - I)``.

    Reference: Song et al. (2021), arXiv:2011.13456, equations 11 and 33.
    """

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self._integral(t))).sqrt()

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        # alpha^2 = 1 / (1 + e^{-2 lambda}) = e^{-B}
        return self._time_of(torch.log1p(torch.exp(-2 * half_log_snr)))


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-VP process: the mean of `VP`, with the smaller deviation ``1 - e^{-B}`` (no root).

    ``sigma`` falls like ``t``, not ``sqrt(t)``, towards 0: the score is steeper there than VP's.

    Reference: Song et al. (2021), arXiv:2011.13456, appendix B, equation 29.
    """

    t_min: float = 1e-3

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        # sigma / alpha = e^{B/2} - e^{-B/2}
        return self._time_of(2 * torch.asinh(0.5 * torch.exp(-half_log_snr)))


@dataclass(frozen=True)
class VE(Process):
    """Variance-exploding process: ``dx = g dw`` with the geometric noise ladder.

    With ``s(t) = sigma_min (sigma_max / sigma_min)^t`` and ``g = s sqrt(2 log(sigma_max /
    sigma_min))``, noise added since ``t = 0`` has the deviation ``sqrt(s(t)^2 - s(0)^2)``. It grows
    to about ``sigma_max``, not without bound.

    Reference: Song et al. (2021), arXiv:2011.13456, appendix C.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(self._growth * t).sqrt()

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-2 * half_log_snr) / self.sigma_min**2) / self._growth

    @property
    def _growth(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class Cosine(Process):
    """Variance-preserving process with ``alpha = cos(a(t)) / cos(a(0))``, a linear angle ``a``.

    ``a(t) = pi/2 (t + offset) / (1 + offset)``. At ``t = 1`` no signal is left and the SDE's
    coefficients diverge, so ``t_max`` stops short of it.

    Reference: Nichol and Dhariwal (2021), arXiv:2102.09672, equation 17.
    """

    offset: float = 0.008
    t_min: float = 1e-4
    t_max: float = 0.999

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._angle(t)) / math.cos(self._start)

    def sigma(self, t: Tensor) -> Tensor:
        # 1 - cos^2 a / cos^2 b = sin(a - b) sin(a + b) / cos^2 b, without the cancellation
        moved = 0.5 * math.pi * t / (1 + self.offset)
        product = torch.sin(moved) * torch.sin(moved + 2 * self._start)
        return product.sqrt() / math.cos(self._start)

    @property
    def _start(self) -> float:
        return 0.5 * math.pi * self.offset / (1 + self.offset)


@dataclass(frozen=True)
class Sigmoid(Process):
    """Variance-preserving process whose ``alpha^2`` falls along a logistic curve.

    ``alpha^2 = (S(b) - S(u)) / (S(b) - S(a))`` with the logistic function ``S(u) = 1 / (1 +
    e^{-u / tau})`` and ``u = a + (b - a) t``, from ``a = start`` to ``b = end``. At ``t = 1`` no
    signal is left, so ``t_max`` stops short of it.

    Reference: Jabri et al. (2022), arXiv:2212.11972, algorithm 4; Chen (2023), arXiv:2301.10972.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    t_min: float = 1e-4
    t_max: float = 0.999

    def __post_init__(self) -> None:
        if not (self.start < self.end and self.tau > 0):
            raise ValueError(
                f"start={self.start:g}, end={self.end:g}, tau={self.tau:g}: must be start < end "
                "and tau > 0."
            )
        super().__post_init__()

    def _share(self, low: Tensor, high: Tensor) -> Tensor:
        # S(v) - S(u) = sinh((v - u) / 2) / (2 cosh(u / 2) cosh(v / 2)), without the cancellation
        u, v = low / self.tau, high / self.tau
        return torch.sinh((v - u) / 2) / (2 * torch.cosh(u / 2) * torch.cosh(v / 2))

    def _split(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts of the fall after and before the time, of the whole."""
        start, end = torch.full_like(t, self.start), torch.full_like(t, self.end)
        at = start + (end - start) * t
        whole = self._share(start, end)
        return self._share(at, end) / whole, self._share(start, at) / whole

    def alpha(self, t: Tensor) -> Tensor:
        return self._split(t)[0].sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return self._split(t)[1].sqrt()


@dataclass(frozen=True)
class Flow(Process):
    """Rectified flow's straight conditional paths: ``x_t = (1 - t) x_0 + t eps``.

    ``t_max = 1`` is allowed with solvers of the probability-flow ODE that read ``x0`` or the
    velocity; the reverse SDE has an infinite coefficient there, so the default stops short of it.

    Reference: Liu et al. (2022), arXiv:2209.03003; Lipman et al. (2022), arXiv:2210.02747.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t * 1.0

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(half_log_snr))


@dataclass(frozen=True)
class EDM(Process):
    """Noise level as time: ``x_t = x_0 + t eps``.

    Reference: Karras et al. (2022), arXiv:2206.00364.
    """

    t_min: float = 0.002
    t_max: float = 80.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t * 1.0

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-half_log_snr)


@dataclass(frozen=True)
class Tabulated(Process):
    """A discrete table of ``abar_k = alpha_k^2`` made continuous: time is the index ``k``.

    Variance preserving, so ``(alpha, sigma) = (sin a, cos a)``. The angle ``a`` is interpolated
    through every knot: exact there in log-SNR, and regular where ``abar = 0``, with ``alpha``
    exactly 0 there. The pieces are of degree five and as smooth as the table, so that methods of
    high order keep it; for a table so rough that they would turn back, monotone cubics. Below index
    0 the angle goes in a straight line to the data, at index -1.

    Args:
        alpha_bar: strictly decreasing values in ``[0, 1)``, two or more, as ``prod(1 - beta_k)``.

    Raises:
        ValueError: the table is not one-dimensional, not strictly decreasing, or leaves ``[0, 1)``.

    Reference: Ho et al. (2020), arXiv:2006.11239; Fritsch and Carlson (1980), monotone cubics.
    """

    alpha_bar: Sequence[float] | Tensor = field(repr=False)
    t_min: float = 0.0
    t_max: float = math.inf  # the last index of the table
    t_origin: ClassVar[float] = -1.0

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alpha_bar, dtype=torch.float64).detach().cpu()
        if table.ndim != 1 or table.numel() < 2:
            raise ValueError(
                f"alpha_bar has shape {tuple(table.shape)}: give a table (K,) with K >= 2."
            )
        if not bool(((table >= 0) & (table < 1)).all()):
            raise ValueError(
                f"alpha_bar ranges over [{table.min():g}, {table.max():g}]: needs values in [0, 1)."
            )
        if not bool((table.diff() < 0).all()):
            raise ValueError("alpha_bar must fall strictly, as cumprod(1 - beta) does.")
        if self.t_max == math.inf:
            object.__setattr__(self, "t_max", float(table.numel() - 1))
        angle = torch.atan2(table.sqrt(), (1 - table).sqrt())
        object.__setattr__(self, "alpha_bar", tuple(table.tolist()))
        object.__setattr__(self, "_pieces", -_rising_pieces(-angle))
        super().__post_init__()

    def _angle(self, t: Tensor) -> Tensor:
        pieces: Tensor = self._pieces.to(t)  # type: ignore[attr-defined]
        k = t.detach().floor().long().clamp(0, len(pieces) - 1)
        angle = polynomial(pieces[k], t - k)
        # rounding may miss the end of a table, where alpha is 0; the rate stays
        angle = angle + (torch.where(angle < 1e-15, 0.0, angle) - angle).detach()
        return torch.where(t < 0, torch.lerp(pieces[0, 0], _RIGHT.to(t), -t), angle)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(self._angle(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(_RIGHT.to(t) - self._angle(t))


def _rising_pieces(y: Tensor) -> Tensor:
    """Return polynomials ``(K - 1, 6)`` in the offset from each knot, that rise through ``y``."""
    slopes, bends = (_derivative(y, order) for order in (1, 2))
    pieces = _hermite(y, slopes, bends[:-1], bends[1:])
    u = torch.linspace(0, 1, 33, dtype=y.dtype)
    rates = sum(power * pieces[:, power, None] * u ** (power - 1) for power in range(1, 6))
    if bool((torch.as_tensor(rates) > 0).all()):
        return pieces
    slopes, rise = _monotone_slopes(y), y.diff()
    left, right = slopes[:-1], slopes[1:]
    return _hermite(y, slopes, 6 * rise - 4 * left - 2 * right, 4 * right + 2 * left - 6 * rise)


def _hermite(y: Tensor, slopes: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the pieces with these values, slopes, and second derivatives at either end."""
    d = y.diff() - slopes[:-1] - 0.5 * left
    e, f = slopes.diff() - left, right - left
    high = (10 * d - 4 * e + 0.5 * f, -15 * d + 7 * e - f, 6 * d - 3 * e + 0.5 * f)
    return torch.stack([y[:-1], slopes[:-1], 0.5 * left, *high], 1)


def _derivative(y: Tensor, order: int) -> Tensor:
    """Return a derivative at unit-spaced knots, from the polynomial through the nine nearest."""
    width, n = min(9, y.numel()), y.numel()
    first = (torch.arange(n) - width // 2).clamp(0, n - width)
    places = first[:, None] + torch.arange(width)
    offsets = (places - torch.arange(n)[:, None]).to(y)
    powers = offsets[:, None, :] ** torch.arange(width)[:, None]
    goal = torch.zeros(width, dtype=y.dtype)
    if order < width:
        goal[order] = math.factorial(order)
    weights = torch.linalg.solve(powers, goal.expand(n, width))
    derivative: Tensor = (weights * y[places]).sum(1)
    return derivative


def _monotone_slopes(y: Tensor) -> Tensor:
    """Return slopes at unit-spaced knots: a natural-cubic spline's, limited to stay monotone."""
    n = y.numel()
    rise = y.diff()
    if n == 2:
        return rise.repeat(2)
    right = torch.cat([3 * rise[:1], 3 * (rise[1:] + rise[:-1]), 3 * rise[-1:]])
    slopes = _solve_spline(right)
    nearest = torch.minimum(torch.cat([rise[:1], rise]), torch.cat([rise, rise[-1:]]))
    return torch.minimum(slopes.clamp(min=0.0), 3 * nearest)


def _solve_spline(right: Tensor) -> Tensor:
    """Solve with 1 next to a diagonal of 4, or 2 at the ends: elimination in linear memory."""
    diagonal, values = [2.0], right.tolist()
    for k in range(1, len(values)):
        diagonal.append((2.0 if k == len(values) - 1 else 4.0) - 1 / diagonal[-1])
        values[k] -= values[k - 1] / diagonal[k - 1]
    values[-1] /= diagonal[-1]
    for k in reversed(range(len(values) - 1)):
        values[k] = (values[k] - values[k + 1]) / diagonal[k]
    return torch.tensor(values, dtype=right.dtype)
