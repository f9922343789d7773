r"""Fields that are off, as trained networks are: the problems that solvers have to stand.

An exact field flatters solvers that extrapolate. A network has an error at every call, smooth in
``x`` and in the noise level, and a solver multiplies it. The error here is a random function of
unit size, fixed by its seed, of the scaled input ``z = x / sqrt(c^2 alpha^2 + sigma^2)`` and of
``v = log(sigma / alpha)``::

    g(x, t) = sqrt(2 / K) sum_k a_k cos(w_k . z + m_k v + b_k)                       (1)

with the data's deviation ``c`` and normal ``a_k``, ``w_k``, ``m_k``. It changes over about one unit
of each, so two calls far apart in noise level have unrelated errors, and two close ones the same.

Reference: Rahimi and Recht (2007), Random features for large-scale kernel machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from scorefield.field.base import Estimate, FieldWrapper, Instant, ScoreField
from scorefield.process import cast, check_positive, unstack

_FEATURES = 64  # K
_LIMIT = 12.0  # of |log(sigma / alpha)|, beyond which the error no longer changes

_KINDS: dict[str, Callable[[Tensor, Instant, Tensor], Estimate]] = {
    "eps": Estimate.from_eps,
    "x0": Estimate.from_x0,
    "velocity": Estimate.from_velocity,
}


class Inexact(FieldWrapper):
    """A field with a smooth, deterministic error of a stated size.

    The estimate of ``of`` becomes ``of + size scale g`` with (1), where ``scale`` is the
    size of the target of a network: 1 for eps, ``c sigma / sqrt(c^2 alpha^2 + sigma^2)`` for
    x0, the deviation of a Gaussian's data given ``x``, and ``sqrt((alpha' c)^2 + sigma'^2)`` for
    the velocity. The other estimates follow. ::

        field = sf.Inexact(exact, 0.025)
        sf.sample(field, 64, sf.Multistep(), 10, seed=0) - sf.sample(exact, ..., seed=0)

    Args:
        base: the field, such as an exact one.
        size: the error, relative to ``scale``: 0.005 is half a percent.
        of: the quantity with the error.
        around: ``(ratio, width)``, to concentrate the error at noise levels: it is multiplied by
            ``exp(-(log(sigma / (alpha ratio)) / width)^2 / 2)``.
        dtype: a type to which the estimate of ``of`` is rounded, such as ``torch.bfloat16``.
        seed: of (1).

    Raises:
        ValueError: a negative size, another quantity, ``around`` not two positive numbers.
    """

    _directions: Tensor
    _speeds: Tensor
    _phases: Tensor
    _outputs: Tensor

    def __init__(
        self,
        base: ScoreField,
        size: float,
        of: Literal["eps", "x0", "velocity"] = "eps",
        *,
        around: tuple[float, float] | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(base)
        if not 0 <= size < math.inf:
            raise ValueError(f"size={size!r}: must be a number, at least 0; 0.01 is one percent.")
        if of not in _KINDS:
            raise ValueError(f"of={of!r}: must be one of {[*_KINDS]}.")
        if around is not None:
            check_positive(ratio=around[0], width=around[1])
        self.size, self.of, self.around, self.dtype = float(size), of, around, dtype
        self.seed = seed
        dim, draw = math.prod(self.shape), torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.register_buffer("_directions", normal(dim, _FEATURES) / math.sqrt(dim))
        self.register_buffer("_speeds", normal(_FEATURES))
        self.register_buffer(
            "_phases", 2 * math.pi * torch.rand(_FEATURES, generator=draw).double()
        )
        self.register_buffer("_outputs", normal(_FEATURES, dim) * math.sqrt(2 / _FEATURES))

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Any]:
        process, c = self.process, self.base.data_std
        level = -process.half_log_snr(t).clamp(-_LIMIT, _LIMIT)
        scale = torch.full_like(alpha, self.size)
        if self.of == "x0":
            scale = scale * c * sigma / torch.hypot(c * alpha, sigma)
        elif self.of == "velocity":
            alpha_rate, sigma_rate = process.rates(t)
            scale = scale * torch.hypot(c * alpha_rate, sigma_rate)
        if self.around is not None:
            ratio, width = self.around
            scale = scale * (-0.5 * ((level - math.log(ratio)) / width) ** 2).exp()
        numbers = (unstack(v) for v in (1 / torch.hypot(c * alpha, sigma), level, scale))
        return list(zip(self.base.instants(t), *numbers, strict=True))

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        instant, shrink, level, scale = at.prepared
        shrink, scale = (cast(v, x) if isinstance(v, Tensor) else v for v in (shrink, scale))
        value: Tensor = getattr(self.base(x, instant, **condition), self.of)
        value = value + scale * self._error(x * shrink, level)
        if self.dtype is not None:
            value = value.to(self.dtype).to(x)
        return _KINDS[self.of](x, at, value)

    def _error(self, z: Tensor, level: float | Tensor) -> Tensor:
        """Return (1), like ``z``."""
        flat = z.flatten(1)
        v = level.to(flat).reshape(-1, 1) if isinstance(level, Tensor) else level
        phases = flat @ self._directions.to(flat) + self._speeds.to(flat) * v
        features = (phases + self._phases.to(flat)).cos()
        return (features @ self._outputs.to(flat)).reshape(z.shape)
