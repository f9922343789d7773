"""The transform between encoded data and a field's input, with its log-determinant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.data.encoding import Encoding
from scorefield.data.rows import Rows, moments_of


@dataclass(frozen=True)
class Standardize:
    """Shift and scale to zero mean and unit variance: ``z = (v - mean) / std``.

    ``mean`` and ``std`` broadcast against one sample: one value per feature for vectors, per
    channel for the rest.
    """

    mean: Tensor
    std: Tensor

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
        v = v if v.is_floating_point() else v.to(self.mean.dtype)
        return (v - self.mean.to(v)) / self.std.to(v)

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``v``."""
        return z * self.std.to(z) + self.mean.to(z)

    def log_det(self, shape: tuple[int, ...]) -> Tensor:
        """Return ``log |dz/dv|`` of one sample of the given shape, in nats: a 0-dim tensor."""
        return -self.std.double().log().expand(shape).sum()


def moments(rows: Rows, encoding: Encoding) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each coordinate of encoded data, its noise included: float64."""
    base, width = moments_of(rows, encoding.base), encoding.width.double()
    return base.mean + width / 2, base.variance + width**2 / 12
