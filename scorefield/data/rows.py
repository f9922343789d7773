"""Samples that are read as they are asked for, so that data may be larger than memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.data.contents import Values

_CHUNK = 2**22  # numbers in memory at a time, where one pass over all is needed


class Rows(Protocol):
    """What training needs of data ``(N, ...)``; a `Tensor` is one way to have it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, ...)``."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, items: Tensor, /) -> Tensor:
        """Return the samples of the given numbers, int64 ``(B,)`` on the CPU: ``(B, ...)``."""
        ...


def is_rows(x: object) -> bool:
    """Return whether an object is `Rows` itself: a float32 tensor, or one that gives tensors."""
    if isinstance(x, Tensor):
        return x.dtype is torch.float32
    others = ("__array__", "__dataframe__", "__arrow_c_stream__", "toarray", "obs")
    rows = hasattr(x, "shape") and hasattr(x, "__getitem__") and hasattr(x, "__len__")
    return rows and not any(hasattr(x, name) for name in others)


@dataclass(frozen=True)
class Read(Rows):
    """Some rows of a file's values, each batch by way of a function that makes it a tensor."""

    values: Values
    convert: Callable[[np.ndarray], Tensor]
    keep: np.ndarray
    sample: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.keep), *self.sample)

    def __len__(self) -> int:
        return len(self.keep)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        return self.convert(self.values[self.keep[items.numpy()]])


def spans(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the numbers of all rows of ``(N, ...)`` in their order, a bounded amount at a time."""
    step = max(1, _CHUNK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield np.arange(start, min(start + step, shape[0]))


def chunks(rows: Rows) -> Iterator[Tensor]:
    """Yield all samples in their order, a bounded amount at a time."""
    for span in spans(rows.shape):
        yield rows[torch.from_numpy(span)]


def digest(rows: Rows) -> str:
    """Return a digest of the shape and the values of all samples."""
    found = hashlib.sha256(f"{tuple(rows.shape)}".encode())
    for chunk in chunks(rows):
        found.update(chunk.contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Moments:
    """The number, mean and summed squares of what is not NaN, each coordinate by itself."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, rows: Rows, through: Callable[[Tensor], Tensor] = lambda x: x) -> Moments:
        """Return the moments of all samples, by one pass in float64.

        Reference: Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for
        computing sample variances.
        """
        parts = (cls.of_batch(through(chunk).double()) for chunk in chunks(rows))
        whole = next(parts)
        for part in parts:
            whole = whole.joined(part)
        return whole

    @classmethod
    def of_batch(cls, x: Tensor) -> Moments:
        """Return the moments of samples ``(B, ...)`` in float64."""
        count = (~x.isnan()).sum(0)
        mean = x.nansum(0) / count.clamp(min=1)
        return cls(count, mean, ((x - mean) ** 2).nansum(0))

    def joined(self, other: Moments) -> Moments:
        """Return the moments of both sets of samples."""
        count = self.count + other.count
        share = other.count.double() / count.clamp(min=1)
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * self.count * share
        return Moments(count, self.mean + step * share, squares)

    @property
    def variance(self) -> Tensor:
        """The mean square of the departures from the mean."""
        return self.squares / self.count.clamp(min=1)
