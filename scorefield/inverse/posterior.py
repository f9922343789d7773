r"""Posterior fields: of samples given a measurement ``y = A(x_0) + s n``, ``n`` standard normal.

With ``x`` the noisy sample, ``mu = E[x_0 | x]`` of the base field and ``J = d mu / d x``, Bayes'
rule adds the gradient of ``log p(y | x)`` to the score. All methods here approximate it by the
vector-Jacobian product of weights ``w`` on the residual::

    s = s_0 + J^T A^T w                                                             (1)
    E[x_0 | x, y] = mu + sigma^2 / alpha J^T A^T w                                  (2)

They differ in how ``x_0`` is taken to spread about ``mu``, at a scalar ``r^2`` or by Tweedie's
second formula, or not at all::

    w = (s^2 + A C A^T)^-1 (y - A mu),    C = r^2 I                 PiGDM           (3)
                                          C = sigma^2 / alpha J     MMPS            (4)
    w = 2 zeta (y - A(mu)) / |y - A(mu)|                            DPS             (5)

with ``r^2 = sigma^2 v / (alpha^2 v + sigma^2)`` for data of variance ``v``. (4) is exact where
``x_0`` given ``x`` is Gaussian, as for Gaussian data, and (3) if that has covariance ``v I``. (5)
is a heuristic whose ``zeta`` has to be tuned, and its samples have no law that can be told. The
systems are solved by products, for each sample by itself, in `scorefield.inverse.residuals`.

The last term of (2) is the difference of two means of data, so it is cut to a length of 3
deviations of the data over all coordinates: what a true field gives is hardly ever near that, but a
network's Jacobian may be nearly singular where it should not, and the term a hundred times longer.

Where ``alpha = 0`` a field cannot tell how ``x_0`` spreads, and the base's estimate is returned.

Reference: Song et al. (2023), Pseudoinverse-guided diffusion models for inverse problems (PiGDM);
Rozet et al. (2024), arXiv:2405.13712 (MMPS); Chung et al. (2023), arXiv:2209.14687 (DPS).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, ScoreField
from scorefield.inverse.base import LinearOperator, Operator
from scorefield.inverse.operators import broadcasts
from scorefield.inverse.residuals import norm, solve
from scorefield.process import Coefficient, mix

_FARTHEST = 3.0  # deviations of the data that the last term of (2) may be long
_TOLERANCE = 1e-5  # of the systems (3) and (4)
_PRODUCTS = 30  # with A A^T in (3), which cost no call of the field
_TINY = torch.finfo(torch.float64).tiny
Pull = Callable[[Tensor], Tensor]


class Posterior(ScoreField, ABC):
    """The field (1) of a base field, an operator and what it measured.

    The base's moments are kept: generation starts where noise hides them.
    """

    operator: Operator
    measured: Tensor

    def __init__(self, base: ScoreField, operator: Operator, measured: Tensor) -> None:
        super().__init__(base.process, base.shape, base.mean, base.variance)
        shape, given = operator.shape(base.shape), tuple(measured.shape)
        if given != shape and given[1:] != shape:
            raise ValueError(
                f"measured has shape {given}, and {type(operator).__name__} makes {shape} of "
                f"samples of shape {base.shape}: give that, or one for each sample of a batch."
            )
        rows = measured if given[1:] == shape and len(given) > len(shape) else measured[None]
        ignored = ~operator.observed.to(rows.device)
        if not bool((rows.isfinite() | ignored).all()):
            raise ValueError(
                "measured has values that are not finite where the operator observes: leave these "
                "out by a Mask."
            )
        self.base, self.operator = base, operator
        self.register_buffer("measured", torch.where(ignored, 0.0, rows))

    @abstractmethod
    def weights(self, at: Instant, residual: Tensor, pull: Pull) -> Tensor:
        """Return ``w`` of (1), given ``y - A(mu)`` and the map of ``w`` to ``J^T A^T w``."""

    def prepare_times(self, t: Tensor) -> Sequence[Instant]:
        return self.base.instants(t)

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        if len(self.measured) not in (1, len(x)):
            raise ValueError(
                f"{len(self.measured)} measurements for a batch of {len(x)} samples: give one for "
                "all, or one for each slot of a batch; scorefield.restore takes any number of them."
            )
        through = torch.is_grad_enabled() and x.requires_grad  # as for a likelihood
        with torch.enable_grad():
            seen = x if through else x.detach().requires_grad_()
            found = self.base(seen, at.prepared, **condition)
            x0, eps = found.x0, found.eps
            told = self.operator.forward(x0)
        if told.shape[0] != len(x):
            raise ValueError(
                f"the operator makes {told.shape[0]} measurements of {len(x)} samples: it is of a "
                "batch of another size."
            )

        def pull(w: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(told, seen, w, retain_graph=True, create_graph=through)
            return pulled

        with torch.set_grad_enabled(through):
            residual = self.observed(self.measured.to(told) - told)
            change = mix((gain(at), pull(self.weights(at, residual, pull))))
            most = _FARTHEST * self.base.data_std * x[0].numel() ** 0.5
            change = change * (most / norm(change)).clamp(max=1.0)
            x0, eps = x0 + change, mix((1.0, eps), (-at.alpha / at.sigma, change))
        return Estimate(at, x, (x0, eps) if through else (x0.detach(), eps.detach()))

    def observed(self, y: Tensor) -> Tensor:
        """Return measurements with 0 for what is not observed."""
        return torch.where(self.operator.observed.to(y.device), y, 0.0)


class _Gaussian(Posterior, ABC):
    """A posterior field whose weights solve ``(s^2 + A C A^T) w = y - A mu``, by samples.

    Args:
        operator: a linear one.
        measured: ``y``, for all samples alike, or ``(B, ...)`` for each of a batch.
        noise_std: ``s``, not negative; a number, or a value for each entry of ``y``.
    """

    operator: LinearOperator
    noise_std: Tensor

    def __init__(
        self,
        base: ScoreField,
        operator: LinearOperator,
        measured: Tensor,
        noise_std: float | Tensor = 0.0,
    ) -> None:
        super().__init__(base, operator, measured)
        noise = torch.as_tensor(noise_std, dtype=torch.float64)
        if not bool((noise.isfinite() & (noise >= 0)).all()):
            raise ValueError(f"noise_std = {noise_std}: give a finite deviation, 0 or more.")
        shape, given = operator.shape(base.shape), tuple(noise.shape)
        if not broadcasts(given if len(given) <= len(shape) else given[1:], shape):
            raise ValueError(
                f"noise_std has shape {given}, and a measurement {shape}: give a number, or a "
                "value for each entry."
            )
        self.register_buffer("noise_std", noise)

    def weights(self, at: Instant, residual: Tensor, pull: Pull) -> Tensor:
        variance = self.noise_std.to(residual) ** 2

        def system(w: Tensor) -> Tensor:
            return variance * w + self.observed(self.spread(at, w, pull))

        return solve(system, residual, self.products, _TOLERANCE)

    @property
    @abstractmethod
    def products(self) -> int:
        """How many products with the system there may be."""

    @abstractmethod
    def spread(self, at: Instant, w: Tensor, pull: Pull) -> Tensor:
        """Return ``A C A^T w``."""


class PiGDM(_Gaussian):
    """The field (3): pseudo-inverse guidance.

    A call costs one vector-Jacobian product beside the call of the base field.

    Args:
        base: the field.
        operator: a linear one.
        measured: ``y``, for all samples alike, or ``(B, ...)`` for each of a batch.
        noise_std: ``s``, not negative; a number, or a value for each entry of ``y``.

    Raises:
        ValueError: an operator that does not measure the field's samples, measurements of another
            shape or not finite, negative noise.
    """

    @property
    def products(self) -> int:
        return _PRODUCTS

    def spread(self, at: Instant, w: Tensor, pull: Pull) -> Tensor:
        v = self.base.data_std**2
        r2 = at.sigma**2 * v / (at.alpha**2 * v + at.sigma**2)
        return mix((_beside(r2, w), self.operator.forward(self.operator.adjoint(w))))


class MMPS(_Gaussian):
    """The field (4): moment matching, with Tweedie's covariance of ``x_0`` given ``x``.

    A call costs up to ``iterations + 1`` vector-Jacobian products beside the call of the base.

    Args:
        base: the field.
        operator: a linear one.
        measured: ``y``, for all samples alike, or ``(B, ...)`` for each of a batch.
        noise_std: ``s``, not negative; a number, or a value for each entry of ``y``.
        iterations: of conjugate residuals, at most; as many as ``y`` has entries solve the system.

    Raises:
        ValueError: as `PiGDM`; no iterations.
    """

    def __init__(
        self,
        base: ScoreField,
        operator: LinearOperator,
        measured: Tensor,
        noise_std: float | Tensor = 0.0,
        *,
        iterations: int = 5,
    ) -> None:
        super().__init__(base, operator, measured, noise_std)
        if iterations < 1:
            raise ValueError(f"iterations = {iterations}: give at least 1.")
        self.iterations = iterations

    @property
    def products(self) -> int:
        return self.iterations

    def spread(self, at: Instant, w: Tensor, pull: Pull) -> Tensor:
        return mix((_beside(gain(at), w), self.operator.forward(pull(w))))


class DPS(Posterior):
    """The field (5): a push down the gradient of ``|y - A(mu)|``, for operators of any kind.

    Chung et al. subtract ``zeta' / |y - A(mu)| grad |y - A(mu)|^2`` from ``x`` after each of 1,000
    steps of DDPM. A score enters such a step times its ``beta``, so that (5) with ``zeta = zeta' /
    beta`` is the same to first order; here it does not hang on the steps.

    Args:
        base: the field.
        operator: any.
        measured: ``y``, for all samples alike, or ``(B, ...)`` for each of a batch.
        zeta: above 0.

    Raises:
        ValueError: as `PiGDM`; a ``zeta`` that is not positive.
    """

    def __init__(
        self, base: ScoreField, operator: Operator, measured: Tensor, *, zeta: float = 1.0
    ) -> None:
        super().__init__(base, operator, measured)
        if not 0 < zeta < math.inf:
            raise ValueError(f"zeta = {zeta:g}: give a positive number.")
        self.zeta = zeta

    def weights(self, at: Instant, residual: Tensor, pull: Pull) -> Tensor:
        return 2 * self.zeta / norm(residual) * residual


def gain(at: Instant) -> Coefficient:
    """Return ``sigma^2 / alpha`` of (2), and 0 where ``alpha = 0``."""
    alpha = at.alpha
    if isinstance(alpha, Tensor):
        return torch.where(alpha > 0, at.sigma**2 / alpha.clamp(min=_TINY), 0.0)
    return at.sigma**2 / alpha if alpha > 0 else 0.0


def _beside(coefficient: Coefficient, y: Tensor) -> Coefficient:
    """Return a coefficient, one for each sample perhaps, to be multiplied with measurements."""
    if isinstance(coefficient, Tensor):
        return coefficient.reshape(-1, *[1] * (y.ndim - 1))
    return coefficient
