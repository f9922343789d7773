r"""Tests of a field on data that need no exact score, by noise level.

With ``y = x / alpha``, ``r = sigma / alpha`` and ``s = grad log p_r(y) = -eps(y, r) / r``, the
noised densities satisfy the heat equation, and so does a true field::

    ds/dr = r grad(div s + |s|^2)                                                   (1)
    ds_i/dy_j = ds_j/dy_i                                                           (2)
    E[s] = 0,    E|s|^2 + E div s = 0                                               (3)

A field that violates one of them is wrong at that level. A field that satisfies all may be the true
one of *another* density, so they measure consistency, not error. An error is bounded from below
by a prediction ``p(x)`` of the residual ``e = eps - eps_hat(x)`` of the noise. For any ``p``::

    E|eps_hat - E[eps | x]|^2  >=  E[2 e . p - |p|^2]                               (4)

It is a regression on the input, the estimate and random features of the input, fitted on one half
of the data and evaluated on the other. It finds the part of the error that such features express.

The lower bound of the log-density and that of the ODE agree if the field is exact: their mean
difference is at most the integrated error of the score.

Reference: Lai et al. (2023), arXiv:2210.04296 (1); Hyvärinen (2005) (3); Song et al. (2021),
arXiv:2101.09258, theorem 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.evaluate.check.trial import LEVELS, mean_in_errors, noise_levels
from scorefield.field import Gaussian, ScoreField, check_score
from scorefield.likelihood import elbo, log_prob
from scorefield.noise import EVALUATION, Noise
from scorefield.process import check_one_level, check_whole, wide
from scorefield.sampling import check_samples

Progress = Callable[[Sequence[Any]], Iterable[Any]]

_SURE = 3.0  # standard errors, with eight levels tested together
_FEATURES, _SPEED = 64, 3.0  # random ones, at most, and their largest frequency
_DRAWS = 4  # noises for each item
_EXACT = 8  # dimensions up to which a divergence is a sum over coordinates
_STEP = 0.01  # of log r, of a difference
_FOR_PRODUCTS = 128  # items for derivatives, which cost several calls each
_TIMES_FLOOR = 10.0  # of an exact field's reading, below which one is not worth a word
_WORTH = 0.02


@dataclass(frozen=True)
class AuditLevel:
    """The readings at one noise level.

    Attributes:
        ratio: ``sigma / alpha``.
        at_least: a lower bound of the root mean square error of eps, per coordinate, in units of
            the noise, from (4); 0 if it is not significant.
        residual: root mean square of the two sides' difference in (1), relative to the left side.
        curl: the same of (2), for random directions, relative to the derivative.
        mean: the mean of the score in standard errors, about 1 for a true one.
        fisher, stderr: the sum in (3) relative to its first term, and its standard error.
    """

    ratio: float
    at_least: float
    residual: float
    curl: float
    mean: float
    fisher: float
    stderr: float


@dataclass(frozen=True)
class Audit:
    """The readings of a field, and those of an exact one.

    Attributes:
        levels: by increasing noise.
        exact: of the Gaussian with the moments of the data, on samples of its own.
        gap, stderr: the log-density by the ODE minus its lower bound, in nats, and its standard
            error; 0 for an exact field.
        samples: the number of data.
    """

    levels: tuple[AuditLevel, ...]
    exact: tuple[AuditLevel, ...]
    gap: float
    stderr: float
    samples: int

    @property
    def worst(self) -> AuditLevel | None:
        """The level with the largest bound of the error, or None if none is significant."""
        level = max(self.levels, key=lambda one: one.at_least)
        return level if level.at_least else None

    @property
    def inconsistent(self) -> tuple[AuditLevel, ...]:
        """The levels at which (1), (2) or (3) is violated, beyond an exact field's readings."""
        return tuple(
            level
            for level, exact in zip(self.levels, self.exact, strict=True)
            if abs(level.fisher) > _SURE * level.stderr + _TIMES_FLOOR * abs(exact.fisher)
            or level.residual > max(_TIMES_FLOOR * exact.residual, _WORTH)
            or level.curl > max(_TIMES_FLOOR * exact.curl, _WORTH)
        )

    def __str__(self) -> str:
        places = ", ".join(f"{level.ratio:.2g}" for level in self.inconsistent)
        first = (
            f"eps is wrong by at least {self.worst.at_least:.2g} at sigma/alpha "
            f"{self.worst.ratio:.2g}"
            if self.worst
            else "no error of eps is visible in these data"
        )
        second = f"inconsistent at sigma/alpha {places}" if places else "no level is inconsistent"
        return f"{first}; {second}; ODE minus bound {self.gap:.3g} ± {self.stderr:.2g} nats"


def audit(
    field: ScoreField, x: Tensor, *, n: int = 2048, seed: int = 0, progress: Progress = iter
) -> Audit:
    """Test a field at eight noise levels, on data that it was not trained on.

    The cost is 32 calls of the field for each of ``n`` data, and derivatives for 128 of them.

    Args:
        x: data in the units of the field, ``(B, *shape)``; at least 64.
        n: the number of data used.
        seed: of the noise and the random features.
        progress: wraps the list of steps, for example to show a progress bar.

    Raises:
        ValueError: fewer data, data of another shape or that do not vary, a field without a score,
            a network in training mode.
    """
    check_whole(64, n=n)
    check_score("audit", field)
    check_one_level("audit", field.process)
    x, _ = check_samples(field, x, None, None)
    if len(x) < 64 or bool((x == x[:1]).all()):
        raise ValueError(f"x has {len(x)} samples: give at least 64 different ones.")
    places = torch.linspace(0, len(x) - 1, min(n, len(x))).long()
    x, field = x[places], field.take(places, len(x))
    mean, variance = wide(x).mean(0), wide(x).var(0)
    levels = noise_levels(field.process, float(variance.mean().sqrt()))[:LEVELS]
    exact = Gaussian(field.process, mean.flatten(), variance.flatten().clamp(min=1e-12).diag())
    ids = torch.arange(len(x), device=x.device)
    normal, noise = Noise(seed, ids, stream=EVALUATION).normal(x)
    own = (mean + variance.sqrt() * normal).to(x).flatten(1)
    readings = [
        (_read(field, x, level, noise, seed), _read(exact, own, level, noise, seed))
        for level in progress(list(levels))
    ]
    few = x[:_FOR_PRODUCTS]
    on = field.take(range(len(few)), len(x))
    gaps = wide(log_prob(on, few, seed=seed).value - elbo(on, few, seed=seed).value)
    return Audit(
        tuple(mine for mine, _ in readings),
        tuple(other for _, other in readings),
        float(gaps.mean()),
        float(gaps.std() / math.sqrt(len(gaps))),
        len(x),
    )


def _read(field: ScoreField, x: Tensor, level: Tensor, noise: Noise, seed: int) -> AuditLevel:
    process, count = field.process, len(x)
    t, ratio = process.time(level), math.exp(-float(level))
    alpha, sigma = process.coefficients(t)
    inputs, residuals, estimates = [], [], []
    for _ in range(_DRAWS):
        eps, noise = noise.normal(x)
        noised = alpha * x + sigma * eps
        with torch.no_grad():
            estimate = field(noised, t).eps
        inputs.append(wide(noised / alpha).flatten(1))
        residuals.append(wide(eps - estimate).flatten(1))
        estimates.append(wide(estimate).flatten(1))
    bound = _bound(torch.stack(inputs), torch.stack(residuals), torch.stack(estimates), seed)
    score = -torch.stack(estimates).mean(0)
    few = range(min(count, _FOR_PRODUCTS))
    products = _products(field.take(few, count), noised[: len(few)] / alpha, level, seed)
    square, fisher = products["square"].mean(), products["fisher"]
    return AuditLevel(
        ratio,
        bound,
        math.sqrt(max(float(products["residual"].mean() / products["rate"].mean()), 0.0)),
        math.sqrt(float(products["curl"].mean() / products["slope"].mean())),
        mean_in_errors(score),
        float(fisher.mean() / square),
        float(fisher.std() / math.sqrt(len(fisher)) / square),
    )


def _bound(inputs: Tensor, residuals: Tensor, estimates: Tensor, seed: int) -> float:
    """Return the lower bound of (4), as a root mean square; tensors are ``(draws, n, d)``."""
    inputs, residuals, estimates = (v.cpu() for v in (inputs, residuals, estimates))
    draws, count, dim = inputs.shape
    spread = inputs.flatten(0, 1).std(0).clamp(min=1e-12)
    scaled = (inputs - inputs.flatten(0, 1).mean(0)) / spread
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=scaled.dtype)

    width = min(_FEATURES, draws * count // 8)
    directions = torch.randn(dim, width, generator=generator, dtype=scaled.dtype)
    waves = torch.cos(
        scaled @ directions / math.sqrt(dim) * _SPEED * draw(width) + 2 * math.pi * draw(width)
    )
    features = torch.cat([torch.ones_like(scaled[..., :1]), scaled, estimates, waves], -1)
    gains = torch.zeros(draws, count, dtype=scaled.dtype)
    half = torch.arange(count) % 2 == 0  # the draws of an item are in one half
    for fit in (half, ~half):
        weights = _ridge(features[:, fit].flatten(0, 1), residuals[:, fit].flatten(0, 1))
        predicted = features[:, ~fit] @ weights
        gains[:, ~fit] = (2 * residuals[:, ~fit] * predicted - predicted**2).sum(-1)
    each = gains.mean(0)
    low = float(each.mean() - _SURE * each.std() / math.sqrt(count))
    return math.sqrt(max(low, 0.0) / dim)


def _ridge(features: Tensor, targets: Tensor) -> Tensor:
    """Return the weights of a ridge regression, its penalty by generalised cross-validation."""
    u, singular, v = torch.linalg.svd(features, full_matrices=False)
    along = u.T @ targets
    rest = targets.square().sum() - along.square().sum()
    best, choice = math.inf, singular[0]
    for penalty in singular[0] * torch.logspace(-6, 3, 28, dtype=singular.dtype):
        share = singular**2 / (singular**2 + penalty**2)
        error = rest + ((1 - share)[:, None] * along).square().sum()
        score = float(error / (1 - share.sum() / len(features)).clamp(min=1e-3) ** 2)
        if score < best:
            best, choice = score, penalty
    weights: Tensor = v.T @ ((singular / (singular**2 + choice**2))[:, None] * along)
    return weights


def _products(field: ScoreField, y: Tensor, level: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the terms of (1) to (3), one number for each item ``(n,)``."""
    ratio, dim = math.exp(-float(level)), y[0].numel()

    def score(at: Tensor, half_log_snr: Tensor) -> Tensor:
        t = field.process.time(half_log_snr)
        eps: Tensor = field(field.process.alpha(t) * at, t).eps
        return -eps * math.exp(float(half_log_snr))

    unit = torch.eye(dim).to(y).reshape(dim, 1, *y.shape[1:])
    noise = Noise(seed, torch.arange(len(y), device=y.device), stream=EVALUATION)
    signs = [noise.signs(y, place) for place in (0, 1)]
    with torch.enable_grad():
        inputs = y.detach().clone().requires_grad_()
        s = score(inputs, level)

        def pull(value: Tensor, v: Tensor) -> Tensor:
            # an item's score depends on the item alone: the gradient of the sum has one row each
            return torch.autograd.grad((value * v).sum(), inputs, create_graph=True)[0]

        traces = [_each(pull(s, v) * v) for v in (unit if dim <= _EXACT else signs)]
        divergences = [torch.stack(traces).sum(0)] if dim <= _EXACT else traces
        square = _each(s.square())
        sides = [ratio * pull(square + one, torch.ones_like(one)) for one in divergences]
        dual = torch.zeros_like(s, requires_grad=True)
        (forward,) = torch.autograd.grad((pull(s, dual) * signs[0]).sum(), dual)
        turned = forward - pull(s, signs[0])
    with torch.no_grad():
        noisier, cleaner = (score(y, level + h) for h in (-_STEP, _STEP))
        rate = (noisier - cleaner) / (2 * _STEP * ratio)
        # independent probes of the divergence at either side: the product has no bias
        residual = _each((rate - sides[0]) * (rate - sides[-1]))
        fisher = square + torch.stack(divergences).mean(0)
        terms = {"rate": _each(rate**2), "residual": residual}
        terms |= {"square": square.detach(), "fisher": fisher.detach()}
        return terms | {"curl": _each(turned**2), "slope": _each(forward**2)}


def _each(values: Tensor) -> Tensor:
    return wide(values).flatten(1).sum(1)
