"""Vectors whose columns differ in kind: numbers, categories, constants, missing values.

A column of the data is one number: a value, the code of a category, or NaN for a missing value. A
field learns from it:

- a number: itself;
- a whole number: itself with noise from 0 to 1 on top, or to 1/2 in a column of few values;
- two categories: 0 or 1 with noise from 0 to 1/2; more of them: one coordinate each, 1 for the
  category and 0 for the rest, with such noise on all; a missing value is another category;
- a constant: nothing;
- a number with missing values: itself, or normal noise of the column's mean and deviation where
  it is missing; and a coordinate for that, 0 or 1 with noise to 1/2.

Noise to 1/2 leaves room between the values, so a small error of a field does not change the value.
Samples have whole numbers, categories, constants and missing values where the data has them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.config import ColumnsConfig, numbered
from scorefield.data.encoding import Encoded, Encoding, Shape, spread
from scorefield.noise import Noise

MISSING = ""  # among the labels of a category
NARROW = 0.5  # width of the noise that leaves room between values
_FEW = 16  # whole numbers
_EXACT = 2.0**53  # up to which float64 holds every whole number


class Kind(ABC):
    """Columns ``x`` ``(B, n)`` of one kind, and their coordinates ``v`` ``(B, size)``.

    Attributes:
        size: the number of coordinates.
        width: of the noise on each.
        absent: the coordinates for missing values: all, the last or none.
    """

    size: int
    width: float
    absent = slice(0)

    @abstractmethod
    def base(self, x: Tensor) -> Tensor:
        """Return the coordinates without noise, NaN where a number is missing."""

    @abstractmethod
    def inverse(self, v: Tensor) -> Tensor:
        """Return the columns that coordinates stand for."""

    @abstractmethod
    def fits(self, x: Tensor) -> Tensor:
        """Return which values are of the kind, ``(B, n)``."""

    @abstractmethod
    def needs(self, column: int) -> str:
        """Return the condition on the values of a column, for a message."""


@dataclass(frozen=True)
class Numbers(Kind):
    """Continuous numbers."""

    size: int
    width = 0.0

    def base(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, v: Tensor) -> Tensor:
        return v

    def fits(self, x: Tensor) -> Tensor:
        return x.isfinite()

    def needs(self, column: int) -> str:
        return "a finite number"


@dataclass(frozen=True)
class Whole(Kind):
    """Whole numbers between a least and a greatest, each for the unit interval above it."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    width: float

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.low)

    def base(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, v: Tensor) -> Tensor:
        return nearest(v, self.width).clamp(v.new_tensor(self.low), v.new_tensor(self.high))

    def fits(self, x: Tensor) -> Tensor:
        return x.isfinite() & (x == x.floor())

    def needs(self, column: int) -> str:
        return "a whole number"


@dataclass(frozen=True)
class Category(Kind):
    """One column of codes of labels; NaN for the last where that is a missing value."""

    labels: tuple[str, ...]
    width = NARROW

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.labels) if len(self.labels) > 2 else len(self.labels) - 1

    @property
    def absent(self) -> slice:  # type: ignore[override]
        return slice(-1, None) if self.labels[-1] == MISSING else slice(0)

    def base(self, x: Tensor) -> Tensor:
        code = x.nan_to_num(nan=len(self.labels) - 1)
        if self.size < 2:
            return code[:, : self.size]
        return torch.nn.functional.one_hot(code[:, 0].long(), self.size).to(x)

    def inverse(self, v: Tensor) -> Tensor:
        if not self.size:
            return v.new_zeros(len(v), 1)
        one = self.size == 1
        code = (nearest(v, self.width) >= 1) if one else v.argmax(1, keepdim=True)
        missing = (code == len(self.labels) - 1) & (self.labels[-1] == MISSING)
        return torch.where(missing, math.nan, code.to(v))

    def fits(self, x: Tensor) -> Tensor:
        code = (x >= 0) & (x < len(self.labels)) & (x == x.floor())
        return code | (x.isnan() & (self.labels[-1] == MISSING))

    def needs(self, column: int) -> str:
        return f"one of {', '.join(map(repr, self.labels))}"


@dataclass(frozen=True)
class Constant(Kind):
    """Values that never change, which have no coordinates."""

    values: tuple[float, ...]
    size = 0
    width = 0.0

    def base(self, x: Tensor) -> Tensor:
        return x[:, :0]

    def inverse(self, v: Tensor) -> Tensor:
        return v.new_tensor(self.values).expand(len(v), -1)

    def fits(self, x: Tensor) -> Tensor:
        return x.float() == torch.tensor(self.values, device=x.device)

    def needs(self, column: int) -> str:
        return f"{self.values[column]:g}, the only value in the training data"


@dataclass(frozen=True)
class Flag(Kind):
    """Whether numbers are missing; the numbers themselves are another kind."""

    size: int
    width = NARROW
    absent = slice(None)

    def base(self, x: Tensor) -> Tensor:
        return x.isnan().to(x)

    def inverse(self, v: Tensor) -> Tensor:
        return torch.where(nearest(v, self.width) >= 1, math.nan, torch.zeros_like(v))

    def fits(self, x: Tensor) -> Tensor:
        return ~x.isinf()

    def needs(self, column: int) -> str:
        return "a number or a missing value"


def nearest(v: Tensor, width: float) -> Tensor:
    """Return the whole numbers whose intervals ``k`` to ``k + width`` are nearest to ``v``."""
    return (v + (1 - width) / 2).floor()


class Columns(Encoding):
    """The encoding of vectors ``(B, count)`` with given columns.

    Raises:
        ValueError: names that do not match the columns; columns that are all constant.
    """

    def __init__(self, config: ColumnsConfig, count: int) -> None:
        self.names = config.names or numbered(count)
        special = {*config.whole, *config.categories, *config.constant, *config.missing}
        unknown = sorted(special - set(self.names))
        if unknown or len(set(self.names)) != count:
            raise ValueError(
                f"{count} columns have {len(set(self.names))} names, and {unknown} are not among "
                "them."
            )
        self.config, self.count = config, count
        self.parts = self._parts()
        sizes = [kind.size for kind, _ in self.parts]
        if not sum(sizes):
            raise ValueError("all columns are constant: there is nothing to learn.")
        self.width = torch.cat([torch.full((kind.size,), kind.width) for kind, _ in self.parts])
        ends = torch.tensor(sizes).cumsum(0).tolist()
        self.spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.absent = torch.zeros(sum(sizes), dtype=torch.bool)
        for (kind, _), span in zip(self.parts, self.spans, strict=True):
            self.absent[span][kind.absent] = True
        self.present = torch.tensor([self._present(name) for name in self.names])
        # moments of the noise in the place of missing numbers, with the noise of whole numbers
        normal = torch.tensor([config.missing.get(name, (0.0, 1.0)) for name in self.names])
        mean, std = self.base(normal[:, :1].T)[0], self.base(normal[:, 1:].T)[0]
        self.mean = mean + self.width / 2
        self.std = (std**2 + self.width**2 / 12).sqrt()

    def _parts(self) -> list[tuple[Kind, list[int]]]:
        """Return the kinds, each with all its columns."""
        config, names = self.config, list(enumerate(self.names))
        whole = [k for k, name in names if name in config.whole]
        constant = [k for k, name in names if name in config.constant]
        partly = [k for k, name in names if name in config.missing]
        special = {*config.whole, *config.constant, *config.categories}
        plain = [k for k, name in names if name not in special]
        few, many = list[int](), list[int]()
        for k in whole:
            low, high = config.whole[self.names[k]]
            (few if high - low < _FEW else many).append(k)
        parts: list[tuple[Kind, list[int]]] = [
            (Numbers(len(plain)), plain),
            (self._whole(few, NARROW), few),
            (self._whole(many, 1.0), many),
            (Constant(tuple(config.constant[self.names[k]] for k in constant)), constant),
            (Flag(len(partly)), partly),
        ]
        parts = [(kind, columns) for kind, columns in parts if columns]
        texts = [(k, name) for k, name in names if name in config.categories]
        return parts + [(Category(config.categories[name]), [k]) for k, name in texts]

    def _present(self, name: str) -> float:
        """Return a value that a column may have; for a category, the code of the first label."""
        config = self.config
        return config.constant.get(name, config.whole.get(name, (0.0, 0.0))[0])

    def _whole(self, columns: list[int], width: float) -> Whole:
        ends = [self.config.whole[self.names[k]] for k in columns]
        return Whole(tuple(low for low, _ in ends), tuple(high for _, high in ends), width)

    def shape(self, sample: Shape) -> Shape:
        return (len(self.mean),)

    def base(self, x: Tensor) -> Tensor:
        return torch.cat([kind.base(x[:, columns]) for kind, columns in self.parts], 1)

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        v = self.base(x)
        if not self.exact:
            u, noise = noise.uniform_like(v)
            v = spread(v, self.width, u)
        uniform = torch.where(self.width > 0, -self.width.log(), 0.0).to(v)
        if not self.config.missing:
            return Encoded(v, uniform.sum().expand(len(v)), noise)
        eps, noise = noise.normal(v)
        missing, std = v.isnan(), self.std.to(v)
        log_q = -(eps**2) / 2 - (std * math.sqrt(2 * math.pi)).log()
        v = torch.where(missing, self.mean.to(v) + std * eps, v)
        return Encoded(v, torch.where(missing, log_q, uniform).sum(1), noise)

    def middle(self, x: Tensor) -> Tensor:
        v = self.base(x)
        return torch.where(v.isnan(), self.mean.to(v), v + self.width.to(v) / 2)

    def inverse(self, v: Tensor) -> Tensor:
        x = v.new_zeros(len(v), self.count)
        for (kind, columns), span in zip(self.parts, self.spans, strict=True):
            # the NaN of a missing value covers the number under it
            x[:, columns] += kind.inverse(v[:, span])
        return x

    def observed(self, missing: Tensor) -> Tensor:
        parts = [
            (~missing[:, columns[: kind.size]]).expand(-1, kind.size)
            for kind, columns in self.parts
        ]
        return torch.cat(parts, 1) | self.absent.to(missing.device)

    def check(self, x: Tensor, name: str) -> None:
        partly = torch.tensor([n in self.config.missing for n in self.names], device=x.device)
        for kind, columns in self.parts:
            some = x[:, columns]
            bad = (~kind.fits(some) & ~(some.isnan() & partly[columns])).nonzero()
            if len(bad):
                row, place = bad[0].tolist()
                raise DataError(
                    f"{name}, item {row}, column {self.names[columns[place]]}: "
                    f"{float(some[row, place]):g}, but it must be {kind.needs(place)}."
                )


def as_table(x: np.ndarray, config: ColumnsConfig) -> Any:
    """Return vectors ``(N, count)`` as a `pyarrow.Table`: texts for codes, whole numbers as such.

    A missing value is null.
    """
    import pyarrow

    names, table = config.names or numbered(x.shape[1]), {}
    for name, column in zip(names, x.T, strict=True):
        missing = np.isnan(column)
        if name in config.categories:
            labels = pyarrow.array(config.categories[name], "string")
            codes = np.where(missing, 0, column).astype(np.int64)
            table[name] = labels.take(pyarrow.array(codes, mask=missing))
        else:
            whole = _prints_whole(name, config)
            kind = np.dtype(np.int64) if whole else column.dtype
            numbers = np.where(missing, 0, column).astype(kind)
            table[name] = pyarrow.array(numbers, mask=missing)
    return pyarrow.table(table)


def _prints_whole(name: str, config: ColumnsConfig) -> bool:
    if name in config.constant:
        value = config.constant[name]
        return value.is_integer() and abs(value) < _EXACT
    return name in config.whole
