r"""Operators: how a measurement ``y = A(x) + n`` comes about.

A linear one has an adjoint, ``<A x, y> = <x, A^T y>``, exact up to rounding. All act on batches
``(B, *sample)`` and keep the samples apart.

=============  =====================================  ==========================================
operator       a measurement                          A A^T
=============  =====================================  ==========================================
`Mask`         the sample, 0 where not observed       1 where observed
`Downsample`   means over blocks of side ``k``        1 / k^n in n dimensions
`Grey`         a weighted sum of the channels         the sum of the squared weights
`Fourier`      a part of the orthonormal spectrum     1/2 for a frequency beside its negative
`Blur`         the convolution with a kernel          circular: that with its autocorrelation
`Matrix`       a matrix times the flattened sample    M M^T
`Nonlinear`    any function
=============  =====================================  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from scorefield.field import Shape
from scorefield.inverse.base import ALL, LinearOperator, Operator

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
_REACH = 3.0  # deviations at which a Gaussian kernel is cut off
Boundary = Literal["circular", "zero"]


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """Some entries of a sample.

    Args:
        observed: which, to broadcast with a sample; or ``(B, *sample)``, for each of a batch.
        checked: it is known to be good, though there may be none to observe, or none to miss.

    Raises:
        ValueError: another type; no entry is observed, or every one.
    """

    observed: Tensor
    checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        count, total = int(self.observed.sum()), self.observed.numel()
        if self.observed.dtype != torch.bool or not (self.checked or 0 < count < total):
            raise ValueError(
                f"observed has type {self.observed.dtype} and {count} of {total} entries: give "
                "torch.bool, true for some entries and false for others."
            )

    def shape(self, sample: Shape) -> Shape:
        given = tuple(self.observed.shape)
        if not broadcasts(given if len(given) <= len(sample) else given[1:], sample):
            raise _unfit(f"Mask has shape {given}", "one that broadcasts with them", sample)
        return sample

    def forward(self, x: Tensor) -> Tensor:
        return x * self.observed.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.observed.to(y)


@dataclass(frozen=True, eq=False)
class Downsample(LinearOperator):
    """Means over blocks, of signals ``(C, L)`` and images ``(C, H, W)``.

    Args:
        factor: the side of a block, at least 2; it divides the sides of a sample.
    """

    factor: int

    observed = ALL

    def __post_init__(self) -> None:
        if not isinstance(self.factor, Integral) or self.factor < 2:
            raise ValueError(f"factor = {self.factor}: give the side of a block, 2 or more.")

    def shape(self, sample: Shape) -> Shape:
        channels, *sides = sample
        if not sides or any(side % self.factor for side in sides):
            raise _unfit(f"Downsample({self.factor})", f"sides that {self.factor} divides", sample)
        return channels, *(side // self.factor for side in sides)

    def forward(self, x: Tensor) -> Tensor:
        for axis in range(2, x.ndim):
            x = x.reshape(*x.shape[:axis], -1, self.factor, *x.shape[axis + 1 :]).mean(axis + 1)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for axis in range(2, y.ndim):
            y = y.repeat_interleave(self.factor, axis) / self.factor
        return y


@dataclass(frozen=True, eq=False)
class Grey(LinearOperator):
    """One channel out of several: their weighted sum.

    Args:
        weights: of the channels; those of luma for red, green and blue unless given.

    Raises:
        ValueError: no weights but zeros.
    """

    weights: tuple[float, ...] = _LUMA

    observed = ALL

    def __post_init__(self) -> None:
        if not any(self.weights):
            raise ValueError(f"weights = {self.weights}: give one for each channel, not all 0.")

    def shape(self, sample: Shape) -> Shape:
        if len(sample) < 2 or sample[0] != len(self.weights):
            raise _unfit(
                f"Grey has {len(self.weights)} weights", f"{len(self.weights)} channels", sample
            )
        return 1, *sample[1:]

    def forward(self, x: Tensor) -> Tensor:
        return (self._along(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._along(y) * y

    def _along(self, x: Tensor) -> Tensor:
        return x.new_tensor(self.weights).reshape(1, -1, *[1] * (x.ndim - 2))


@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """The convolution of every channel with a kernel, centred, of a sample's own size.

    Args:
        kernel: ``(K,)`` for signals ``(C, L)``, ``(K, K')`` for images ``(C, H, W)``; the sides
            odd, and none longer than a sample's.
        boundary: what is beyond an edge: the opposite side, or zeros.

    Raises:
        ValueError: a kernel of other sides, or of zeros.
    """

    kernel: Tensor
    boundary: Boundary = "circular"

    observed = ALL

    def __post_init__(self) -> None:
        if self.boundary not in ("circular", "zero"):
            raise ValueError(f'boundary = {self.boundary!r}: give "circular" or "zero".')
        sides = tuple(self.kernel.shape)
        if len(sides) not in (1, 2) or not all(k % 2 for k in sides) or not self.kernel.any():
            raise ValueError(
                f"kernel has shape {sides}: give one or two odd sides, and values that are not 0."
            )

    @classmethod
    def gaussian(cls, std: float, dimensions: int, boundary: Boundary = "circular") -> Blur:
        """Return the blur by a Gaussian of a deviation in pixels, cut off at 3 of them, of sum 1.

        Raises:
            ValueError: a deviation that is not positive.
        """
        if not 0 < std < math.inf:
            raise ValueError(f"std = {std:g}: give a positive number of pixels.")
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
                f"Blur has a kernel {sides}", "channels, and as many sides, none shorter", sample
            )
        return sample

    def forward(self, x: Tensor) -> Tensor:
        return self._convolved(x, self.kernel.flip(*range(-self.kernel.ndim, 0)))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._convolved(y, self.kernel)

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Return the correlation of every channel with a kernel."""
        channels = x.flatten(0, 1)[:, None]
        edges = [k // 2 for k in reversed(kernel.shape) for _ in range(2)]
        mode = "circular" if self.boundary == "circular" else "constant"
        wide = functional.pad(channels, edges, mode=mode)
        convolve = functional.conv1d if kernel.ndim == 1 else functional.conv2d
        return convolve(wide, kernel.to(x)[None, None]).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Fourier(LinearOperator):
    """Part of the orthonormal discrete Fourier transform along all axes but the channels.

    A measurement is ``(2, *sample)``: the real and the imaginary parts, 0 where not observed.

    Args:
        frequencies: which are observed, in the order of `torch.fft.fftn`, to broadcast with a
            sample.

    Raises:
        ValueError: another type, or none is observed.
    """

    frequencies: Tensor

    def __post_init__(self) -> None:
        if self.frequencies.dtype != torch.bool or not bool(self.frequencies.any()):
            raise ValueError(
                f"frequencies have type {self.frequencies.dtype} and {int(self.frequencies.sum())} "
                "are observed: give torch.bool, true for some."
            )

    @property
    def observed(self) -> Tensor:  # type: ignore[override]
        return self.frequencies

    def shape(self, sample: Shape) -> Shape:
        given = tuple(self.frequencies.shape)
        if len(sample) < 2 or not broadcasts(given, sample):
            raise _unfit(
                f"Fourier has frequencies {given}", "channels, and sides that fit them", sample
            )
        return 2, *sample

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")
        return torch.stack([spectrum.real, spectrum.imag], 1) * self.frequencies.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        real, imaginary = (y * self.frequencies.to(y)).unbind(1)
        axes = tuple(range(2, real.ndim))
        x: Tensor = torch.fft.ifftn(torch.complex(real, imaginary), dim=axes, norm="ortho").real
        return x


@dataclass(frozen=True, eq=False)
class Matrix(LinearOperator):
    """A matrix times the flattened sample.

    Args:
        matrix: ``(m, d)``, finite.
        sample: the shape of a sample of ``d`` entries; ``(d,)`` unless given.

    Raises:
        ValueError: they do not fit.
    """

    matrix: Tensor
    sample: Shape | None = None

    observed = ALL

    def __post_init__(self) -> None:
        given = tuple(self.matrix.shape)
        if (
            len(given) != 2
            or not bool(self.matrix.isfinite().all())
            or (self.sample is not None and math.prod(self.sample) != given[1])
        ):
            raise ValueError(
                f"matrix has shape {given}, for samples of {self.sample or 'd entries'}: give a "
                "finite (m, d), d the number of entries of a sample."
            )

    def shape(self, sample: Shape) -> Shape:
        own = self.sample or (self.matrix.shape[1],)
        if tuple(own) != sample:
            raise _unfit(f"Matrix has shape {tuple(self.matrix.shape)}", f"shape {own}", sample)
        return (self.matrix.shape[0],)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y)).reshape(len(y), *(self.sample or (-1,)))


@dataclass(frozen=True, eq=False)
class Nonlinear(Operator):
    """Any differentiable function of samples ``(B, *sample)`` that keeps them apart."""

    function: Callable[[Tensor], Tensor]

    observed = ALL

    def shape(self, sample: Shape) -> Shape:
        found = self.function(torch.zeros(1, *sample))
        if found.ndim < 2 or len(found) != 1:
            raise _unfit(
                f"the function returns shape {tuple(found.shape)} for one sample",
                "a measurement (1, ...) of each",
                sample,
            )
        return tuple(found.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def standardized(self, measured: Tensor, mean: Tensor, std: Tensor) -> tuple[Nonlinear, Tensor]:
        return Nonlinear(lambda z: self.function(z * std.to(z) + mean.to(z))), measured


def broadcasts(given: Shape, sample: Shape) -> bool:
    """Tell whether a shape broadcasts to that of a sample."""
    sides = zip(given[::-1], sample[::-1], strict=False)
    return len(given) <= len(sample) and all(a in (1, b) for a, b in sides)


def _unfit(has: str, needs: str, sample: Shape) -> ValueError:
    return ValueError(f"{has} and samples have shape {sample}: it needs {needs}.")
