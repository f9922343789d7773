r"""Encodings of data as continuous vectors, which have a density, and their standardization.

Whole numbers and categories get uniform noise on top, and missing values are replaced by noise of a
known density q. The probability of the data is then a mean over q, and its logarithm is bounded::

    log p(x) >= E_q [log p(v) - log q(v | x)]                                               (1)

Reference: Theis, van den Oord and Bethge (2016), arXiv:1511.01844, section 3.1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.rows import Rows, moments_of
from scorefield.noise import Noise
from scorefield.process.base import wide

if TYPE_CHECKING:
    from scorefield.data.monotone import Quantiles


@dataclass(frozen=True)
class Standardize:
    """Shift and scale to zero mean and unit variance: ``z = (v - mean) / std``.

    ``mean`` and ``std`` broadcast against one sample: one value per feature for vectors, per
    channel for the rest. Maps ``quantiles``, from the data's to those of a field, follow for the
    columns of a table.
    """

    mean: Tensor
    std: Tensor
    quantiles: Quantiles | None = None

    @classmethod
    def fit(cls, mean: Tensor, variance: Tensor) -> Standardize:
        """Return the transform of samples with given moments, float64 of the shape of a sample.

        Raises:
            ValueError: a feature or channel that never changes.
        """
        rest = tuple(range(1, mean.ndim))
        center = mean.mean(rest, keepdim=True) if rest else mean
        spread = variance + (mean - center) ** 2
        std = (spread.mean(rest, keepdim=True) if rest else spread).sqrt()
        if not bool((std > 0).all()):
            constant = (std == 0).flatten().nonzero().flatten().tolist()
            raise ValueError(f"feature(s) or channel(s) {constant} never change: remove them.")
        return cls(center.float(), std.float())

    @classmethod
    def of_levels(cls, levels: int, low: float, high: float, shape: tuple[int, ...]) -> Standardize:
        """Return the transform that takes whole numbers ``0 .. levels - 1`` to ``low .. high``.

        Each lies in the middle of the unit interval above it. Without levels, nothing changes.
        """
        each = (shape[0], *[1] * (len(shape) - 1))
        if not levels:
            return cls(torch.zeros(each), torch.ones(each))
        std = (levels - 1) / (high - low)
        return cls(torch.full(each, 0.5 - low * std), torch.full(each, std))

    def forward(self, v: Tensor) -> Tensor:
        """Return ``z``, of a floating type also for whole numbers."""
        z = self._scaled(v if v.is_floating_point() else v.to(self.mean.dtype))
        return z if self.quantiles is None else self.quantiles.forward(z).v

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``v``."""
        z = z if self.quantiles is None else self.quantiles.inverse(z)
        return z * self.std.to(z) + self.mean.to(z)

    def log_det(self, v: Tensor) -> Tensor:
        """Return ``log |dz/dv|`` of samples ``(B, ...)``, in nats: ``(B,)``.

        It is float64, and on the CPU where the device of ``v`` has no such type.
        """
        v = wide(v)
        plain = -self.std.cpu().double().log().expand(v.shape[1:]).sum()
        if self.quantiles is None:
            return plain + v.new_zeros(len(v))
        return plain + self.quantiles.forward(self._scaled(v)).log_slope.sum(1)

    def _scaled(self, v: Tensor) -> Tensor:
        return (v - self.mean.to(v)) / self.std.to(v)


Shape = tuple[int, ...]


class Encoded(NamedTuple):
    """Vectors ``v`` with noise in them, the log-density of that noise, and the noise after it.

    Attributes:
        v: ``(B, ...)``.
        log_q: of (1), ``(B,)``, in nats.
        noise: the noise that is left.
    """

    v: Tensor
    log_q: Tensor
    noise: Noise


class Encoding(ABC):
    """A transform of data ``x`` to vectors ``v`` and back.

    Attributes:
        width: of the uniform noise on each coordinate of ``v``: 0 for continuous data, else at most
            1; broadcasts against a sample.
        present: valid values to put in the place of missing ones; broadcasts against a sample of
            ``x``.
        absent: the coordinates of ``v`` for missing values, a mask; broadcasts against a sample.
        wide: whether ``x`` and ``v`` need float64; the units of the field never do.
    """

    width: Tensor
    present: Tensor
    absent: Tensor
    wide: bool = False

    @property
    def exact(self) -> bool:
        """Whether it adds no noise, so that densities are exact."""
        return not bool(self.width.any())

    @abstractmethod
    def shape(self, sample: Shape) -> Shape:
        """Return the shape of ``v`` for one of ``x``."""

    @abstractmethod
    def base(self, x: Tensor) -> Tensor:
        """Return ``v`` without its noise; NaN where a value is missing."""

    @abstractmethod
    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        """Return ``v`` with independent noise for each sample."""

    def at(self, x: Tensor, share: float) -> Tensor:
        """Return ``v`` with a share of the width of the noise on every coordinate."""
        base = self.base(x)
        return base + share * self.width.to(base)

    def middle(self, x: Tensor) -> Tensor:
        """Return ``v`` with the mean of the noise; `inverse` returns ``x`` from it."""
        return self.at(x, 0.5)

    @abstractmethod
    def inverse(self, v: Tensor) -> Tensor:
        """Return the data that vectors stand for."""

    def drawn(self, v: Tensor, noise: Noise) -> Tensor:
        """Return the `inverse` with the noise of a decoder, if there is one."""
        return self.inverse(v)

    def moments(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the coordinates of data, its noise included: float64."""
        base, width = moments_of(rows, self.base), self.width.double()
        return base.mean + width / 2, base.variance + width**2 / 12

    @abstractmethod
    def observed(self, missing: Tensor) -> Tensor:
        """Return the mask of the coordinates of ``v`` that do not depend on missing values."""

    def partial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `middle` of data with NaN where values are wanted, and the mask `observed`.

        The coordinates for missing values are observed; the others outside the mask are arbitrary.
        """
        missing = x.isnan()
        return self.middle(torch.where(missing, self.present.to(x), x)), self.observed(missing)

    def completed(self, x: Tensor, v: Tensor) -> Tensor:
        """Return data with NaN replaced by the `inverse` of vectors, with nothing missing."""
        values = self.inverse(torch.where(self.absent.to(v.device), -math.inf, v))
        return torch.where(x.isnan(), values, x)

    @abstractmethod
    def check(self, x: Tensor, name: str) -> None:
        """Refuse data that is not of this kind.

        Raises:
            DataError: naming the first value that is not.
        """


def spread(base: Tensor, width: Tensor, u: Tensor) -> Tensor:
    """Return ``base + width u`` for ``u < 1``, less than ``base + width`` after rounding too."""
    width = width.to(base)
    return torch.minimum(base + width * u, torch.nextafter(base + width, base))


class _EachValue(Encoding):
    """An encoding of each value by itself."""

    present = torch.zeros(())
    absent = torch.zeros((), dtype=torch.bool)

    def shape(self, sample: Shape) -> Shape:
        return sample

    def base(self, x: Tensor) -> Tensor:
        return x

    def observed(self, missing: Tensor) -> Tensor:
        return ~missing


@dataclass(frozen=True)
class Continuous(_EachValue):
    """Data that is already continuous."""

    width = torch.zeros(())

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        return Encoded(x, torch.zeros(len(x), device=x.device), noise)

    def inverse(self, v: Tensor) -> Tensor:
        return v

    def check(self, x: Tensor, name: str) -> None:
        bad = (~x.isfinite()).nonzero()
        if len(bad):
            raise DataError(
                f"{name} has {len(bad)} value(s) that are not finite, the first at index "
                f"{tuple(bad[0].tolist())}: {float(x[tuple(bad[0])])}."
            )


@dataclass(frozen=True)
class Levels(_EachValue):
    """Whole numbers ``0 .. count - 1``, each standing for the unit interval above it."""

    count: int

    width = torch.ones(())

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        u, noise = noise.uniform_like(x)
        v = spread(x, self.width, u)
        return Encoded(v, torch.zeros(len(x), device=x.device), noise)

    def inverse(self, v: Tensor) -> Tensor:
        return v.floor().clamp(0, self.count - 1)

    def check(self, x: Tensor, name: str) -> None:
        bad = ((x != x.floor()) | (x < 0) | (x >= self.count)).nonzero()
        if len(bad):
            first = tuple(bad[0].tolist())
            raise DataError(
                f"{name} has {len(bad)} value(s) that are not whole numbers from 0 to "
                f"{self.count - 1}, the first at index {first}: {float(x[first]):g}. Give data as "
                f"it is in {self.count} levels, or train without levels."
            )
