r"""Score fields: one learned or exact function behind every solver, likelihood and guidance.

A field maps a noisy ``x = alpha x_0 + sigma eps`` at time ``t`` to the posterior means of ``x_0``
and ``eps``: an `Estimate`. All other quantities are linear in it::

    score    = grad log p_t(x) = -E[eps | x] / sigma                                (1)
    v        = alpha E[eps | x] - sigma E[x_0 | x]                                  (2)
    velocity = alpha' E[x_0 | x] + sigma' E[eps | x]                                (3)

(3) is the drift ``f x - g^2 score / 2`` of the probability-flow ODE, in the form that stays finite
at ``alpha = 0``. (1) with ``x_0`` is Tweedie's formula.

If data and noise were coupled, as by optimal transport, both posterior means and (3) still hold:
the ODE carries the noise to the data. (1) does not, because it needs noise that is independent of
the data. Such a field has a velocity and no score (`ScoreField.has_score`).

Coefficients that depend on the time alone are computed before the call, as an `Instant`, for all
the times of a grid at once.

Reference: Robbins (1956); Efron (2011), Tweedie's formula; Song et al. (2021), arXiv:2011.13456.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.process import (
    Coefficient,
    Process,
    Time,
    align,
    check_instance,
    check_one_level,
    mix,
    unstack,
)

Shape = tuple[int, ...]
Pair = tuple[Coefficient, Coefficient]


@dataclass(frozen=True)
class Instant:
    """A time, with all that a process and a field derive from the time alone.

    Attributes:
        process: the process whose time it is.
        t: the time, in the form `scorefield.process.align` returns.
        alpha, sigma: the coefficients at ``t``.
        prepared: this time's item of `ScoreField.prepare_times`, which only that field reads.
        has_score: `ScoreField.has_score` of that field.
    """

    process: Process
    t: Tensor
    alpha: Coefficient
    sigma: Coefficient
    prepared: Any = None
    has_score: bool = True

    @classmethod
    def of(cls, process: Process, t: Time, x: Tensor) -> Instant:
        """Return the instant of a process at a time for the batch ``x``, times as in `align`."""
        t = process.lift(align(t, x)[None])
        alpha, sigma = (unstack(c)[0] for c in process.coefficients(t))
        return cls(process, t[0], alpha, sigma)


class Estimate(NamedTuple):
    """The posterior means of data and noise, for ``x`` at one time.

    Both are stored as linear combinations of the values that the field computed, so that neither
    loses digits at small ``alpha`` or ``sigma``::

        x0 = p u + q w,    eps = p' u + q' w                                        (4)

    Attributes:
        x: the input of the field, ``(B, ...)``; it equals ``alpha x0 + sigma eps``.
        at: the time.
        basis: ``(u, w)`` of (4), like ``x``.
        of_x0, of_eps: ``(p, q)`` and ``(p', q')`` of (4).
        own_score: the score of a field that computes it apart, where (1) does not hold; or None.
    """

    x: Tensor
    at: Instant
    basis: tuple[Tensor, Tensor]
    of_x0: Pair = (1.0, 0.0)
    of_eps: Pair = (0.0, 1.0)
    own_score: Tensor | None = None

    @classmethod
    def from_x0(cls, x: Tensor, at: Instant, x0: Tensor) -> Estimate:
        """Complete an estimate of the data: ``eps = (x - alpha x0) / sigma``."""
        return cls(x, at, (x, x0), (0.0, 1.0), (1 / at.sigma, -at.alpha / at.sigma))

    @classmethod
    def from_eps(cls, x: Tensor, at: Instant, eps: Tensor) -> Estimate:
        """Complete an estimate of the noise: ``x0 = (x - sigma eps) / alpha``.

        Raises:
            ValueError: ``alpha = 0``, where the noise does not determine the data.
        """
        _check_signal(at)
        return cls(x, at, (x, eps), (1 / at.alpha, -at.sigma / at.alpha), (0.0, 1.0))

    @classmethod
    def from_score(cls, x: Tensor, at: Instant, score: Tensor) -> Estimate:
        """Complete an estimate of ``grad log p_t(x)``, by (1).

        Raises:
            ValueError: ``alpha = 0``, where the score does not determine the data.
        """
        _check_signal(at)
        of_x0 = (1 / at.alpha, at.sigma**2 / at.alpha)
        return cls(x, at, (x, score), of_x0, (0.0, -at.sigma))

    @classmethod
    def from_velocity(cls, x: Tensor, at: Instant, velocity: Tensor) -> Estimate:
        """Complete an estimate of (3), the time derivative along the probability-flow ODE."""
        alpha_rate, sigma_rate = _rates(at)
        det = at.alpha * sigma_rate - at.sigma * alpha_rate
        of_x0 = (sigma_rate / det, -at.sigma / det)
        return cls(x, at, (x, velocity), of_x0, (-alpha_rate / det, at.alpha / det))

    @property
    def t(self) -> Tensor:
        """The time, in the form `scorefield.process.align` returns."""
        return self.at.t

    @property
    def x0(self) -> Tensor:
        """``E[x_0 | x]``; on a space, the end of the geodesic along the score."""
        x0, space = mix(*zip(self.of_x0, self.basis, strict=True)), self.at.process.space
        return x0 if space is None else space.exp(self.x, x0 - self.x)

    @property
    def eps(self) -> Tensor:
        """``E[eps | x]``."""
        return mix(*zip(self.of_eps, self.basis, strict=True))

    @property
    def score(self) -> Tensor:
        """``grad log p_t(x)``, by (1).

        Raises:
            ValueError: the field has no score.
        """
        if self.own_score is not None:
            return self.own_score
        if not self.at.has_score:
            raise ValueError(f"Estimate.score: {NO_SCORE}; use velocity, x0 or eps.")
        return self.combine(0.0, -1 / self.at.sigma)

    @property
    def v(self) -> Tensor:
        """``alpha eps - sigma x0``, by (2)."""
        return self.combine(-self.at.sigma, self.at.alpha)

    @property
    def velocity(self) -> Tensor:
        """``dx/dt`` of the probability-flow ODE, by (3)."""
        return self.combine(*_rates(self.at))

    def combine(self, of_x0: Coefficient, of_eps: Coefficient) -> Tensor:
        """Return ``of_x0 x0 + of_eps eps``, in one pass over ``u`` and ``w``."""
        one, two = self.weights(of_x0, of_eps)
        return mix((one, self.basis[0]), (two, self.basis[1]))

    def where(self, mask: Tensor, other: Estimate) -> Estimate:
        """Return this estimate for the samples in ``mask`` ``(B, 1, ...)``, another for the rest.

        Both must have a time per sample.
        """

        def choose(one: Any, two: Any) -> Any:
            if isinstance(one, float) and one == two:
                return one
            like = one if isinstance(one, Tensor) else two
            return torch.where(mask.to(like.device) if isinstance(like, Tensor) else mask, one, two)

        a, b = self.at, other.at
        t, alpha, sigma = map(choose, (a.t, a.alpha, a.sigma), (b.t, b.alpha, b.sigma))
        at = Instant(a.process, t, alpha, sigma, has_score=a.has_score)
        u, w = map(choose, self.basis, other.basis)
        p, q = map(choose, self.of_x0, other.of_x0)
        p_eps, q_eps = map(choose, self.of_eps, other.of_eps)
        return Estimate(choose(self.x, other.x), at, (u, w), (p, q), (p_eps, q_eps))

    def parts(self, states: Sequence[Tensor], instants: Sequence[Instant]) -> list[Estimate]:
        """Return the estimates of the batches ``(B, ...)`` that are stacked in ``x``, in order."""
        count = len(states)

        def split(value: Any) -> Sequence[Any]:
            stacked = isinstance(value, Tensor) and value.ndim > 0
            return value.chunk(count) if stacked else [value] * count

        u = states if self.basis[0] is self.x else split(self.basis[0])
        coefficients = (split(c) for c in (*self.of_x0, *self.of_eps))
        rows = zip(states, instants, u, split(self.basis[1]), *coefficients, strict=True)
        return [Estimate(x, at, (v, w), (p, q), (r, s)) for x, at, v, w, p, q, r, s in rows]

    def weights(self, of_x0: Coefficient, of_eps: Coefficient) -> Pair:
        """Return the coefficients of ``u`` and ``w`` in ``of_x0 x0 + of_eps eps``."""
        (p, q), (p_eps, q_eps) = self.of_x0, self.of_eps
        return of_x0 * p + of_eps * p_eps, of_x0 * q + of_eps * q_eps


def _rates(at: Instant) -> Pair:
    alpha_rate, sigma_rate = (unstack(rate[None])[0] for rate in at.process.rates(at.t))
    return alpha_rate, sigma_rate


def _check_signal(at: Instant) -> None:
    alpha = at.alpha
    if isinstance(alpha, Tensor) and (not alpha.is_cpu or torch.compiler.is_compiling()):
        return  # a look would wait for the device
    if bool((torch.as_tensor(alpha) == 0).any()):
        raise ValueError(
            f"alpha = 0 at t = {float(at.t.max()):g}, where noise and score do not determine "
            "the data: estimate x0, v or the velocity there, or end the process before it."
        )


class ScoreField(nn.Module, ABC):
    """Posterior means of data and noise, for samples of one shape under one process.

    A subclass writes `estimate`. Call the field itself: ``field(x, t)``.

    Args:
        process: the forward process whose noise the field removes.
        shape: the shape of one sample.
        mean, variance: the data's moments, one number or one per coordinate; generation starts from
            `Process.prior` of them. The defaults are those of standardised data.

    Attributes:
        rows: the number of samples that its bound conditions are for; 1 if they are for any.
        coupled: its data and noise were coupled, as by optimal transport; see `has_score`.
    """

    rows = 1
    coupled: bool = False

    def __init__(
        self,
        process: Process,
        shape: Shape,
        mean: float | Tensor = 0.0,
        variance: float | Tensor = 1.0,
    ) -> None:
        check_instance("process", process, Process, "one such as VP()")
        if not isinstance(shape, tuple | list):
            raise ValueError(f"shape={shape!r}: must be a tuple, such as (2,) or (3, 32, 32).")
        if process.coordinates and process.coordinates != tuple(shape):
            raise ValueError(
                f"shape={tuple(shape)}: {process!r} has one noise level for each coordinate of "
                f"samples of shape {process.coordinates}."
            )
        super().__init__()
        self.process = process
        self.shape = tuple(shape)
        self.mean = mean
        self.variance = variance

    @abstractmethod
    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        """Return the estimate for ``x`` ``(B, *shape)`` at an instant of this field."""

    def instants(self, t: Tensor) -> list[Instant]:
        """Return the instants of times ``(N, ...)``, each in the form `align` returns.

        A call of the field takes any of them as its time, with its coefficients already computed.

        Raises:
            ValueError: a time lies outside ``[t_min, t_max]``. Times on a device are not looked at,
                which would wait for it.
        """
        process = self.process
        if t.is_cpu and not torch.compiler.is_compiling() and not process.contains(t):
            outside = float(t.min() if bool(t.min() < process.t_min) else t.max())
            raise ValueError(
                f"a call of the field at t = {outside}, outside [{process.t_min}, {process.t_max}] "
                f"of {process!r}. Only a solver that makes no call at the end of a step, such as "
                "DDIM, can go to a time beyond."
            )
        t = t.clamp(process.t_min, process.t_max)
        t = process.lift(t) if process.coordinates else t
        alpha, sigma = process.alpha(t), process.sigma(t)
        prepared = self.prepare_times(t, alpha, sigma) or [None] * len(t)
        rows = zip(t.unbind(), unstack(alpha), unstack(sigma), prepared, strict=True)
        # a compiler does not enter the lock of a cached property
        has_score = self._has_score() if torch.compiler.is_compiling() else self.has_score
        return [Instant(process, *row, has_score) for row in rows]

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Any] | None:
        """Compute what `estimate` needs at the times ``(N, ...)``: one `Instant.prepared` each.

        A hook for coefficients that depend on the time alone; solvers call it once for a whole
        grid. A field whose `estimate` needs none leaves it as it is.

        Args:
            alpha, sigma: the coefficients at ``t``, of its shape.
        """
        return None

    def forward(self, x: Tensor, t: Time | Instant, **condition: Any) -> Estimate:
        """Return the estimate for ``x`` ``(B, *shape)`` at ``t``: a number, ``()`` or ``(B,)``.

        Raises:
            ValueError: a sample does not have the field's shape, or ``t`` does not fit ``x``.
        """
        if isinstance(t, Instant):
            if t.prepared is None and type(self).prepare_times is not ScoreField.prepare_times:
                t = self.instants(t.t[None])[0]  # it is of a field that wraps this one
            return self.estimate(x, t, **condition)
        check_instance("x", x, Tensor, "torch.as_tensor(x)")
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: this field takes batches of samples of shape "
                f"{self.shape}."
            )
        return self.estimate(x, self.instants(align(t, x)[None])[0], **condition)

    @property
    def stackable(self) -> bool:
        """Whether a call may have several batches in its rows, each at a time of its own.

        Not where anything but bound conditions is of the samples of one batch.
        """
        return True

    def at_once(self, states: Sequence[Tensor], instants: Sequence[Instant]) -> list[Estimate]:
        """Return the estimates of batches ``(B, *shape)``, each at its instant.

        They are one call of a larger batch if the field is `stackable`, else one call for each.
        """
        if not self.stackable or len(states) == 1:
            return [self(x, at) for x, at in zip(states, instants, strict=True)]
        x, count = torch.cat(list(states)), len(states[0])
        shape = count, *[1] * (x.ndim - 1)
        times = torch.cat([at.t.expand(shape) for at in instants])
        own = self if self.rows == 1 else self.take([*range(count)] * len(states), count)
        estimate: Estimate = own(x, own.instants(times[None])[0])
        return estimate.parts(states, instants)

    @property
    def has_density(self) -> bool:
        """Whether likelihoods mean something: the scores are those of one distribution, noised."""
        return all(part.has_density for part in self._parts())

    def _has_score(self) -> bool:
        """Whether noise is independent of the data, so that (1) is the score of noised data.

        Otherwise the field has a velocity only: solvers of the ODE, latent codes and likelihoods
        take it, and whatever adds noise or sums scores raises an error.
        """
        return not self.coupled and all(part._has_score() for part in self._parts())

    has_score = cached_property(_has_score)

    @cached_property
    def between_data(self) -> bool:
        """Whether the noise end is a second data set, which `scorefield.translate` starts from."""
        return any(part.between_data for part in self._parts())

    @cached_property
    def bridge(self) -> float:
        """The diffusion of the Brownian bridges between two data sets; 0 without noise."""
        return max((part.bridge for part in self._parts()), default=0.0)

    def _parts(self) -> list[ScoreField]:
        """Return the fields that this one is made of."""
        children = [
            part
            for child in self._modules.values()
            for part in (child if isinstance(child, nn.ModuleList) else (child,))
        ]
        return [part for part in children if isinstance(part, ScoreField)]

    @property
    def data_std(self) -> float:
        """The data's root-mean-square deviation."""
        return float(torch.as_tensor(self.variance, dtype=torch.float64).mean().sqrt())

    @property
    def origin(self) -> ScoreField:
        """The field of which `under` or `condition_on` made this view, or the field itself."""
        return self

    def under(self, process: Process) -> ScoreField:
        """Return the same field for data noised by another process.

        ``x`` is rescaled and the clock changed so that the signal-to-noise ratio is the same.

        Raises:
            ValueError: ``process`` reaches noise levels outside this field's own.
        """
        check_instance("process", process, Process, "one such as VP()")
        check_flat("under", self)
        return _Under(self, process)

    def condition_on(self, **condition: Any) -> ScoreField:
        """Return the field with conditions bound once.

        A condition is a number, such as ``y=3``, or a tensor with one row for all samples, or a row
        for each: of the samples of a whole `scorefield.sample`, `scorefield.log_prob` or
        `scorefield.encode`, in their order, or of a call of the field.
        """
        return _Conditioned(self, condition)

    def take(self, items: Sequence[int] | Tensor, count: int) -> ScoreField:
        """Return the field for some of ``count`` samples, by their places.

        Bound conditions with a row for each sample are given these rows.

        Raises:
            ValueError: a condition with another number of rows than ``count``, or one.
        """
        modules = {name: _of_samples(child, items, count) for name, child in self._modules.items()}
        if all(child is self._modules[name] for name, child in modules.items()):
            return self
        result = copy.copy(self)
        result._modules, result.rows = modules, len(items)
        return result


NO_SCORE = (
    "this field has no score, because its data and noise were coupled in training, and a velocity "
    "alone does not determine one"
)


def check_score(name: str, *fields: ScoreField) -> None:
    """Reject fields without a score of vectors, for ``name``, which needs one."""
    for field in fields:
        check_starts_at_noise(field)
        check_flat(name, field)
    if not all(field.has_score for field in fields):
        raise ValueError(
            f"field: {name} needs a score, and {NO_SCORE}. Train with coupling='independent', or "
            "use solvers of the ODE."
        )


def check_flat(name: str, field: ScoreField) -> None:
    """Reject a field on a space, for ``name``, which needs vectors."""
    if field.process.space is not None:
        raise ValueError(
            f"field: {name} adds vectors, and this field is on {field.process.space}, where points "
            "do not add. Use sample, integrate, encode, decode or log_prob."
        )


def check_starts_at_noise(field: ScoreField) -> None:
    """Reject a field between two data sets, which has no Gaussian to start from."""
    if field.between_data:
        raise ValueError(
            "the field goes between two data sets, and has no Gaussian noise to start from; use "
            "translate."
        )


class _Under(ScoreField):
    def __init__(self, base: ScoreField, process: Process) -> None:
        for one in (base.process, process):
            check_one_level("under", one)
        ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
        try:
            base.process.time(process.half_log_snr(ends))
        except ValueError as error:
            raise ValueError(
                f"{process!r} reaches noise levels that {base.process!r} does not: {error} "
                "Narrow t_min and t_max of the new process."
            ) from None
        super().__init__(process, base.shape, base.mean, base.variance)
        self.base, self.rows = base, base.rows

    @property
    def origin(self) -> ScoreField:
        return self.base.origin

    @property
    def stackable(self) -> bool:
        return self.base.stackable

    def prepare_times(
        self, t: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Sequence[tuple[Coefficient, Instant]]:
        t_inner = self.base.process.time(self.process.half_log_snr(t))
        a, b = self.base.process.coefficients(t_inner)
        scale = ((a**2 + b**2) / (alpha**2 + sigma**2)).sqrt()
        return list(zip(unstack(scale), self.base.instants(t_inner), strict=True))

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        scale, instant = at.prepared
        scaled = mix((scale, x))
        estimate = self.base(scaled, instant, **condition)
        if estimate.basis[0] is not scaled:
            return Estimate(x, at, estimate.basis, estimate.of_x0, estimate.of_eps)
        (p, q), (p_eps, q_eps) = estimate.of_x0, estimate.of_eps
        return Estimate(x, at, (x, estimate.basis[1]), (scale * p, q), (scale * p_eps, q_eps))


class FieldWrapper(ScoreField):
    """A field that changes the estimates of another, with its process, shape and moments.

    The base class of guidance. A subclass writes `estimate`, and calls the other field in it by
    ``self.base(x, at.prepared, **condition)``.
    """

    def __init__(self, base: ScoreField) -> None:
        check_instance("base", base, ScoreField, "a field, such as run.field")
        super().__init__(base.process, base.shape, base.mean, base.variance)
        self.base, self.rows = base, base.rows

    @property
    def stackable(self) -> bool:
        return self.base.stackable

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Any]:
        return self.base.instants(t)


def _of_samples(module: nn.Module | None, items: Sequence[int] | Tensor, count: int) -> Any:
    """Return a field, or a list of fields, for some of the samples; any other module as it is."""
    if isinstance(module, ScoreField):
        return module.take(items, count)
    if isinstance(module, nn.ModuleList):
        parts = [_of_samples(child, items, count) for child in module]
        if any(new is not child for new, child in zip(parts, module, strict=True)):
            return nn.ModuleList(parts)
    return module


class _Conditioned(FieldWrapper):
    def __init__(self, base: ScoreField, condition: dict[str, Any]) -> None:
        super().__init__(base)
        self.condition = condition
        rows = [len(v) for v in condition.values() if isinstance(v, Tensor) and v.ndim]
        self.rows = max([base.rows, *rows])

    def take(self, items: Sequence[int] | Tensor, count: int) -> ScoreField:
        rows = {name: _take(name, value, items, count) for name, value in self.condition.items()}
        base = self.base.take(items, count)
        if base is self.base and all(rows[name] is v for name, v in self.condition.items()):
            return self
        result = copy.copy(self)  # with the hooks of this one
        result._modules, result.condition = {**self._modules, "base": base}, rows
        result.rows = len(items)
        return result

    @property
    def origin(self) -> ScoreField:
        return self.base.origin

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        every = {**self.condition, **condition}
        for name, value in every.items():
            if isinstance(value, int | float):
                every[name] = torch.full((), value, device=x.device)  # without a copy
        estimate: Estimate = self.base(x, at.prepared, **every)
        return estimate


def _take(name: str, value: Any, items: Sequence[int] | Tensor, count: int) -> Any:
    if not isinstance(value, Tensor) or not value.ndim or len(value) == 1:
        return value
    if len(value) != count:
        raise ValueError(
            f"the condition {name} has {len(value)} rows for {count} samples: give one for all, or "
            "one for each."
        )
    return value[items]
