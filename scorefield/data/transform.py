"""Transforms between data and what a field sees, with their log-determinants.

Whole numbers have no density. With noise from 0 to 1 on top, `Levels`, they have one, and its mean
over the noise is the probability of the number: so the mean log-density is a lower bound of the
log-probability.

Reference: Theis, van den Oord and Bethge (2016), arXiv:1511.01844, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scorefield.errors import DataError
from scorefield.noise import Noise


@dataclass(frozen=True)
class Levels:
    """Whole numbers ``0 .. count - 1``, each standing for the unit interval above it."""

    count: int

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        """Return data ``(B, ...)`` with uniform noise in (0, 1) on top; its log-det is 0."""
        return x + noise.uniform_like(x)[0]

    def inverse(self, x: Tensor) -> Tensor:
        """Return the whole numbers that continuous values stand for."""
        return x.floor().clamp(0, self.count - 1)

    def check(self, x: Tensor, name: str) -> None:
        """Refuse data that is not such whole numbers.

        Raises:
            DataError: naming the first value that is none.
        """
        bad = ((x != x.floor()) | (x < 0) | (x >= self.count)).nonzero()
        if len(bad):
            first = tuple(bad[0].tolist())
            raise DataError(
                f"{name} has {len(bad)} value(s) that are no whole numbers from 0 to "
                f"{self.count - 1}, the first at index {first}: {float(x[first]):g}. Give data as "
                f"it is in {self.count} levels, or train without levels."
            )


@dataclass(frozen=True)
class Standardize:
    """Shift and scale to zero mean and unit variance: ``z = (x - mean) / std``.

    ``mean`` and ``std`` broadcast against one sample: one value per feature for vectors, per
    channel for the rest.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, x: Tensor, *, between: float = 0.0) -> Standardize:
        """Return the transform of data ``(N, ...)``: per feature of vectors, else per channel.

        Args:
            between: the width of uniform noise that will be on top.

        Raises:
            ValueError: a feature or channel that never changes.
        """
        axes = [0, *range(2, x.ndim)]
        shape = (-1, *[1] * (x.ndim - 2))
        wide = x.double()
        mean, std = wide.mean(axes), wide.std(axes, correction=0)
        if not bool((std > 0).all()):
            constant = (std == 0).nonzero().flatten().tolist()
            raise ValueError(f"feature(s) or channel(s) {constant} never change: remove them.")
        mean, std = mean + between / 2, (std**2 + between**2 / 12).sqrt()
        return cls(mean.float().reshape(shape), std.float().reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``z``, of a floating type also for whole numbers."""
        x = x if x.is_floating_point() else x.to(self.mean.dtype)
        return (x - self.mean.to(x)) / self.std.to(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``x``."""
        return z * self.std.to(z) + self.mean.to(z)

    def log_det(self, shape: tuple[int, ...]) -> Tensor:
        """Return ``log |dz/dx|`` of one sample of the given shape, in nats: a 0-dim tensor."""
        return -self.std.double().log().expand(shape).sum()
