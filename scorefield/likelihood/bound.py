r"""A lower bound of the log-density that the reverse SDE gives to data.

With ``y_rho = x + rho eps``, the noise ``r = sqrt(r_0^2 + rho^2)`` and ``a = rho / r``, Girsanov's
theorem bounds the log-density, on every process and whatever weighting the field was trained with::

    log p(x) >= E log p_1(y_1) + int E[d - |eps - a eps_hat(y_rho, r)|^2] dlog rho       (1)

The exact score reaches the bound, up to the difference of ``p_1`` from the distribution at ``r_1``.
For a Gaussian with the data's moments (1) is known: its log-density at ``x``. Only the difference
of the field from that Gaussian is estimated::

    E[a (e - g) . (2 eps - a (e + g))],    e, g: the field's noise and the Gaussian's        (2)

One ``rho`` is drawn in each of ``K`` strata, equally wide in ``log(1 + (rho / c)^2)^(1/6)``, with a
pair ``eps`` and ``-eps``. The standard error is from neighbouring strata: their differences hold
the noise of both, and a trend that is small.

Reference: Song et al. (2021), arXiv:2101.09258, theorem 3; Kingma et al. (2021), arXiv:2107.00630.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError
from scorefield.field import ScoreField, check_score
from scorefield.likelihood.density import check_density, check_no_gradient, last_time
from scorefield.likelihood.moments import Moments, PriorName, resolved
from scorefield.noise import BOUND, Noise
from scorefield.process import cast, check_one_level, widest
from scorefield.sampling import (
    batch_rows,
    batches,
    check_samples,
    filled,
    for_batch,
    not_finite,
)

DEFAULT_CALLS = 128
_POWER = 6.0


@dataclass(frozen=True)
class Bound:
    """Lower bounds of log-densities in nats; float64 tensors ``(B,)``.

    Attributes:
        value: an unbiased estimate of the bound (1).
        stderr: its standard error; with fewer than a hundred calls too small, by a third at 64.
        nfe: calls of the field for each sample.
    """

    value: Tensor
    stderr: Tensor
    nfe: Tensor


def elbo(
    field: ScoreField,
    x: Tensor,
    *,
    nfe: int = DEFAULT_CALLS,
    prior: Moments | PriorName = "moments",
    ids: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Bound:
    """Return a lower bound of the log-density of each sample of ``x`` ``(B, *field.shape)``.

    It bounds the density that `log_prob` computes, in the field's units, without a Jacobian. A
    sample's bound does not depend on the others.

    Args:
        nfe: calls of the field for each sample, even, 4 or more.
        prior, ids, batch_size: as for `log_prob`.
        seed: with an id, determines the noise.

    Raises:
        ValueError: settings out of range, samples that do not fit the field, an ``x`` that requires
            a gradient, a network in training, a `Product`, a field without a score.
        NumericalError: a bound is not finite.
    """
    x, rows = check_samples(field, x, ids, batch_size)
    check_density(field)
    check_score("elbo", field)
    check_one_level("elbo", field.process)
    check_no_gradient(x)
    if not isinstance(nfe, Integral) or nfe < 4 or nfe % 2:
        raise ValueError(f"nfe={nfe!r}: give an even number of calls, 4 or more.")
    moments = resolved(field, prior).to(x.device)
    ends = torch.tensor([field.process.t_min, last_time(field, moments)], dtype=torch.float64)
    low, high = (-field.process.half_log_snr(ends)).exp().tolist()
    dtype = widest(x.device)
    out = x.new_zeros(2, len(x), dtype=dtype)
    size = batch_rows(len(rows), batch_size)
    for places, at, slots in batches(rows, size):
        batch = filled(x, places, at, size).to(dtype)
        noise = Noise(seed, slots.to(x.device), stream=BOUND)
        own = for_batch(field, places, at, size, len(x))
        with torch.no_grad():
            difference = _difference(own, moments, batch, noise, nfe // 2, low, high)
        spread = (difference.diff(dim=0) ** 2).sum(0) / (
            2 * (len(difference) - 1) * len(difference)
        )
        value = moments.log_prob(batch.flatten(1), low) + difference.mean(0)
        out[:, places] = torch.stack([value, spread.sqrt()])[:, at]
    if bad := [rows[k] for k in not_finite(out.T)]:
        raise NumericalError(f"the bound of samples {bad[:5]} is not finite.")
    return Bound(out[0], out[1], torch.full_like(out[0], nfe))


def _difference(
    field: ScoreField,
    moments: Moments,
    x: Tensor,
    noise: Noise,
    count: int,
    low: float,
    high: float,
) -> Tensor:
    """Return the part of (2) in each stratum, ``(K, B)``."""
    c, strata = moments.deviation, []
    top = math.log1p((high**2 - low**2) / c**2) ** (1 / _POWER)
    for k in range(count):
        u, noise = noise.uniform(torch.empty(0))
        z, noise = noise.normal(x)
        w = top * (k + u) / count
        rho = c * torch.expm1(w**_POWER).sqrt()
        dlog = top * _POWER * w ** (_POWER - 1) * (c**2 + rho**2) / (2 * rho**2)
        r = (low**2 + rho**2).sqrt()
        t = field.process.time((-r.log()).clamp(-math.log(high), -math.log(low)))
        alpha, shape = field.process.alpha(t), (-1, *[1] * (x.ndim - 1))
        alpha, rho, dlog, r = (cast(v, x) for v in (alpha, rho, dlog, r))
        a = (rho / r)[:, None]
        each = []
        for eps in (z, -z):
            y = x + rho.reshape(shape) * eps
            learned = moments.along(field(alpha.reshape(shape) * y, t).eps.flatten(1))
            gaussian = moments.eps(y.flatten(1), r[:, None])
            gap = 2 * moments.along(eps.flatten(1)) - a * (learned + gaussian)
            each.append((a * (learned - gaussian) * gap).sum(1))
        strata.append(dlog * 0.5 * (each[0] + each[1]))
    return torch.stack(strata)
