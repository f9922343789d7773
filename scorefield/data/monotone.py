r"""Increasing maps of numbers, one for each column, and the densities that follow.

A density of ``v = f(p)`` gives one of ``p``::

    log density of p = log density of v + log f'(p)                                         (1)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.process import wide

_EXPONENT = 700.0  # its exponential is finite in float64
_APART = 1e-9  # of the range, between neighbouring knots


class Mapped(NamedTuple):
    """Values of increasing maps, and the logarithms of their derivatives; both ``(B, n)``."""

    v: Tensor
    log_slope: Tensor


class Monotone(ABC):
    """An increasing map for each of ``n`` columns, and its inverse."""

    @abstractmethod
    def forward(self, p: Tensor) -> Mapped:
        """Return the maps of ``p`` ``(B, n)``, with the term of (1)."""

    @abstractmethod
    def inverse(self, v: Tensor) -> Tensor:
        """Return ``p``."""


@dataclass(frozen=True)
class Identity(Monotone):
    """The numbers themselves."""

    def forward(self, p: Tensor) -> Mapped:
        return Mapped(p, torch.zeros_like(p))

    def inverse(self, v: Tensor) -> Tensor:
        return v


@dataclass(frozen=True)
class Log(Monotone):
    """``v = log(p - origin)``, with origins ``(n,)`` below all numbers."""

    origin: Tensor

    def forward(self, p: Tensor) -> Mapped:
        v = (p - self.origin.to(p)).clamp(min=_least(p)).log()
        return Mapped(v, -v)

    def inverse(self, v: Tensor) -> Tensor:
        return v.clamp(max=_EXPONENT).exp() + self.origin.to(v)


@dataclass(frozen=True)
class Logit(Monotone):
    """``v = log(p - low) - log(high - p)``, with bounds ``(n,)`` around all numbers."""

    low: Tensor
    high: Tensor

    def forward(self, p: Tensor) -> Mapped:
        low, high = self.low.to(p), self.high.to(p)
        below = (p - low).clamp(min=_least(p)).log()
        above = (high - p).clamp(min=_least(p)).log()
        return Mapped(below - above, (high - low).log() - below - above)

    def inverse(self, v: Tensor) -> Tensor:
        low, high = self.low.to(v), self.high.to(v)
        return low + (high - low) * v.sigmoid()


class Quantiles(Monotone):
    """Maps between quantiles ``(n, K)`` at equal shares, which may coincide; linear between them.

    Beyond the quantiles a map has the slope of the ratio of their ranges.

    Attributes:
        data, field: the quantiles before and after the map.
    """

    def __init__(self, data: Tensor, field: Tensor) -> None:
        self.data, self.field = data, field
        self._p, self._v = (_spread(_with_tails(each.double())) for each in (data, field))

    def forward(self, p: Tensor) -> Mapped:
        return _interpolated(p, self._p, self._v)

    def inverse(self, v: Tensor) -> Tensor:
        return _interpolated(v, self._v, self._p).v


def quantiles(x: Tensor, count: int) -> Tensor:
    """Return ``(n, count)`` quantiles of the columns of ``x`` ``(N, n)`` at equal shares: float64.

    NaN is left out.
    """
    shares = torch.linspace(0, 1, count, dtype=torch.float64, device=x.device)
    return torch.stack([c[~c.isnan()].quantile(shares) for c in x.double().unbind(1)])


def _with_tails(q: Tensor) -> Tensor:
    width = (q[:, -1:] - q[:, :1]).clamp(min=_least(q))
    return torch.cat([q[:, :1] - width, q, q[:, -1:] + width], 1)


def _spread(q: Tensor) -> Tensor:
    """Return knots that increase strictly, apart by a small share of their range."""
    room = torch.linspace(0, _APART, q.shape[1], dtype=q.dtype, device=q.device)
    return q.cummax(1).values + room * (q[:, -1:] - q[:, :1])


def _interpolated(x: Tensor, a: Tensor, b: Tensor) -> Mapped:
    """Return the maps that are linear between knots ``a`` ``(n, K)``, and ``b`` at them."""
    rows = wide(x).T.contiguous()
    a, b = a.to(rows), b.to(rows)
    above = torch.searchsorted(a, rows).clamp(1, a.shape[1] - 1)
    a0, a1 = a.gather(1, above - 1), a.gather(1, above)
    b0, b1 = b.gather(1, above - 1), b.gather(1, above)
    slope = (b1 - b0) / (a1 - a0)
    return Mapped((b0 + slope * (rows - a0)).T.to(x), slope.log().T.to(x))


def _least(p: Tensor) -> float:
    return float(torch.finfo(p.dtype).tiny)
