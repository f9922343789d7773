"""Values of Arrow columns as whole numbers or float64, and back, without loss.

A column of whole numbers, decimals, dates, times or durations is one of whole numbers: of its
units in the last place, or of its ticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Numbers:
    """The numbers of a `pyarrow.Table` as an array ``(N, count)``, NaN for anything else."""

    table: Any
    dtype = np.dtype(np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.table.num_rows, self.table.num_columns)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        some = self.table.take(rows)
        every = np.full((len(rows), some.num_columns), np.nan)
        for k, column in enumerate(some.columns):
            if is_number(column.type):
                every[:, k] = as_float64(column)
        return every


def as_float64(values: Any) -> np.ndarray:
    """Return an Arrow column of numbers as float64 ``(N,)``, NaN where null."""
    return np.asarray(values.cast("float64", safe=False).to_numpy(zero_copy_only=False), float)


MOST = 2**53  # float64 holds every whole number up to this


def is_whole(kind: Any) -> bool:
    """Return whether the values of an Arrow type are whole numbers of some unit."""
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_decimal(kind) or is_time(kind))


def is_number(kind: Any) -> bool:
    """Return whether an Arrow type is of numbers."""
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_decimal)
    return any(test(kind) for test in tests)


def is_time(kind: Any) -> bool:
    """Return whether an Arrow type is of dates, times or durations."""
    from pyarrow import types

    return bool(types.is_temporal(kind) and not types.is_interval(kind))


def decimals(kind: Any) -> int:
    """Return the number of decimals of a type that `is_whole`."""
    from pyarrow import types

    return int(kind.scale) if types.is_decimal(kind) else 0


def missing(column: Any) -> np.ndarray:
    """Return which values of a column are null or NaN: ``(N,)``."""
    return np.asarray(column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False), bool)


def whole_numbers(column: Any) -> np.ndarray:
    """Return the whole numbers of an Arrow column, 0 where null: int64 or uint64 ``(N,)``.

    Raises:
        OverflowError: a decimal with more digits than 64 bits hold.
    """
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_decimal(kind):
        return _unscaled(column.cast(pyarrow.decimal128(38, kind.scale)))
    if types.is_date32(kind) or types.is_time32(kind):
        column = column.cast("int32")
    numbers = column.cast("uint64" if types.is_uint64(kind) else "int64")
    return np.asarray(numbers.fill_null(0).to_numpy(zero_copy_only=False))


def _unscaled(column: Any) -> np.ndarray:
    """Return the units in the last place of decimals of 16 bytes."""
    import pyarrow

    chunks = column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]
    parts = [np.zeros((0, 2), np.int64)]
    for chunk in chunks:
        words = np.frombuffer(chunk.buffers()[1], "<i8").reshape(-1, 2)
        parts.append(words[chunk.offset : chunk.offset + len(chunk)])
    words = np.where(missing(column)[:, None], 0, np.concatenate(parts))
    if (words[:, 1] != words[:, 0] >> 63).any():
        raise OverflowError("it holds a decimal of more digits than 64 bits hold")
    return words[:, 0]


def from_whole(numbers: np.ndarray, absent: np.ndarray, kind: Any) -> Any:
    """Return an Arrow array of a type that `is_whole` from its whole numbers."""
    import pyarrow
    from pyarrow import types

    if types.is_decimal(kind):
        words = np.stack([numbers, numbers >> 63], 1).astype("<i8")
        wide = pyarrow.decimal128(38, kind.scale)
        flags = pyarrow.py_buffer(np.packbits(~absent, bitorder="little").tobytes())
        buffers = [flags, pyarrow.py_buffer(words.tobytes())]
        return pyarrow.Array.from_buffers(wide, len(numbers), buffers).cast(kind)
    array = pyarrow.array(numbers, mask=absent)
    if types.is_date32(kind) or types.is_time32(kind):
        array = array.cast("int32")
    return array.cast(kind)
