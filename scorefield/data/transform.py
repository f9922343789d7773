"""Transforms between data and what a field sees, with their log-determinants."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Standardize:
    """Shift and scale to zero mean and unit variance: ``z = (x - mean) / std``.

    ``mean`` and ``std`` broadcast against one sample: one value per feature for vectors, per
    channel for the rest.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> Standardize:
        """Return the transform of data ``(N, ...)``: per feature of vectors, else per channel.

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
        return cls(mean.float().reshape(shape), std.float().reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``z``."""
        return (x - self.mean.to(x)) / self.std.to(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``x``."""
        return z * self.std.to(z) + self.mean.to(z)

    def log_det(self, shape: tuple[int, ...]) -> Tensor:
        """Return ``log |dz/dx|`` of one sample of the given shape, in nats: a 0-dim tensor."""
        return -self.std.double().log().expand(shape).sum()
