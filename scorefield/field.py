r"""Score fields: one learned or exact function behind every solver, likelihood and guidance.

A field answers one question: given a noisy ``x = alpha x_0 + sigma eps`` at time ``t``, what are
the posterior means of ``x_0`` and ``eps``? The answer is an `Estimate`, and everything else is a
linear view of it::

    score    = grad log p_t(x) = -E[eps | x] / sigma                                (1)
    v        = alpha E[eps | x] - sigma E[x_0 | x]                                  (2)
    velocity = alpha' E[x_0 | x] + sigma' E[eps | x]                                (3)

(3) is the drift ``f x - g^2 score / 2`` of the probability-flow ODE, in the form that stays finite
at ``alpha = 0``. (1) with ``x_0`` is Tweedie's formula.

Reference: Robbins (1956); Efron (2011), Tweedie's formula; Song et al. (2021), arXiv:2011.13456.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.process import Process, Time, align, cast

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Estimate:
    """What a field says of ``x`` at time ``t``: the posterior means of data and noise.

    ``x``, ``x0`` and ``eps`` have the shape ``(B, ...)`` and satisfy ``x = alpha x0 + sigma eps``.
    Both means are kept as the field gave them, so that neither loses digits at small ``alpha`` or
    ``sigma``. ``t`` is in the form `align` returns.
    """

    process: Process
    x: Tensor
    t: Tensor
    x0: Tensor
    eps: Tensor

    @classmethod
    def from_x0(cls, process: Process, x: Tensor, t: Time, x0: Tensor) -> Estimate:
        """Complete an estimate of the data: ``eps = (x - alpha x0) / sigma``."""
        t = align(t, x)
        alpha, sigma = (cast(c, x) for c in process.coefficients(t))
        return cls(process, x, t, x0, (x - alpha * x0) / sigma)

    @classmethod
    def from_eps(cls, process: Process, x: Tensor, t: Time, eps: Tensor) -> Estimate:
        """Complete an estimate of the noise: ``x0 = (x - sigma eps) / alpha``."""
        t = align(t, x)
        alpha, sigma = (cast(c, x) for c in process.coefficients(t))
        return cls(process, x, t, (x - sigma * eps) / alpha, eps)

    @classmethod
    def from_score(cls, process: Process, x: Tensor, t: Time, score: Tensor) -> Estimate:
        """Complete an estimate of ``grad log p_t(x)``, by (1)."""
        return cls.from_eps(process, x, t, -cast(process.sigma(align(t, x)), x) * score)

    @classmethod
    def from_v(cls, process: Process, x: Tensor, t: Time, v: Tensor) -> Estimate:
        """Complete an estimate of (2): a rotation of ``x`` and ``v`` by the noise angle."""
        t = align(t, x)
        alpha, sigma = process.coefficients(t)
        cos, sin = (cast(c / (alpha**2 + sigma**2), x) for c in (alpha, sigma))
        return cls(process, x, t, cos * x - sin * v, sin * x + cos * v)

    @classmethod
    def from_velocity(cls, process: Process, x: Tensor, t: Time, velocity: Tensor) -> Estimate:
        """Complete an estimate of (3), the time derivative along the probability-flow ODE."""
        t = align(t, x)
        alpha, sigma = process.coefficients(t)
        alpha_rate, sigma_rate = process.rates(t)
        det = alpha * sigma_rate - sigma * alpha_rate
        x0 = cast(sigma_rate / det, x) * x - cast(sigma / det, x) * velocity
        eps = cast(alpha / det, x) * velocity - cast(alpha_rate / det, x) * x
        return cls(process, x, t, x0, eps)

    @property
    def score(self) -> Tensor:
        """``grad log p_t(x)``, by (1)."""
        return -self.eps / cast(self.process.sigma(self.t), self.x)

    @property
    def v(self) -> Tensor:
        """``alpha eps - sigma x0``, by (2)."""
        alpha, sigma = (cast(c, self.x) for c in self.process.coefficients(self.t))
        return alpha * self.eps - sigma * self.x0

    @property
    def velocity(self) -> Tensor:
        """``dx/dt`` of the probability-flow ODE, by (3)."""
        alpha_rate, sigma_rate = (cast(r, self.x) for r in self.process.rates(self.t))
        return alpha_rate * self.x0 + sigma_rate * self.eps


class ScoreField(nn.Module, ABC):
    """Posterior means of data and noise, for samples of one shape under one process.

    A subclass writes `estimate`. Call the field itself: ``field(x, t)``.

    Args:
        process: the forward process whose noise the field removes.
        shape: the shape of one sample.
        mean, variance: the data's moments, one number or one per coordinate; generation starts from
            `Process.prior` of them. The defaults are those of standardised data.
    """

    def __init__(
        self,
        process: Process,
        shape: Shape,
        mean: float | Tensor = 0.0,
        variance: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.process = process
        self.shape = tuple(shape)
        self.mean = mean
        self.variance = variance

    @abstractmethod
    def estimate(self, x: Tensor, t: Tensor, **condition: Any) -> Estimate:
        """Return the estimate for ``x`` ``(B, *shape)`` at ``t``, already aligned with ``x``."""

    def forward(self, x: Tensor, t: Time, **condition: Any) -> Estimate:
        """Return the estimate for ``x`` ``(B, *shape)`` at ``t``: a number, ``()`` or ``(B,)``.

        Raises:
            ValueError: a sample does not have the field's shape, or ``t`` does not fit ``x``.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: this field takes batches of samples of shape "
                f"{self.shape}."
            )
        return self.estimate(x, align(t, x), **condition)

    @property
    def data_std(self) -> float:
        """The data's root-mean-square deviation."""
        return float(torch.as_tensor(self.variance, dtype=torch.float64).mean().sqrt())

    def under(self, process: Process) -> ScoreField:
        """Return the same field for data noised by another process.

        ``x`` is rescaled and the clock changed so that the signal-to-noise ratio is the same.

        Raises:
            ValueError: ``process`` reaches noise levels outside this field's own.
        """
        return _Under(self, process)

    def given(self, **condition: Any) -> ScoreField:
        """Return the field with conditioning bound once, so that solvers carry none."""
        return _Given(self, condition)


class _Under(ScoreField):
    def __init__(self, base: ScoreField, process: Process) -> None:
        ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
        try:
            base.process.time(process.half_log_snr(ends))
        except ValueError as error:
            raise ValueError(
                f"{process!r} reaches noise levels that {base.process!r} does not: {error} "
                "Narrow t_min and t_max of the new process."
            ) from None
        super().__init__(process, base.shape, base.mean, base.variance)
        self.base = base

    def estimate(self, x: Tensor, t: Tensor, **condition: Any) -> Estimate:
        inner = self.base.process
        t_inner = inner.time(self.process.half_log_snr(t))
        size = torch.hypot(*self.process.coefficients(t))
        scale = torch.hypot(*inner.coefficients(t_inner)) / size
        found = self.base(cast(scale, x) * x, t_inner, **condition)
        return Estimate(self.process, x, t, found.x0, found.eps)


class _Given(ScoreField):
    def __init__(self, base: ScoreField, condition: dict[str, Any]) -> None:
        super().__init__(base.process, base.shape, base.mean, base.variance)
        self.base = base
        self.condition = condition

    def estimate(self, x: Tensor, t: Tensor, **condition: Any) -> Estimate:
        found: Estimate = self.base(x, t, **{**self.condition, **condition})
        return found
