"""Vectors of the columns of a table: numbers on grids, repeated numbers, categories, gaps.

A column of the data is one float64 ``x``: a number, the code of a category, or NaN for a missing
value. A field learns from these coordinates:

- a number: an increasing map of it, with noise over one step of its grid, or over half a step
  where the grid has few, at mean 0 and deviation 1. Of few values without a grid, their positions
  count;
- a number that many rows share, an atom, or a missing value: normal noise in place of the number,
  and labels that say which of number, atom and missing value it is;
- two labels: 0 or 1 with noise from 0 to 1/2; more of them: one coordinate each, 1 for the label
  and 0 for the rest, with such noise on all; ordered labels: their position, as a number;
- a constant: nothing.

Noise to 1/2 leaves room between the values, so a small error of a field does not change the value.
Samples have the grids, ranges, values, labels and missing values of the data. The density of a
number is one per unit of the number, and atoms, labels and missing values have probabilities.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from statistics import NormalDist

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield._internal.statistics import Moments
from scorefield.data.config import (
    MOST_KNOTS,
    CategoryColumn,
    Column,
    ColumnsConfig,
    NumberColumn,
    numbered,
)
from scorefield.data.encoding import Encoded, Encoding, Shape, spread
from scorefield.data.monotone import Identity, Log, Logit, Mapped, Monotone, Quantiles
from scorefield.data.rows import Rows, chunks
from scorefield.noise import LEVELS, Noise
from scorefield.process import widest

NARROW = 0.5  # width of the noise that leaves room between values
_FEW = 16  # steps of a grid
_FINE = 2**14  # steps of a grid whose noise does not matter
_NUMBER = math.inf  # label of a number that is not an atom


class Numbers:
    """Numbers ``x`` ``(B, n)`` and their coordinates, of columns that have more than one value.

    Args:
        bounded: whether numbers stay in the range of the data.
        width: of the noise on ``base``.
        mean, std: of the mapped numbers. They are large where numbers are, so they are taken off in
            float64, before the field's float32.
    """

    def __init__(self, columns: list[NumberColumn], bounded: bool = True) -> None:
        self.columns, self.bounded = columns, bounded
        cells = list(map(_cells, columns))
        self.low = _row(0.0 if c.values else c.low for c in columns)
        self.high = _row(c.high for c in columns)
        self.step = _row(1.0 if c.values else c.step or 1.0 for c in columns)
        self.last = _row(cells) - 1
        self.grid = torch.tensor([bool(c.values or c.step) for c in columns])
        self.scale = _row(10.0**c.digits for c in columns)
        self.share = _row(0.0 if n >= _FINE else NARROW if n < _FEW else 1.0 for n in cells)
        self.width = self.share * self.step
        self.values = {k: _row(c.values) for k, c in enumerate(columns) if c.values}
        self.atoms = {k: _row(c.atoms) for k, c in enumerate(columns) if c.atoms}
        self.mean, self.std = _row(c.mean for c in columns), _row(c.std for c in columns)
        self.maps = list(_maps(columns))

    def base(self, x: Tensor) -> Tensor:
        """Return the least of the numbers or positions that stand for each; NaN for atoms."""
        original, x = x, x.to(widest(x.device), copy=True)
        for k, atoms in self.atoms.items():  # which are equal in the type of the caller
            x[:, k] = torch.where(
                torch.isin(original[:, k], atoms.to(original)), torch.nan, x[:, k]
            )
        for k, values in self.values.items():
            near = (x[:, k, None] - values.to(x)).abs().argmin(1)
            x[:, k] = torch.where(x[:, k].isnan(), x[:, k], near.to(x))
        low, step = self.low.to(x), self.step.to(x)
        on_grid = low + step * ((x - low) / step).round()
        return torch.where((self.width > 0).to(x.device), on_grid, x)

    def forward(self, p: Tensor) -> Mapped:
        """Return the coordinates of `base` with noise."""
        v, slope = self._each(p, lambda f, part: f.forward(part))
        std = self.std.to(p)
        return Mapped((v - self.mean.to(p)) / std, slope - std.log())

    def inverse(self, v: Tensor) -> Tensor:
        """Return the numbers that coordinates stand for."""
        v = v * self.std.to(v) + self.mean.to(v)
        p = self._each(v, lambda f, part: Mapped(f.inverse(part), part)).v
        low, step, last = self.low.to(p), self.step.to(p), self.last.to(p)
        share, scale = self.share.to(p), self.scale.to(p)
        cell = ((p - low) / step + torch.where(share > 0, (1 - share) / 2, 0.5)).floor()
        number = low + step * cell.clamp(min=0).minimum(last)
        number = torch.where(self.grid.to(p.device), (number * scale).round() / scale, p)
        x = number.clamp(low, self.high.to(p)) if self.bounded else number
        for k, values in self.values.items():
            x[:, k] = values.to(p)[cell[:, k].nan_to_num().clamp(0, len(values) - 1).long()]
        return x

    def _each(self, p: Tensor, apply: Callable[[Monotone, Tensor], Mapped]) -> Mapped:
        if len(self.maps) == 1:
            return apply(self.maps[0][0], p)
        v, log_slope = torch.empty_like(p), torch.empty_like(p)
        for f, places in self.maps:
            v[:, places], log_slope[:, places] = apply(f, p[:, places])
        return Mapped(v, log_slope)


def _row(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _cells(column: NumberColumn) -> float:
    """Return the number of values on the grid of a column; infinite without a grid."""
    if column.values:
        return len(column.values)
    return round((column.high - column.low) / column.step) + 1 if column.step else math.inf


def _maps(columns: list[NumberColumn]) -> Iterable[tuple[Monotone, list[int]]]:
    """Yield the maps of the columns, each with the positions of its columns."""
    groups = defaultdict[tuple[str, int], list[int]](list)
    for k, column in enumerate(columns):
        groups[column.map, len(column.knots)].append(k)
    for (name, count), places in groups.items():
        some = [columns[k] for k in places]
        low, high, room = (_row(values) for values in zip(*map(_ends, some), strict=True))
        if name == "log":
            yield Log(torch.where(low > 0, 0.0, low - room)), places
        elif name == "logit":
            yield Logit(low - room, high + room), places
        elif count:
            normal = NormalDist()
            levels = [normal.inv_cdf((k + 1 / 16) / (count - 7 / 8)) for k in range(count)]
            knots = torch.stack([_row(column.knots) for column in some])
            yield Quantiles(knots, _row(levels).expand(len(some), -1)), places
        else:
            yield Identity(), places


def _ends(column: NumberColumn) -> tuple[float, float, float]:
    """Return the range of a column's numbers with their noise, and some room around it."""
    cells = _cells(column)
    if column.values:
        return 0.0, cells - NARROW, 1.0
    width = column.step if cells < _FINE else 0.0
    return column.low, column.high + width, width or (column.high - column.low) / 1000


@dataclass(frozen=True)
class Labels:
    """The labels of a column, by the value ``x`` of each.

    Attributes:
        values: codes of a category, or `_NUMBER` and atoms; and NaN at the end if values may be
            missing.
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, column: Column) -> Labels | None:
        """Return the labels of a column, or None if it has only numbers."""
        gap = (math.nan,) if column.missing else ()
        if isinstance(column, CategoryColumn) and not column.ordered:
            return cls((*map(float, range(len(column.labels))), *gap))
        atoms = column.atoms if isinstance(column, NumberColumn) else ()
        return cls((_NUMBER, *atoms, *gap)) if atoms or gap else None

    @property
    def size(self) -> int:
        return len(self.values) if len(self.values) > 2 else len(self.values) - 1

    @property
    def absent(self) -> list[bool]:
        """Whether each coordinate is for missing values."""
        gap = math.isnan(self.values[-1])
        return [False] * (self.size - 1) + [gap] if self.size else []

    def base(self, x: Tensor) -> Tensor:
        """Return the coordinates of ``x`` ``(B,)`` without noise: ``(B, size)``."""
        table = _row(self.values).to(x)
        same = (x[:, None] == table) | (x.isnan()[:, None] & table.isnan())
        same[:, 0] |= ~same.any(1)
        return same.to(x) if self.size > 1 else same[:, 1:].to(x)

    def inverse(self, v: Tensor) -> Tensor:
        """Return the values of the labels ``(B,)``."""
        code = v.argmax(1) if self.size > 1 else (nearest(v, NARROW) >= 1).sum(1)
        return _row(self.values).to(v)[code]


def nearest(v: Tensor, width: float) -> Tensor:
    """Return the whole numbers whose intervals ``k`` to ``k + width`` are nearest to ``v``."""
    return (v + (1 - width) / 2).floor()


def _as_number(column: Column) -> NumberColumn | None:
    """Return a column whose numbers or ordered codes have a coordinate, else None."""
    if isinstance(column, CategoryColumn):
        if not column.ordered or len(column.labels) < 2:
            return None
        count = len(column.labels)
        return NumberColumn(
            name=column.name, missing=column.missing, step=1.0, low=0.0, high=count - 1.0
        )
    return column if column.low < column.high else None


class Columns(Encoding):
    """The encoding of vectors ``(B, count)`` of the columns of a table.

    Raises:
        ValueError: columns that do not match the vectors, or that are all constant.
    """

    def __init__(self, config: ColumnsConfig, count: int) -> None:
        self.names, self.kinds, self.count = config.names or numbered(count), config.kinds, count
        self.wide = bool(config.arrow)
        if tuple(c.name for c in self.kinds) != self.names or len(set(self.names)) != count:
            raise ValueError(
                f"{count} columns have the names {self.names} and the kinds of "
                f"{tuple(c.name for c in self.kinds)}."
            )
        numbers = [(k, c) for k, column in enumerate(self.kinds) if (c := _as_number(column))]
        self.places = [k for k, _ in numbers]
        self.numbers = Numbers([column for _, column in numbers], bounded=self.wide)
        labels = [(k, Labels.of(column)) for k, column in enumerate(self.kinds)]
        self.labels = [(k, each) for k, each in labels if each is not None]
        sizes = [len(numbers), *(each.size for _, each in self.labels)]
        if not sum(sizes):
            raise ValueError("all columns are constant: there is nothing to learn.")
        ends = torch.tensor(sizes).cumsum(0).tolist()
        self.spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        room = torch.full((sum(sizes[1:]),), NARROW, dtype=torch.float64)
        self.width = torch.cat([self.numbers.width, room])
        flags = [flag for _, each in self.labels for flag in each.absent]
        self.absent = torch.tensor([False] * len(numbers) + flags)
        self.present = _row(c.low if isinstance(c, NumberColumn) else 0.0 for c in self.kinds)
        share = torch.cat([self.numbers.share, room])
        self.uniform = torch.where(share > 0, -share.log(), 0.0)

    @property
    def exact(self) -> bool:
        return not bool(self.width.any()) and not self.labels

    def shape(self, sample: Shape) -> Shape:
        return (self.spans[-1].stop,)

    def base(self, x: Tensor) -> Tensor:
        parts = [self.numbers.base(x[:, self.places])]
        return torch.cat([*parts, *(each.base(x[:, k]) for k, each in self.labels)], 1)

    def _mapped(self, p: Tensor) -> Mapped:
        """Return the vectors of `base` with noise, NaN where it is NaN."""
        count = len(self.places)
        if not count:
            return Mapped(p, torch.zeros_like(p))
        v, slope = self.numbers.forward(p[:, :count])
        rest = p[:, count:]
        return Mapped(torch.cat([v, rest], 1), torch.cat([slope, torch.zeros_like(rest)], 1))

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        p = self.base(x)
        u, noise = noise.uniform_like(p)
        v, slope = self._mapped(spread(p, self.width, u))
        log_q = self.uniform.to(v) - slope
        if self.labels:
            count = len(self.places)
            eps, noise = noise.normal(v[:, :count])
            filled, normal = v[:, :count].isnan(), -(eps**2) / 2 - math.log(2 * math.pi) / 2
            v[:, :count] = torch.where(filled, eps, v[:, :count])
            log_q[:, :count] = torch.where(filled, normal, log_q[:, :count])
        return Encoded(v if self.wide else v.to(x), log_q.sum(1), noise)

    def at(self, x: Tensor, share: float) -> Tensor:
        v = self._mapped(self.base(x) + share * self.width.to(x.device)).v.nan_to_num(0.0)
        return v if self.wide else v.to(x)

    def inverse(self, v: Tensor) -> Tensor:
        kind, v = v.dtype, v.to(widest(v.device))
        x = v.new_zeros(len(v), self.count)
        for k, column in enumerate(self.kinds):
            if isinstance(column, NumberColumn) and column.low == column.high:
                x[:, k] = column.low
        if self.places:
            x[:, self.places] = self.numbers.inverse(v[:, self.spans[0]])
        for (k, each), span in zip(self.labels, self.spans[1:], strict=True):
            label = each.inverse(v[:, span])
            x[:, k] = torch.where(label == _NUMBER, x[:, k], label)
        return x if self.wide else x.to(kind)

    def observed(self, missing: Tensor) -> Tensor:
        parts = [~missing[:, self.places]]
        parts += [(~missing[:, [k]]).expand(-1, each.size) for k, each in self.labels]
        return torch.cat(parts, 1) | self.absent.to(missing.device)

    def partial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v, observed = super().partial(x)
        number = ~self.base(torch.where(x.isnan(), self.present.to(x), x)).isnan()
        return v, observed & number

    def moments(self, rows: Rows) -> tuple[Tensor, Tensor]:
        first, parts = 0, list[Moments]()
        for chunk in chunks(rows):
            ids = torch.arange(first, first + len(chunk))
            parts.append(Moments.of(self.forward(chunk, Noise(0, ids, stream=LEVELS)).v))
            first += len(chunk)
        every = reduce(Moments.joined, parts)
        return every.mean, every.variance

    def check(self, x: Tensor, name: str) -> None:
        for k, column in enumerate(self.kinds):
            bad = (~_fits(column, x[:, k]) & ~(x[:, k].isnan() & column.missing)).nonzero()
            if len(bad):
                row = int(bad[0])
                raise DataError(
                    f"{name}, item {row}, column {column.name}: {float(x[row, k]):g}, but it must "
                    f"be {_needs(column)}."
                )


def _fits(column: Column, x: Tensor) -> Tensor:
    if isinstance(column, CategoryColumn):
        return (x >= 0) & (x < len(column.labels)) & (x == x.floor())
    if column.values:
        return torch.isin(x, _row(column.values).to(x))
    if column.on_grid and _cells(column) < _FINE:
        steps = (x - column.low) / column.step
        rounding = 2.0**-52 * x.abs() / column.step
        return x.isfinite() & ((steps - steps.round()).abs() < 1e-3 + rounding)
    return x.isfinite()


def _needs(column: Column) -> str:
    if isinstance(column, CategoryColumn):
        labels = [*column.labels, *["a missing value"] * column.missing]
        return f"one of {', '.join(map(repr, labels))}"
    if len(column.values) == 1:
        return f"{column.low:g}, the only value in the training data"
    if column.values:
        return f"one of {', '.join(f'{value:g}' for value in column.values)}"
    if not column.on_grid or _cells(column) >= _FINE:
        return "a finite number"
    if column.step == 1 and column.low.is_integer():
        return "a whole number"
    return f"{column.low:g} and a multiple of {column.step:g}"


def fitted(kinds: tuple[Column, ...], x: Tensor) -> tuple[Column, ...]:
    """Return columns with the knots of their maps, and the moments of their coordinates.

    Args:
        x: data ``(N, count)``.
    """
    return tuple(
        _fitted(column, x[:, k]) if isinstance(column, NumberColumn) else column
        for k, column in enumerate(kinds)
    )


def _fitted(column: NumberColumn, x: Tensor) -> NumberColumn:
    if column.low == column.high:
        return column
    plain = Numbers([column])
    p = plain.base(x[:, None])[:, 0]
    p = p[~p.isnan()].sort().values
    first, after = (torch.searchsorted(p, p, right=right) for right in (False, True))
    share = (torch.arange(len(p)) - first + 0.5) / (after - first)
    p = p + plain.width * share  # ties are spread over the width
    if column.map == "normal":
        count = max(2, min(MOST_KNOTS, len(p) // 8))
        shares = torch.linspace(0, 1, count, dtype=p.dtype)
        column = column.model_copy(update={"knots": tuple(p.quantile(shares).tolist())})
    v = Numbers([column]).forward(p[:, None]).v[:, 0]
    size = float(v.abs().max()) or 1.0  # whose square may not be finite, or vanish
    mean, std = (size * float(each) for each in ((v / size).mean(), (v / size).std(correction=0)))
    z = (v - mean) / (std or 1.0)  # sorted, as p is
    rounding = 64 * torch.finfo(z.dtype).eps * size / (std or 1.0)  # as of 0.1 + 0.2 and 0.3
    if 2 * int((z.float().diff() > 0).sum()) < int((z.diff() > rounding).sum()):
        raise DataError(
            f"column {column.name} has the numbers {column.low:g} to {column.high:g}, and most are "
            f'too near {float(x.nanmedian()):g} for float32. Use columns="{column.name}=normal".'
        )
    return column.model_copy(update={"mean": mean, "std": std or 1.0})
