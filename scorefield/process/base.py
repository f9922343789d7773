r"""Forward processes: how data is destroyed.

A process noises data linearly, with time ``t`` in ``[t_min, t_max]`` growing with the noise::

    x_t = alpha(t) x_0 + sigma(t) eps,    eps ~ N(0, I)                            (1)

``alpha`` and ``sigma`` are all that is written. Everything else is derived::

    dx = f(t) x dt + g(t) dw                                                        (2)
    f = alpha' / alpha,    g^2 = 2 sigma sigma' - 2 f sigma^2                       (3)
    lambda(t) = log(alpha / sigma)                    half the log-signal-to-noise  (4)
    x_s = (alpha_s / alpha_t) x_t + sigma_s sqrt(1 - e^{2 (lambda_s - lambda_t)}) eps,  s > t   (5)

A process may have one value of ``alpha`` and ``sigma`` for each coordinate, `Process.coordinates`.
Then (1) to (3) and (5) hold in each, and (4) is a clock: of the root mean squares of both.

Coefficients are computed in float64 whatever the data's type, and a time is either 0-dimensional
(one noise level for the batch) or one value per sample; `align` is the only place that broadcasts.
Times that scorefield makes are on the CPU, whatever the device of the data: some devices have no
float64, and a value on another one costs a wait.

Reference: Song et al. (2021), arXiv:2011.13456; Kingma et al. (2021), arXiv:2107.00630.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

Time = float | Tensor
Coefficient = float | Tensor

# How far outside [t_min, t_max] a time may stray, relative to the end: single precision's rounding.
_SLACK = 1e-7
_PROBES = 257
_LARGEST = (
    1e30  # size of a parameter, so that float32 holds its square root and products in float64
)
_ZERO = torch.zeros(())


def wrong_kind(name: str, value: object, kind: type, example: str) -> ValueError:
    """Return the error for an argument that is a class, or of another kind than it must be."""
    if isinstance(value, type):
        kind_name = value.__name__
        return ValueError(f"{name}={kind_name}: must be an instance; write {kind_name}(...).")
    text = f"{value!r}"
    if len(text) >= 60 or "\n" in text:
        text = f"{type(value).__name__}(...)"
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return ValueError(f"{name}={text}: must be {article} {kind.__name__}; write {example}.")


def check_instance(name: str, value: object, kind: type, example: str) -> None:
    """Raise `wrong_kind` if an argument is not an instance of a class."""
    if not isinstance(value, kind):
        raise wrong_kind(name, value, kind, example)


def widest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for a device without it, such as mps."""
    if device.type in ("cpu", "cuda"):
        return torch.float64
    try:
        return torch.empty(0, dtype=torch.float64, device=device).dtype
    except (RuntimeError, TypeError):
        return torch.float32


def wide(x: Tensor) -> Tensor:
    """Return ``x`` in float64, on the CPU if its own device has no float64."""
    return x.double() if widest(x.device) is torch.float64 else x.cpu().double()


def align(t: Time, x: Tensor) -> Tensor:
    """Return ``t`` in float64, shaped to broadcast against the batch ``x``.

    A number or 0-dimensional tensor stays 0-dimensional: it takes part in arithmetic without
    changing the type of ``x`` and launches no kernel. A tensor of shape ``(B,)`` becomes
    ``(B, 1, ..., 1)``; one that already has ``x.ndim`` dimensions is kept, also ``(1, ..., 1)``.

    Raises:
        ValueError: the shape of ``t`` fits neither one time nor one time per sample.
    """
    t = wide(t) if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
    if t.ndim == 0:
        return t
    if t.shape == x.shape[:1]:
        return t.reshape(-1, *[1] * (x.ndim - 1))
    if t.ndim == x.ndim and t.numel() == t.shape[0] and t.shape[0] in (1, x.shape[0]):
        return t
    raise ValueError(
        f"t has shape {tuple(t.shape)} but x has shape {tuple(x.shape)}: "
        f"give one time, or one per sample as a tensor of shape ({x.shape[0]},)."
    )


def cast(coefficient: Tensor, x: Tensor) -> Tensor:
    """Return a float64 coefficient in a form that multiplies ``x`` without promoting it."""
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.to(x.device, x.dtype, non_blocking=True)


def check_one_level(name: str, process: Process) -> None:
    """Reject a process with one noise level per coordinate, for ``name``."""
    if process.coordinates:
        raise ValueError(
            f"{name}: needs one noise level for all coordinates, and {process!r} has one for each."
        )


def unstack(coefficients: Tensor) -> list[Coefficient]:
    """Return the coefficients of ``N`` times, from a tensor ``(N, ...)``.

    Numbers where a time is one for the batch: they take part in arithmetic as kernel arguments,
    without a copy to the device. Tensors in the form of `align` where it is one per sample.
    """
    if coefficients.ndim == 1 and not torch.compiler.is_compiling():
        numbers: list[float] = coefficients.tolist()
        return list(numbers)
    return list(coefficients.unbind())


def mix(*terms: tuple[Coefficient, Tensor]) -> Tensor:
    """Return the sum of coefficient times tensor, of the type of the tensors, at least one.

    A term whose coefficient is the number 0 is left out; the number 1 alone returns its tensor.
    """
    total: Tensor | None = None
    for coefficient, x in terms:
        if isinstance(coefficient, (float, int)):
            if coefficient == 0:
                continue
            if total is not None:
                total = torch.add(total, x, alpha=coefficient)
            elif coefficient == 1:
                total = x
            else:  # an addition costs the host half as much as a product
                compiling = torch.compiler.is_compiling()
                total = coefficient * x if compiling else torch.add(_ZERO, x, alpha=coefficient)
        else:
            weight = cast(coefficient, x)
            total = weight * x if total is None else torch.addcmul(total, weight, x)
    return torch.zeros_like(terms[0][1]) if total is None else total


@dataclass(frozen=True)
class Prior:
    """The Gaussian ``N(mean, std^2)`` a generation starts from, coordinates independent.

    ``mean`` and ``std`` broadcast against samples ``(B, ...)``.
    """

    mean: Tensor
    std: Tensor

    def draw(self, eps: Tensor) -> Tensor:
        """Return prior samples made from standard normal ``eps`` of shape ``(B, ...)``."""
        return self.mean.to(eps) + self.std.to(eps) * eps

    def raw(self, z: Tensor) -> Tensor:
        """Return the point of a code in standard units."""
        v = wide(z)
        return (self.mean.to(v) + self.std.to(v) * v).to(z)

    def standard(self, x: Tensor) -> Tensor:
        """Return the inverse of `raw`."""
        v = wide(x)
        return ((v - self.mean.to(v)) / self.std.to(v)).to(x)

    def trace(self, r: float) -> float:
        """Return minus ``r^2`` times the divergence of the score."""
        return float((r / self.std).square().sum())

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of each sample of ``x`` ``(B, ...)``, in nats, shape ``(B,)``."""
        z = (x - self.mean.to(x)) / self.std.to(x)
        log_std = self.std.log().to(x).expand(x.shape)
        per_coordinate = -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)
        return per_coordinate.reshape(x.shape[0], -1).sum(1)


def total(terms: Tensor) -> Tensor:
    """Return the sum over the last dimension, in the same order however many steps there are.

    So a step has the same bits alone and in a grid; `Tensor.sum` adds up as its shape suits it.
    """
    return terms.cumsum(-1)[..., -1]


def polynomial(coefficients: Tensor, x: Tensor) -> Tensor:
    """Return ``sum_n c_n x^n`` for coefficients ``(..., N)``, N >= 2, and ``x`` ``(...)``."""
    powers = [torch.ones_like(x), x]
    for n in range(2, coefficients.shape[-1]):
        powers.append(powers[n // 2] * powers[n - n // 2])
    return total(coefficients * torch.stack(powers, -1))


class Process(ABC):
    """A linear forward process. A subclass needs `alpha` and `sigma` and nothing else::

        class Trigonometric(sf.Process):
            def alpha(self, t):
                return torch.cos(torch.pi / 2 * t)

            def sigma(self, t):
                return torch.sin(torch.pi / 2 * t)

    Both take a tensor of any shape and return one of that shape, by torch operations, which `rates`
    differentiates. A process with parameters is a frozen dataclass; give it the fields ``t_min``
    and ``t_max`` if they are parameters too.

    Attributes:
        t_min, t_max: the interval of time. The default, like that of `Flow`, stops short of 0 and
            1, where ``sigma`` or ``alpha`` of many processes is 0 and a difference of nearly equal
            numbers has lost its digits.
        t_origin: the time at which `t_data` looks for the data.
        space: the `scorefield.spaces.Space` of the samples; None for vectors.
        coordinates: the shape of one sample, for a process with one value of ``alpha`` and
            ``sigma`` for each coordinate. They then take a time ``()`` or ``(..., 1, ..., 1)``, as
            many ones as coordinates have dimensions, and return that with ``coordinates`` in the
            place of the ones.

    Raises:
        ValueError: on construction, if the interval is empty, a coefficient is not a finite tensor
            of the right shape, the noise is not positive, or the log-signal-to-noise ratio does
            not fall strictly. Where ``alpha(t_max) = 0``, the reverse SDE has no coefficients at
            ``t_max``; the probability-flow ODE has.
    """

    t_min: float = 1e-3
    t_max: float = 0.999
    t_origin: ClassVar[float] = 0.0
    space: Any = None
    coordinates: tuple[int, ...] = ()

    def __init__(self, *, t_min: float | None = None, t_max: float | None = None) -> None:
        for name, value in (("t_min", t_min), ("t_max", t_max)):
            if value is not None:
                object.__setattr__(self, name, value)
        self.__post_init__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(t_min={self.t_min:g}, t_max={self.t_max:g})"

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if isinstance(number, int | float) and abs(number) > _LARGEST:
                raise ValueError(f"{name}={number!r}: must be a number up to {_LARGEST:g} in size.")
        if not (math.isfinite(self.t_min) and self.t_min < self.t_max < math.inf):
            raise ValueError(
                f"{self!r}: t_min = {self.t_min:g} and t_max = {self.t_max:g} enclose no time: "
                "give t_min < t_max."
            )
        t = torch.linspace(self.t_min, self.t_max, _PROBES, dtype=torch.float64)
        lifted = self.lift(t)
        shape = (_PROBES, 1, *self.coordinates) if self.coordinates else t.shape
        for coefficient in (self.alpha, self.sigma):
            try:
                value: object = coefficient(lifted)
            except (ArithmeticError, RuntimeError, ValueError) as error:
                raise ValueError(f"{self!r}: {coefficient.__name__}(t): {error}.") from None
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ValueError(
                    f"{self!r}: {coefficient.__name__}(t) must be a tensor of the shape of t, made "
                    "by torch operations. For one value per coordinate set `coordinates`."
                )
        alpha, sigma = self.coefficients(lifted)
        bad = ~(alpha.isfinite() & sigma.isfinite() & (alpha >= 0) & (sigma > 0))
        if bad.any():
            k = int(bad.nonzero()[0][0])
            raise ValueError(
                f"{self!r}: alpha({t[k]:g}) = {alpha[bad][0]:g} and sigma({t[k]:g}) = "
                f"{sigma[bad][0]:g}: needs finite alpha >= 0 and sigma > 0 on [t_min, t_max]."
            )
        each = (alpha.log() - sigma.log()).reshape(_PROBES, -1)
        rises = ~(torch.cat([each, self.half_log_snr(t)[:, None]], 1).diff(dim=0) < 0)
        if rises.any():
            k = int(rises.nonzero()[0][0])
            raise ValueError(
                f"{self!r}: log(alpha/sigma) does not fall between t = {t[k]:g} and {t[k + 1]:g}: "
                "noise must grow with time."
            )

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return the mean coefficient of (1), with the shape and type of ``t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the standard deviation of (1), with the shape and type of ``t``."""

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``alpha(t)`` and ``sigma(t)``."""
        return self.alpha(t), self.sigma(t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        """Return ``lambda(t)`` of (4): strictly decreasing, ``-inf`` where ``alpha = 0``."""
        if self.coordinates:
            alpha, sigma = (
                c.reshape(t.numel(), -1).square().mean(1).sqrt().reshape(t.shape)
                for c in self.coefficients(self.lift(t.reshape(-1)))
            )
            return alpha.log() - sigma.log()
        return self.alpha(t).log() - self.sigma(t).log()

    def lift(self, t: Tensor) -> Tensor:
        """Return times ``(N,)`` in a shape that broadcasts with coefficients of each coordinate.

        That is ``(N, 1, 1, ..., 1)``: of a batch of one. Other times, and all those of a process
        with one value for all coordinates, are returned as they are.
        """
        if not self.coordinates or t.ndim != 1:
            return t
        return t.reshape(-1, 1, *[1] * len(self.coordinates))

    @cached_property
    def half_log_snr_range(self) -> tuple[float, float]:
        """``lambda`` of (4) at ``t_max`` and at ``t_min``."""
        ends = torch.tensor([self.t_max, self.t_min], dtype=torch.float64)
        low, high = self.half_log_snr(ends).tolist()
        return low, high

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the time derivatives ``alpha'(t)`` and ``sigma'(t)``, by autodiff."""
        return _with_rate(self.alpha, t)[1], _with_rate(self.sigma, t)[1]

    def drift(self, t: Tensor) -> Tensor:
        """Return ``f(t)`` of (2)."""
        return self.rates(t)[0] / self.alpha(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """Return ``g(t) >= 0`` of (2)."""
        alpha, sigma = self.coefficients(t)
        alpha_rate, sigma_rate = self.rates(t)
        squared = 2 * sigma * (sigma_rate - alpha_rate / alpha * sigma)
        return squared.clamp(min=0.0).sqrt()

    def time(self, half_log_snr: Tensor) -> Tensor:
        """Return the time at which `half_log_snr` has the given value: its inverse.

        Values a rounding error outside the range give the nearest end.

        Raises:
            ValueError: a value lies outside ``[half_log_snr(t_max), half_log_snr(t_min)]``.
        """
        target = torch.as_tensor(half_log_snr, dtype=torch.float64)
        low, high = self.half_log_snr_range
        slack = 1e-6
        outside = (target < low - slack) | (target > high + slack)
        if outside.any():
            worst = target[outside].flatten()[0].item()
            raise ValueError(
                f"half_log_snr = {worst:g} is outside [{low:g}, {high:g}], "
                f"the range of {self!r} on [{self.t_min:g}, {self.t_max:g}]."
            )
        t = self.time_at(target).clamp(self.t_min, self.t_max)
        t = torch.where(target <= low, self.t_max, t)
        return torch.where(target >= high, self.t_min, t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time inside the range, for `time`: a hook for processes with a closed form."""
        return _invert(self.half_log_snr, half_log_snr, self.t_min, self.t_max)

    def contains(self, t: Tensor) -> bool:
        """Return whether every time lies in ``[t_min, t_max]``, up to rounding."""
        low, high = self.t_min - _SLACK * abs(self.t_min), self.t_max + _SLACK * abs(self.t_max)
        return bool(((t >= low) & (t <= high)).all())

    @property
    def t_data(self) -> float | None:
        """The time before ``t_min`` at which ``x`` is the data: ``alpha = 1`` and ``sigma = 0``.

        No field knows it, but the last step of a run may end there, if it makes no call at its end.
        None where ``alpha`` and ``sigma`` cannot be continued so far.
        """
        try:
            alpha, sigma = self.coefficients(torch.tensor(self.t_origin, dtype=torch.float64))
        except (ArithmeticError, RuntimeError, ValueError):
            return None
        at_data = bool(((alpha - 1).abs() < 1e-12).all()) and bool((sigma == 0).all())
        return self.t_origin if at_data else None

    def perturb(self, x0: Tensor, t: Time, eps: Tensor) -> Tensor:
        """Return ``x_t`` of (1) for data ``x0`` ``(B, ...)``, times as in `align`, and noise."""
        t = align(t, x0)
        noise = cast(self.sigma(t), x0) * eps
        return (
            cast(self.alpha(t), x0) * x0 + noise
            if self.space is None
            else self.space.exp(x0, noise)
        )

    def noise(self, x0: Tensor, t: Time, noise: Any) -> tuple[Tensor, Any]:
        """Draw the ``eps`` of `perturb` from a `scorefield.Noise`, and return what follows it.

        It is standard normal; on a space, Brownian motion's displacement over ``sigma``.
        """
        if self.space is None:
            eps, noise = noise.normal(x0)
            return eps, noise
        sigma = self.sigma(align(t, x0))
        v, noise = self.space.heat_step(x0, sigma.flatten() ** 2, noise)
        return v / cast(sigma, x0), noise

    def target_noise(self, x0: Tensor, x: Tensor, t: Time, eps: Tensor) -> Tensor:
        """Return ``-sigma grad log p(x | x0)`` for the result ``x`` of `perturb`: ``eps`` itself.

        On a space it is a tangent vector at ``x``, by the heat kernel.
        """
        if self.space is None:
            return eps
        sigma = self.sigma(align(t, x0))
        score = self.space.heat_kernel(x, x0, sigma.flatten() ** 2).score
        target: Tensor = -cast(sigma, x0) * score
        return target

    def diffuse(self, x: Tensor, t: Time, s: Time, eps: Tensor) -> Tensor:
        """Move ``x`` from time ``t`` to the noisier ``s`` by the exact two-time kernel (5).

        Raises:
            ValueError: some ``s`` is earlier than ``t``.
        """
        t, s = align(t, x), align(s, x)
        if (s < t).any():
            raise ValueError(
                f"diffuse goes towards noise, but s = {float(s.min()):g} is before "
                f"t = {float(t.max()):g}: give s >= t, or step a solver to go towards data."
            )
        keep = self.alpha(s) / self.alpha(t)
        return cast(keep, x) * x + cast(self.kernel_std(t, s), x) * eps

    def kernel_std(self, t: Tensor, s: Tensor) -> Tensor:
        """Return the standard deviation of ``x_s`` given ``x_t``, ``s >= t``: the root in (5)."""
        gain = (self.alpha(s).log() - self.sigma(s).log()) - (
            self.alpha(t).log() - self.sigma(t).log()
        )
        return self.sigma(s) * (-torch.expm1(2 * gain)).sqrt()

    def prior(self, mean: Time = 0.0, variance: Time = 1.0, t: Time | None = None) -> Any:
        """Return the Gaussian that data with this mean and variance has become at ``t``.

        ``mean`` and ``variance`` are the data's, one number or one per coordinate; the defaults are
        those of standardised data. ``t`` is ``t_max`` by default.
        """
        t = torch.as_tensor(self.t_max if t is None else t, dtype=torch.float64)
        alpha, sigma = self.alpha(t), self.sigma(t)
        mean = torch.as_tensor(mean, dtype=torch.float64)
        variance = torch.as_tensor(variance, dtype=torch.float64)
        prior = Prior(alpha * mean, (alpha**2 * variance + sigma**2).sqrt())
        return prior if self.space is None else self.space.prior(prior)


def _with_rate(f: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``f(t)`` and its derivative in time.

    By a pass backwards, though there is one input: PyTorch's forward passes cost four times more.
    Where ``f`` has several values at a time, a pass backwards would add up their derivatives.
    """
    value, pull, *_ = torch.func.vjp(f, t)
    if value.shape != t.shape:
        value, rate, *_ = torch.func.jvp(f, (t,), (torch.ones_like(t),))
        return value, rate
    rate = pull(torch.ones_like(value))[0]
    if t.is_cpu and not torch.compiler.is_compiling() and not bool(rate.isfinite().all()):
        # a pass backwards also sees what `torch.where` did not choose
        rate = torch.func.jvp(f, (t.contiguous(),), (torch.ones_like(t).contiguous(),))[1]
    return value, rate


def _invert(falling: Callable[[Tensor], Tensor], target: Tensor, low: float, high: float) -> Tensor:
    """Solve ``falling(t) = target`` on ``[low, high]``: Newton's method inside a bisection.

    In log t if the interval allows: towards t = 0 a log-SNR is nearly linear in it.
    """
    if low > 0:
        log_t = _solve(lambda u: falling(u.exp()), target, math.log(low), math.log(high))
        return log_t.exp().clamp(low, high)
    return _solve(falling, target, low, high)


def _solve(falling: Callable[[Tensor], Tensor], target: Tensor, low: float, high: float) -> Tensor:
    a, b = torch.full_like(target, low), torch.full_like(target, high)
    t, close = (a + b) / 2, False
    for _ in range(200):
        value, slope = _with_rate(falling, t)
        above = value > target
        a, b = torch.where(above, t, a), torch.where(above, b, t)
        newton = t - (value - target) / slope
        # at an end of the interval the last step may lead out of it, by rounding
        slack = 1e-9 * (high - low)
        inside = (newton >= a - slack) & (newton <= b + slack)
        last, t = t, torch.where(inside, newton.clamp(a, b), (a + b) / 2)
        if close:
            break
        # one more step of a quadratically convergent method leaves only rounding
        close = bool(((t - last).abs() <= 1e-9 * (high - low)).all())
    return t.clamp(low, high)
