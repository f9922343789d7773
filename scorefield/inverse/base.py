"""Operators: the base classes, and the defaults derived from `forward`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorefield.field import Shape

ALL = torch.ones((), dtype=torch.bool)


class Operator(ABC):
    """A differentiable map from samples to measurements.

    Only `forward` has to be written. Constants in it should follow the sample's type and device,
    as ``self.weights.to(x)``.

    Attributes:
        observed: boolean, to broadcast with a measurement: which of its entries are observed. The
            others are ignored, and may be NaN. All are observed by default.
    """

    observed: Tensor = ALL

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the measurements ``(B, ...)`` of samples ``(B, *sample)``, without noise."""

    def shape(self, sample: Shape) -> Shape:
        """Return the shape of the measurement of one sample, by default from a trial call.

        Raises:
            ValueError: the operator does not measure samples of this shape.
        """
        y = self.forward(torch.zeros(1, *sample))
        if y.ndim < 2 or len(y) != 1:
            raise ValueError(
                f"operator={type(self).__name__}: it returns shape {tuple(y.shape)} for one sample "
                f"of shape {sample}; return (B, ...) for a batch (B, ...)."
            )
        return tuple(y.shape[1:])

    def standardized(self, measured: Tensor, mean: Tensor, std: Tensor) -> tuple[Operator, Tensor]:
        """Return the operator and the measurements of ``z = (x - mean) / std``.

        Args:
            measured: measurements of ``x``, ``(B, ...)``.
            mean, std: ``(1, *sample)``.
        """
        return _Affine(self, std, mean, self.observed), measured


class LinearOperator(Operator, ABC):
    """A linear map from samples to measurements.

    Example:
        The sum of neighbouring entries of vectors::

            class Sums(sf.LinearOperator):
                def forward(self, x):
                    return x[:, 1:] + x[:, :-1]

            field = sf.Gaussian(sf.VP(), torch.zeros(4), torch.eye(4))
            y = torch.tensor([[3.0, 1.0, 0.0]])
            x = sf.restore(field, y, Sums(), noise_std=0.1, n=8)
            posterior = sf.MMPS(field, Sums(), y[0], noise_std=0.1)
    """

    def adjoint(self, y: Tensor, sample: Shape) -> Tensor:
        """Return ``A^T y`` ``(B, *sample)`` for measurements ``(B, ...)``, from `forward`."""
        # the gradient of a linear map is the same at every x
        pull: Callable[[Tensor], tuple[Tensor]]
        pull = torch.func.vjp(self.forward, y.new_zeros(len(y), *sample))[1]
        x: Tensor = pull(y)[0]
        return x

    def standardized(
        self, measured: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[LinearOperator, Tensor]:
        return _Scaled(self, std, self.observed), measured - self.forward(mean.to(measured))


@dataclass(frozen=True, eq=False)
class _Affine(Operator):
    """An operator of samples that are first multiplied by ``std`` and shifted by ``mean``."""

    base: Operator
    std: Tensor
    mean: Tensor
    observed: Tensor = field()

    def forward(self, x: Tensor) -> Tensor:
        return self.base.forward(self.std.to(x) * x + self.mean.to(x))


@dataclass(frozen=True, eq=False)
class _Scaled(LinearOperator):
    """A linear operator of samples that are first multiplied by ``std``."""

    base: LinearOperator
    std: Tensor
    observed: Tensor = field()

    def forward(self, x: Tensor) -> Tensor:
        return self.base.forward(self.std.to(x) * x)
