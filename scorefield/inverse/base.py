"""What an operator is: a map from samples to measurements that keeps the samples apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.field import Shape

ALL = torch.ones((), dtype=torch.bool)


class Operator(ABC):
    """A differentiable map from samples to measurements.

    Attributes:
        observed: which entries of a measurement tell something, to broadcast with it; the others
            are ignored, whatever they hold.
    """

    observed: Tensor

    @abstractmethod
    def shape(self, sample: Shape) -> Shape:
        """Return the shape of the measurement of a sample of a shape.

        Raises:
            ValueError: it measures no such samples.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the measurements ``(B, ...)`` of samples ``(B, *sample)``, without noise."""

    @abstractmethod
    def standardized(self, measured: Tensor, mean: Tensor, std: Tensor) -> tuple[Operator, Tensor]:
        """Return what measures ``z = (x - mean) / std`` to the same effect, and the measurements.

        Args:
            measured: of ``x``, ``(B, ...)``.
            mean, std: ``(1, *sample)``.
        """


class LinearOperator(Operator, ABC):
    """A linear map from samples to measurements."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``A^T y`` ``(B, *sample)`` for measurements ``(B, ...)``."""

    def standardized(
        self, measured: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[LinearOperator, Tensor]:
        return _Scaled(self, std), measured - self.forward(mean.to(measured))


@dataclass(frozen=True, eq=False)
class _Scaled(LinearOperator):
    """A linear operator of samples that are first multiplied by ``std``."""

    base: LinearOperator
    std: Tensor

    @property
    def observed(self) -> Tensor:  # type: ignore[override]
        return self.base.observed

    def shape(self, sample: Shape) -> Shape:
        return self.base.shape(sample)

    def forward(self, x: Tensor) -> Tensor:
        return self.base.forward(self.std.to(x) * x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.std.to(y) * self.base.adjoint(y)
