"""Samples that are read when they are needed, so that data may be larger than memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.statistics import Moments

if TYPE_CHECKING:
    from scorefield.data.contents import Values

_CHUNK = 2**22  # numbers in memory at a time, where one pass over all is needed


class Rows(Protocol):
    """The interface of data ``(N, ...)`` in training, which a `Tensor` has too.

    A thread reads the next batch while the network learns from one.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, ...)``."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, items: Tensor, /) -> Tensor:
        """Return the samples of these numbers, int64 ``(B,)`` on the CPU: ``(B, ...)``."""
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
    """Some rows of a file's values, each batch converted to a tensor by a function."""

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
    """Yield the numbers of all rows of ``(N, ...)`` in order, a bounded amount at a time."""
    step = max(1, _CHUNK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield np.arange(start, min(start + step, shape[0]))


def chunks(rows: Rows) -> Iterator[Tensor]:
    """Yield all samples in order, a bounded amount at a time."""
    for span in spans(rows.shape):
        yield rows[torch.from_numpy(span)]


def digest(rows: Rows) -> str:
    """Return a digest of the shape and the values of all samples."""
    result = hashlib.sha256(f"{tuple(rows.shape)}".encode())
    for chunk in chunks(rows):
        result.update(chunk.contiguous().numpy().tobytes())
    return result.hexdigest()


def moments_of(rows: Rows, through: Callable[[Tensor], Tensor]) -> Moments:
    """Return the moments of all samples, each batch converted by a function, in one pass."""
    return reduce(Moments.joined, (Moments.of(through(chunk)) for chunk in chunks(rows)))
