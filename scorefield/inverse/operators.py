r"""Operators ``A`` of measurements ``y = A(x) + n``.

All act on batches ``(B, *sample)``, each sample independently of the others.

=============  =====================================  ==========================================
operator       a measurement                          A A^T
=============  =====================================  ==========================================
`Mask`         the sample, 0 where not observed       1 where observed
`Downsample`   means over blocks of side ``k``        1 / k^n in n dimensions
`Grey`         a weighted sum of the channels         the sum of the squared weights
`Fourier`      a part of the orthonormal spectrum     1/2 for a frequency and its negative
`Blur`         the convolution with a kernel          circular: its autocorrelation
`Matrix`       a matrix times the flattened sample    M M^T
`Nonlinear`    any function
=============  =====================================  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from scorefield.field import Shape
from scorefield.inverse.base import LinearOperator, Operator
from scorefield.process import check_instance, check_whole

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
_REACH = 3.0  # standard deviations at which a Gaussian kernel is cut off
Boundary = Literal["circular", "zero"]


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """Some entries of a sample.

    Args:
        observed: boolean, true for the observed entries; to broadcast with a sample, or
            ``(B, *sample)`` for each sample of a batch.
        checked: allow a mask without observed entries, or without missing ones.

    Raises:
        ValueError: ``observed`` is not boolean, or has no true or no false entry.
    """

    observed: Tensor = field()
    checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_instance("observed", self.observed, Tensor, "torch.tensor([True, False])")
        count, total = int(self.observed.sum()), self.observed.numel()
        if self.observed.dtype != torch.bool or not (self.checked or 0 < count < total):
            raise ValueError(
                f"observed={self.observed.dtype}, {count} of {total} entries: must be torch.bool, "
                "true for some entries and false for others."
            )

    def shape(self, sample: Shape) -> Shape:
        own = tuple(self.observed.shape)
        if not broadcasts(own if len(own) <= len(sample) else own[1:], sample):
            raise _unfit(f"Mask has shape {own}", "a shape that broadcasts with them", sample)
        return sample

    def forward(self, x: Tensor) -> Tensor:
        return x * self.observed.to(x)


@dataclass(frozen=True, eq=False)
class Downsample(LinearOperator):
    """Means over blocks, of signals ``(C, L)`` and images ``(C, H, W)``.

    Args:
        factor: the side of a block, at least 2; must divide the sides of a sample.
    """

    factor: int

    def __post_init__(self) -> None:
        check_whole(2, factor=self.factor)

    def shape(self, sample: Shape) -> Shape:
        channels, *sides = sample
        if not sides or any(side % self.factor for side in sides):
            raise _unfit(f"Downsample({self.factor})", f"sides that {self.factor} divides", sample)
        return channels, *(side // self.factor for side in sides)

    def forward(self, x: Tensor) -> Tensor:
        for axis in range(2, x.ndim):
            x = x.reshape(*x.shape[:axis], -1, self.factor, *x.shape[axis + 1 :]).mean(axis + 1)
        return x


@dataclass(frozen=True, eq=False)
class Grey(LinearOperator):
    """The weighted sum of the channels.

    Args:
        weights: one per channel; by default the luma of red, green and blue.

    Raises:
        ValueError: all weights are 0.
    """

    weights: tuple[float, ...] = _LUMA

    def __post_init__(self) -> None:
        if not any(self.weights):
            raise ValueError(f"weights={self.weights}: must be one per channel, not all 0.")

    def shape(self, sample: Shape) -> Shape:
        if len(sample) < 2 or sample[0] != len(self.weights):
            raise _unfit(
                f"Grey has {len(self.weights)} weights", f"{len(self.weights)} channels", sample
            )
        return 1, *sample[1:]

    def forward(self, x: Tensor) -> Tensor:
        weights = x.new_tensor(self.weights).reshape(1, -1, *[1] * (x.ndim - 2))
        return (weights * x).sum(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """The centred convolution of every channel with a kernel; it keeps the sample's shape.

    Args:
        kernel: ``(K,)`` for signals ``(C, L)``, ``(K, K')`` for images ``(C, H, W)``; with odd
            sides, none longer than the sample's.
        boundary: pad with the opposite edge (``"circular"``) or with zeros (``"zero"``).

    Raises:
        ValueError: a kernel with an even side, or all 0; another boundary.
    """

    kernel: Tensor
    boundary: Boundary = "circular"

    def __post_init__(self) -> None:
        if self.boundary not in ("circular", "zero"):
            raise ValueError(f'boundary={self.boundary!r}: must be "circular" or "zero".')
        sides = tuple(self.kernel.shape)
        if len(sides) not in (1, 2) or not all(k % 2 for k in sides) or not self.kernel.any():
            raise ValueError(
                f"kernel has shape {sides}: must have one or two odd sides, and not be all 0."
            )

    @classmethod
    def gaussian(cls, std: float, dimensions: int, boundary: Boundary = "circular") -> Blur:
        """Return the blur by a Gaussian with a standard deviation in pixels.

        The kernel is cut off at 3 standard deviations, and its sum is 1.

        Raises:
            ValueError: ``std`` is not positive.
        """
        if not 0 < std < math.inf:
            raise ValueError(f"std={std:g}: must be a positive number of pixels.")
        reach = math.ceil(_REACH * std)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        line = (-(offsets**2) / (2 * std**2)).exp()
        line = line / line.sum()
        return cls(line if dimensions == 1 else torch.outer(line, line), boundary)

    def shape(self, sample: Shape) -> Shape:
        sides = tuple(self.kernel.shape)
        if len(sample) != len(sides) + 1 or any(
            k > side for k, side in zip(sides, sample[1:], strict=True)
        ):
            raise _unfit(
                f"Blur has a kernel {sides}", "channels, and as many sides, no shorter", sample
            )
        return sample

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.flip(*range(-self.kernel.ndim, 0)).to(x)
        edges = [k // 2 for k in reversed(kernel.shape) for _ in range(2)]
        mode = "circular" if self.boundary == "circular" else "constant"
        wide = functional.pad(x.flatten(0, 1)[:, None], edges, mode=mode)
        correlate = functional.conv1d if kernel.ndim == 1 else functional.conv2d
        return correlate(wide, kernel[None, None]).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Fourier(LinearOperator):
    """Part of the orthonormal discrete Fourier transform along all axes but the channels.

    A measurement is ``(2, *sample)``: the real and the imaginary parts, 0 where not observed.

    Args:
        frequencies: boolean, true for the observed ones, in the order of `torch.fft.fftn`; to
            broadcast with a sample.

    Raises:
        ValueError: ``frequencies`` is not boolean, or has no true entry.
    """

    frequencies: Tensor

    def __post_init__(self) -> None:
        if self.frequencies.dtype != torch.bool or not bool(self.frequencies.any()):
            raise ValueError(
                f"frequencies={self.frequencies.dtype}, {int(self.frequencies.sum())} observed: "
                "must be torch.bool, true for at least one."
            )

    @property
    def observed(self) -> Tensor:  # type: ignore[override]
        return self.frequencies

    def shape(self, sample: Shape) -> Shape:
        own = tuple(self.frequencies.shape)
        if len(sample) < 2 or not broadcasts(own, sample):
            raise _unfit(f"Fourier has frequencies {own}", "channels, and those sides", sample)
        return 2, *sample

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")
        return torch.stack([spectrum.real, spectrum.imag], 1) * self.frequencies.to(x)


@dataclass(frozen=True, eq=False)
class Matrix(LinearOperator):
    """A matrix times the flattened sample.

    Args:
        matrix: ``(m, d)``, finite, for samples of ``d`` entries in any shape.

    Raises:
        ValueError: ``matrix`` has another number of axes, or is not finite.
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        check_instance("matrix", self.matrix, Tensor, "torch.as_tensor(matrix)")
        if self.matrix.ndim != 2 or not bool(self.matrix.isfinite().all()):
            raise ValueError(
                f"matrix has shape {tuple(self.matrix.shape)}: must be (m, d) and finite, where d "
                "is the number of entries of a sample."
            )

    def shape(self, sample: Shape) -> Shape:
        m, d = self.matrix.shape
        if math.prod(sample) != d:
            raise _unfit(f"Matrix has shape {(m, d)}", f"{d} entries", sample)
        return (m,)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.to(x).T


@dataclass(frozen=True, eq=False)
class Nonlinear(Operator):
    """Any differentiable function of samples ``(B, *sample)``, each independent of the others."""

    function: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def broadcasts(shape: Shape, sample: Shape) -> bool:
    """Return whether a shape broadcasts to that of a sample."""
    sides = zip(shape[::-1], sample[::-1], strict=False)
    return len(shape) <= len(sample) and all(a in (1, b) for a, b in sides)


def _unfit(operator: str, needs: str, sample: Shape) -> ValueError:
    return ValueError(f"{operator}, and the samples have shape {sample}: they must have {needs}.")
