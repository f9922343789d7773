r"""Posterior fields: of samples given a measurement ``y = A(x_0) + s n``, ``n`` standard normal.

With ``x`` the noisy sample, ``mu = E[x_0 | x]`` of the base field and ``J = d mu / d x``, Bayes'
rule adds the gradient of ``log p(y | x)`` to the score. All methods here approximate it by the
vector-Jacobian product of weights ``w`` on the residual::

    s = s_0 + J^T A^T w                                                             (1)
    E[x_0 | x, y] = mu + sigma^2 / alpha J^T A^T w                                  (2)

They differ in the covariance ``C`` of ``x_0`` given ``x``: a scalar ``r^2``, Tweedie's second
formula, or none::

    w = (s^2 + A C A^T)^-1 (y - A mu),    C = r^2 I                 PiGDM           (3)
                                          C = sigma^2 / alpha J     MMPS            (4)
    w = 2 zeta (y - A(mu)) / |y - A(mu)|                            DPS             (5)

with ``r^2 = sigma^2 v / (alpha^2 v + sigma^2)`` for data of variance ``v``. (4) is exact where
``x_0`` given ``x`` is Gaussian, as for Gaussian data, and (3) if that has covariance ``v I``. (5)
is a heuristic: ``zeta`` has to be tuned, and its samples follow no known distribution. The linear
systems are solved iteratively, sample by sample (`scorefield.inverse.residuals`).

The last term of (2) is the difference of two means of data, so its length is limited to 3 standard
deviations of the data over all coordinates. A true field hardly ever reaches that, but a network's
Jacobian may be nearly singular where it should not be, and the term a hundred times longer.

Where ``alpha = 0`` the sample holds no information on ``x_0``, and the base's estimate is returned.

Reference: Song et al. (2023), Pseudoinverse-guided diffusion models for inverse problems (PiGDM);
Rozet et al. (2024), arXiv:2405.13712 (MMPS); Chung et al. (2023), arXiv:2209.14687 (DPS).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, ScoreField, check_score
from scorefield.inverse.base import LinearOperator, Operator
from scorefield.inverse.operators import broadcasts
from scorefield.inverse.residuals import norm, solve
from scorefield.process import (
    Coefficient,
    check_instance,
    check_one_level,
    check_positive,
    check_whole,
    mix,
)

_LONGEST = 3.0  # standard deviations of the data, for the last term of (2)
_TOLERANCE = 1e-5  # of the systems (3) and (4)
_PRODUCTS = 30  # with A A^T in (3), which cost no call of the field
_TINY = torch.finfo(torch.float64).tiny
Pull = Callable[[Tensor], Tensor]


class Posterior(ScoreField, ABC):
    """The field (1) of a base field, an operator and a measurement.

    Mean and variance are those of the base: generation starts where noise hides them.

    Args:
        base: the field.
        operator: linear, except for `DPS`.
        measured: ``y``, one for all samples, or ``(B, ...)`` for each sample of a batch.
        noise_std: ``s``, at least 0; a number, or a value for each entry of ``y``.

    Raises:
        ValueError: an operator for samples of another shape, measurements of another shape or not
            finite, negative noise.
    """

    measured: Tensor
    noise_std: Tensor
    linear: ClassVar[bool] = False  # whether the operator must be linear

    def __init__(
        self,
        base: ScoreField,
        operator: Operator,
        measured: Tensor,
        noise_std: float | Tensor = 0.0,
    ) -> None:
        check_instance("base", base, ScoreField, "a field, such as run.field")
        check_instance("operator", operator, Operator, "one such as Matrix(matrix)")
        check_instance("measured", measured, Tensor, "torch.as_tensor(measured)")
        super().__init__(base.process, base.shape, base.mean, base.variance)
        check_score(type(self).__name__, base)
        check_one_level(type(self).__name__, base.process)
        self.rows = base.rows
        if self.linear and not isinstance(operator, LinearOperator):
            raise ValueError(
                f"operator={type(operator).__name__}: {type(self).__name__} needs a subclass of "
                "LinearOperator; use DPS (method='dps') for other operators."
            )
        self.base, self.operator = base, operator
        shape = operator.shape(base.shape)
        self.register_buffer("measured", self._rows(measured, shape))
        self.register_buffer("noise_std", _deviation(noise_std, shape))

    def _rows(self, measured: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the measurements ``(1, ...)`` or ``(B, ...)``, with 0 where not observed."""
        own = tuple(measured.shape)
        if own != shape and own[1:] != shape:
            raise ValueError(
                f"measured has shape {own}: {type(self.operator).__name__} returns {shape} for "
                f"samples of shape {self.shape}; give that, or one for each sample of a batch."
            )
        rows = measured if own[1:] == shape and len(own) > len(shape) else measured[None]
        ignored = ~self.operator.observed.to(rows.device)
        if not bool((rows.isfinite() | ignored).all()):
            raise ValueError(
                "measured has observed values that are not finite: exclude them with a Mask."
            )
        return torch.where(ignored, 0.0, rows)

    @property
    def stackable(self) -> bool:
        return len(self.measured) == 1 and self.base.stackable

    @abstractmethod
    def weights(self, at: Instant, residual: Tensor, pull: Pull) -> Tensor:
        """Return ``w`` of (1), for ``y - A(mu)`` and the map from ``w`` to ``J^T A^T w``."""

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Instant]:
        return self.base.instants(t)

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        if len(self.measured) not in (1, len(x)):
            raise ValueError(
                f"{len(self.measured)} measurements for a batch of {len(x)} samples: give one for "
                "all, or one for each slot of a batch; scorefield.restore takes any number."
            )
        # a likelihood differentiates the result itself, everything else only needs its value
        differentiable = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            leaf = x if differentiable else x.detach().requires_grad_()
            estimate = self.base(leaf, at.prepared, **condition)
            x0, eps = estimate.x0, estimate.eps
            predicted = self.operator.forward(x0)
        if predicted.shape[0] != len(x):
            raise ValueError(
                f"the operator returns {predicted.shape[0]} measurements of {len(x)} samples: it "
                "belongs to a batch of another size."
            )

        def pull(w: Tensor) -> Tensor:
            (gradient,) = torch.autograd.grad(
                predicted, leaf, w, retain_graph=True, create_graph=differentiable
            )
            return gradient

        with torch.set_grad_enabled(differentiable):
            residual = self.observed(self.measured.to(predicted) - predicted)
            change = mix((gain(at), pull(self.weights(at, residual, pull))))
            longest = _LONGEST * self.base.data_std * x[0].numel() ** 0.5
            change = change * (longest / norm(change)).clamp(max=1.0)
            x0, eps = x0 + change, mix((1.0, eps), (-at.alpha / at.sigma, change))
        return Estimate(x, at, (x0, eps) if differentiable else (x0.detach(), eps.detach()))

    def observed(self, y: Tensor) -> Tensor:
        """Return measurements with 0 where not observed."""
        return torch.where(self.operator.observed.to(y.device), y, 0.0)


def _deviation(noise_std: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the standard deviation of the noise of measurements of a shape, float64."""
    noise = torch.as_tensor(noise_std, dtype=torch.float64)
    if not bool((noise.isfinite() & (noise >= 0)).all()):
        raise ValueError(f"noise_std={noise_std}: must be finite and at least 0.")
    own = tuple(noise.shape)
    if not broadcasts(own if len(own) <= len(shape) else own[1:], shape):
        raise ValueError(
            f"noise_std has shape {own}, and a measurement {shape}: give a number or one per entry."
        )
    return noise


class _Linear(Posterior, ABC):
    """A posterior field whose weights solve ``(s^2 + A C A^T) w = y - A mu``, sample by sample."""

    operator: LinearOperator
    linear = True

    def weights(self, at: Instant, residual: Tensor, pull: Pull) -> Tensor:
        variance = self.noise_std.to(residual) ** 2

        def system(w: Tensor) -> Tensor:
            return variance * w + self.observed(self.spread(at, w, pull))

        return solve(system, residual, self.products, _TOLERANCE)

    @property
    @abstractmethod
    def products(self) -> int:
        """The largest number of products with the system."""

    @abstractmethod
    def spread(self, at: Instant, w: Tensor, pull: Pull) -> Tensor:
        """Return ``A C A^T w``."""


class PiGDM(_Linear):
    """The field (3): pseudo-inverse guidance, for a `LinearOperator`.

    A call costs one vector-Jacobian product in addition to the call of the base field. For the
    arguments see `Posterior`.
    """

    @property
    def products(self) -> int:
        return _PRODUCTS

    def spread(self, at: Instant, w: Tensor, pull: Pull) -> Tensor:
        v = self.base.data_std**2
        r2 = at.sigma**2 * v / (at.alpha**2 * v + at.sigma**2)
        back = self.operator.adjoint(w, self.shape)
        return mix((_aligned(r2, w), self.operator.forward(back)))


class MMPS(_Linear):
    """The field (4): moment matching, with Tweedie's covariance of ``x_0`` given ``x``.

    A call costs up to ``iterations + 1`` vector-Jacobian products in addition to the call of the
    base. For the other arguments see `Posterior`.

    Args:
        iterations: of conjugate residuals, at most; as many as ``y`` has entries solve the system.

    Raises:
        ValueError: as `Posterior`; an operator that is not linear; ``iterations < 1``.
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
        check_whole(iterations=iterations)
        self.iterations = iterations

    @property
    def products(self) -> int:
        return self.iterations

    def spread(self, at: Instant, w: Tensor, pull: Pull) -> Tensor:
        return mix((_aligned(gain(at), w), self.operator.forward(pull(w))))


class DPS(Posterior):
    """The field (5): a step down the gradient of ``|y - A(mu)|``, for operators of any kind.

    Chung et al. subtract ``zeta' / |y - A(mu)| grad |y - A(mu)|^2`` from ``x`` after each of 1,000
    steps of DDPM. A score enters such a step multiplied by ``beta``, so (5) with ``zeta = zeta' /
    beta`` is the same to first order, and does not depend on the steps.

    Args:
        noise_std: accepted as by the other methods, but (5) does not use it: a noisier measurement
            needs a smaller ``zeta``.
        zeta: the strength, above 0.

    Raises:
        ValueError: as `Posterior`; ``zeta`` is not positive.
    """

    def __init__(
        self,
        base: ScoreField,
        operator: Operator,
        measured: Tensor,
        noise_std: float | Tensor = 0.0,
        *,
        zeta: float = 1.0,
    ) -> None:
        super().__init__(base, operator, measured, noise_std)
        check_positive(zeta=zeta)
        self.zeta = zeta

    def weights(self, at: Instant, residual: Tensor, pull: Pull) -> Tensor:
        return 2 * self.zeta / norm(residual) * residual


def gain(at: Instant) -> Coefficient:
    """Return ``sigma^2 / alpha`` of (2), and 0 where ``alpha = 0``."""
    alpha = at.alpha
    if isinstance(alpha, Tensor):
        return torch.where(alpha > 0, at.sigma**2 / alpha.clamp(min=_TINY), 0.0)
    return at.sigma**2 / alpha if alpha > 0 else 0.0


def _aligned(coefficient: Coefficient, y: Tensor) -> Coefficient:
    """Return a coefficient that multiplies measurements, with one value or one per sample."""
    if isinstance(coefficient, Tensor):
        return coefficient.reshape(-1, *[1] * (y.ndim - 1))
    return coefficient
