r"""Guidance: fields made of fields, whose scores point more towards a condition.

All of them stay fields, so that every solver works with them, and a sample does not depend on its
batch. With scores ``s`` of the same noisy ``x``::

    s = s_n + sum_k w_k (s_k - s_{k-1})        classifier-free, w > 1 beyond the condition   (1)
    s = s_0 + w grad log q(x, t)               by a classifier of noisy data                 (2)
    s = s_0 + w grad log q(E[x_0 | x])         by a potential of clean data                  (3)

In (1) ``s_k`` has the first ``k`` conditions and ``s_0 = s_n`` none of them, so that scales of 1
give the conditional field; with one scale it is ``s_n + w (s_c - s_n)`` of all conditions together.
(1) to (3) are densities raised to a power at every noise level; for ``w != 1`` no process noises
data to those, so the samples' distribution has no closed form; it is sharper as ``w`` grows. (2)
with the true classifier and ``w = 1`` is the conditional field exactly; (3) leaves out how ``x_0``
spreads about its mean.

Guidance (1) is as right for a velocity without a score, such as that of a field trained by optimal
transport, since it is linear in both; (2) and (3) need scores.

Reference: Ho and Salimans (2022), arXiv:2207.12598; Dhariwal and Nichol (2021), arXiv:2105.05233;
Chung et al. (2023), arXiv:2209.14687; Kynkäänniemi et al. (2024), arXiv:2404.07724, of intervals;
Lin et al. (2024), arXiv:2305.08891, of rescaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.field.base import Estimate, FieldWrapper, Instant, ScoreField, check_score
from scorefield.process import mix

Scale = float | Callable[[float], float]
Pair = tuple[Tensor, Tensor]


class ClassifierFree(FieldWrapper):
    """The field (1) of one network that was trained with and without its condition.

    It needs a condition, in the call or by `condition_on`; one plan serves every condition.

    Args:
        base: the field, called with and without the condition.
        scale: ``w``; or a function of ``sigma / alpha`` that returns it. 1 is the conditional field
            itself, 0 the negative one. Or a mapping of conditions to a scale each, in the order of
            (1); a condition that it does not name is in all terms.
        negative: what to go away from, by name, and then all are one call on a batch of twice the
            size, or more; with None, ``base`` is called without a condition.
        interval: of ``sigma / alpha``, outside of which the conditional field is taken.
        rescale: from 0 to 1, how far each sample's ``x_0`` is brought back to the deviation that
            it has in the conditional field.

    Raises:
        ValueError: an interval that is none, a rescale outside [0, 1]; when called, no condition,
            one that the negative ones or the scales do not have, or of another number of rows than
            samples.
    """

    def __init__(
        self,
        base: ScoreField,
        scale: Scale | Mapping[str, Scale],
        *,
        negative: Mapping[str, Any] | None = None,
        interval: tuple[float, float] = (0.0, math.inf),
        rescale: float = 0.0,
    ) -> None:
        low, high = interval
        if not 0 <= low < high or not 0 <= rescale <= 1:
            raise ValueError(
                f"interval = {interval}, rescale = {rescale}: give 0 <= low < high, and a rescale "
                "from 0 to 1."
            )
        super().__init__(base)
        # pairs, whose order matters
        self.scale = tuple(scale.items()) if isinstance(scale, Mapping) else scale
        self.negative = None if negative is None else dict(negative)
        self.interval, self.rescale = (low, high), rescale

    @property
    def stackable(self) -> bool:
        rows = (torch.as_tensor(value) for value in (self.negative or {}).values())
        return self.base.stackable and all(v.ndim == 0 or len(v) == 1 for v in rows)

    def prepare_times(
        self, t: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Sequence[tuple[Instant, Any]]:
        ratios = (-self.process.half_log_snr(t)).exp()
        scales = [w for _, w in self.scale] if isinstance(self.scale, tuple) else [self.scale]
        weights = [[self._weight(scale, ratio) for scale in scales] for ratio in ratios]
        return list(zip(self.base.instants(t), weights, strict=True))

    def _weight(self, scale: Scale, ratio: Tensor) -> Any:
        """Return ``w`` at a ratio: a number for one, like it for one of each sample."""
        low, high = self.interval
        if callable(scale):
            each = [float(scale(r)) for r in ratio.flatten().tolist()]
            w = ratio.new_tensor(each).reshape(ratio.shape)
        else:
            w = torch.full_like(ratio, scale)
        w = torch.where((ratio >= low) & (ratio <= high), w, torch.ones_like(w))
        return float(w) if w.ndim == 0 else w

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        inner, scales = at.prepared
        self._check(condition)
        if all(isinstance(w, float) and w == 1 for w in scales):
            estimate: Estimate = self.base(x, inner, **condition)
            return Estimate(x, at, estimate.basis, estimate.of_x0, estimate.of_eps)
        terms = self._terms(x, inner, condition)
        last = terms[-1]
        scales = [w if isinstance(w, float) else w.to(x) for w in scales]
        # the sum of (1) by its terms
        weights = [a - b for a, b in zip([1.0, *scales], [*scales, 0.0], strict=True)]
        x0, eps = (mix(*zip(weights, parts, strict=True)) for parts in zip(*terms, strict=True))
        if self.process.space is not None:
            return Estimate.from_eps(x, at, eps)
        if self.rescale:
            share = 1 + self.rescale * (_deviation(last[0]) / _deviation(x0) - 1)
            change = (share - 1) * x0
            x0, eps = x0 + change, eps - at.alpha / at.sigma * change
        return Estimate(x, at, (x0, eps))

    def _check(self, condition: Mapping[str, Any]) -> None:
        scaled = dict(self.scale) if isinstance(self.scale, tuple) else {}
        there = condition if self.negative is None else {**self.negative}
        if not condition or not {*condition} <= {*there} or not {*scaled} <= {*there}:
            names = sorted({*scaled} | {*(self.negative or {})})
            raise ValueError(
                f"the condition has {sorted(condition)}, and guidance needs "
                f"{names or 'one'}: call the field with it, or bind it by condition_on(...)."
            )

    def _terms(self, x: Tensor, at: Instant, wanted: Mapping[str, Any]) -> list[Pair]:
        """Return ``x0`` and ``eps`` of each term of (1), from without to with all conditions."""
        names = [name for name, _ in self.scale] if isinstance(self.scale, tuple) else None
        sets = (
            [{}, wanted]
            if names is None
            else [
                {k: v for k, v in wanted.items() if k not in names[count:]}
                for count in range(len(names) + 1)
            ]
        )
        if self.negative is None:
            estimates = [self.base(x, at, **some) for some in sets]
            return [(estimate.x0, estimate.eps) for estimate in estimates]
        negative, count = self.negative, len(sets)
        rows = {
            name: torch.cat(_alike([_rows(some.get(name, none), x) for some in sets]))
            for name, none in negative.items()
            if name in wanted
        }
        when = at if at.t.ndim == 0 else torch.cat([at.t] * count)
        estimate = self.base(torch.cat([x] * count), when, **rows)
        parts = zip(estimate.x0.chunk(count), estimate.eps.chunk(count), strict=True)
        return list(parts)


def _alike(rows: Sequence[Tensor]) -> list[Tensor]:
    """Return conditions of which some are one number a row in the shape of the others."""
    shape = max((row.shape for row in rows), key=len)
    ones = [1] * (len(shape) - 1)
    return [row if row.shape == shape else row.reshape(-1, *ones).expand(shape) for row in rows]


class Tilted(FieldWrapper):
    """The field of a density that is multiplied by a potential, (2) or (3).

    Args:
        base: the field.
        log_potential: returns ``log q`` ``(B,)``, differentiable: of the noisy ``x`` and ``t``
            ``(B,)``, or with ``clean`` of ``E[x_0 | x]``, with the gradient through the field.
        scale: ``w``.
        clean: which of the two.
    """

    def __init__(
        self,
        base: ScoreField,
        log_potential: Callable[..., Tensor],
        scale: float = 1.0,
        *,
        clean: bool = False,
    ) -> None:
        super().__init__(base)
        if self.process.space is None:
            check_score("Tilted", base)
        self.log_potential, self.scale, self.clean = log_potential, scale, clean

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        through = torch.is_grad_enabled() and x.requires_grad  # as for a likelihood
        with torch.enable_grad():
            inputs = x if through else x.detach().requires_grad_()
            estimate = self.base(inputs, at.prepared, **condition)
            log_q = self._log_q(inputs, at, estimate)
            (push,) = torch.autograd.grad(log_q.sum(), inputs, create_graph=through)
            space = self.process.space
            push = push if space is None else space.gradient(inputs, push)
            x0 = estimate.x0 + self.scale * at.sigma**2 / at.alpha * push
            eps = estimate.eps - self.scale * at.sigma * push
            x0 = x0 if space is None else x - at.sigma * eps
        return Estimate(x, at, (x0, eps) if through else (x0.detach(), eps.detach()))

    def _log_q(self, x: Tensor, at: Instant, estimate: Estimate) -> Tensor:
        if self.clean:
            log_q = self.log_potential(estimate.x0)
        else:
            log_q = self.log_potential(x, at.t.expand(len(x), *at.t.shape[1:]).reshape(-1))
        if log_q.shape != (len(x),):
            raise ValueError(
                f"log_potential returned shape {tuple(log_q.shape)} for {len(x)} samples: give one "
                "number for each."
            )
        return log_q


def _rows(value: Any, x: Tensor) -> Tensor:
    """Return a condition with a row for each sample, from one with as many, with one, or with none.

    Raises:
        ValueError: another number of rows.
    """
    rows: Tensor = torch.as_tensor(value, device=x.device)
    if rows.ndim and len(rows) not in (1, len(x)):
        raise ValueError(
            f"a condition of {len(rows)} rows for a batch of {len(x)} samples: give one for all, "
            "or one for each."
        )
    return rows.expand(len(x), *rows.shape[1:])


def _deviation(x: Tensor) -> Tensor:
    """Return the deviation of each sample's values, to be multiplied with the batch."""
    deviation: Tensor = x.flatten(1).std(1).reshape(-1, *[1] * (x.ndim - 1))
    return deviation
