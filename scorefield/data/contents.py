"""The contents of files and objects, the choice of their columns, and limits on their size.

Sizes are checked before anything is unpacked: a declared size is compared with the size of the
file, and the unpacked size with both the size of the file and memory.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from scorefield._internal import files, sizes
from scorefield._internal.errors import DataError
from scorefield.data.axes import Axes
from scorefield.data.config import DataConfig
from scorefield.data.dialect import DETECTED, Dialect

_FEW = 8  # names in a message


class Values(Protocol):
    """An array read by its rows; an `np.ndarray` is one way to have it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


class Coded(NamedTuple):
    """Codes ``(N,)`` of labels; -1 for a missing label."""

    codes: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """The contents of a source.

    Attributes:
        values: numbers ``(N, ...)``; in a table, NaN for a missing value and for texts.
        names: of the columns, if they have names.
        classes: of the items, if they lie in folders.
        by_name: functions that return classes of the items.
        table: the `pyarrow.Table` that the values are made from, if they are a table.
        axes: of the values, if the source declares them.
        notes: sentences on the detected format, one for each line to print.
        options: the names of the choices of `ReadingConfig` that it has.
        items: the names of the items, if they are files.
        others: functions that return the other arrays of an archive, by name.
    """

    values: Values
    names: tuple[str, ...] = ()
    classes: Coded | None = None
    by_name: Mapping[str, Callable[[], Coded]] = field(default_factory=dict)
    table: Any = None
    axes: Axes | None = None
    notes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    others: Mapping[str, Callable[[], np.ndarray]] = field(default_factory=dict)


def coded(texts: np.ndarray) -> Coded:
    """Return the codes of texts ``(N,)`` in the order of their labels; an empty text is missing."""
    labels, codes = np.unique(texts, return_inverse=True)
    if len(labels) and labels[0] == "":
        labels, codes = labels[1:], codes - 1
    return Coded(codes.astype(np.int64), tuple(map(str, labels)))


def first_few(names: Sequence[object]) -> str:
    """Return the first names of a long list, separated by commas."""
    return ", ".join(map(str, names[:_FEW])) + (" …" if len(names) > _FEW else "")


def counted(counts: Counter[Any]) -> str:
    """Return how often each thing is there: ``312 of .png, 4 of .txt``."""
    return first_few([f"{count} of {thing}" for thing, count in counts.most_common()])


def whole(values: Values) -> np.ndarray:
    """Return all of an array."""
    return values[np.arange(values.shape[0])] if values.shape else np.asarray(values)


MOST_LABELS = 64  # in a column of texts
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Use:
    """The columns of a table to read, and its dialect if it is text.

    Attributes:
        names: of the columns, in order; all columns if empty.
        without: columns to leave out.
        texts: columns of texts, even if all of these are numbers.
        conditions: columns of conditions.
        dialect: of a table of text.
    """

    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()
    conditions: frozenset[str] = frozenset()
    dialect: Dialect = DETECTED

    @classmethod
    def of(
        cls,
        conditions: Iterable[str],
        without: tuple[str, ...],
        like: DataConfig | None,
        dialect: Dialect = DETECTED,
        texts: Iterable[str] = (),
    ) -> Use:
        """Return the columns for the arguments of `scorefield.data.read`."""
        other = frozenset(conditions)
        if like is None:
            return cls((), without, frozenset(texts), other, dialect)
        texts = (c.name for c in like.columns.kinds if c.kind == "category" or c.format)
        return cls(like.columns.names, without, frozenset(texts), other, dialect)

    def picks(self, names: Sequence[str]) -> list[bool]:
        """Return for each column whether it is read.

        Raises:
            DataError: a column to leave out that is not there.
        """
        for column in self.without:
            if column not in names:
                raise DataError(f"without={column!r}: the data has {first_few(names)}.")
        wanted = {*(self.names or names)} - {*self.without} | self.conditions
        return [name in wanted for name in names]


ALL = Use()


THRIFT = 1 << 20  # bytes of a name in a parquet file, and members of a list

_RATIO, _SMALL = 200, 1 << 26  # how often its size a file may unpack to, or how many bytes
_HEADER = 1 << 14  # bytes at the start of an array
_DIRECTORY = 1 << 20  # bytes of an archive's list of members
LINE = 1 << 24  # characters of a table's row


def reading(
    source: Path | str, form: str, *others: type[Exception]
) -> AbstractContextManager[None]:
    """Raise any error on malformed data as one `DataError`.

    Args:
        form: of the data, as in ``a table``, for the message.
        others: errors of a library besides the usual ones.
    """
    return files.reading(source, form, DataError, *others)


def member(path: Path, archive: zipfile.ZipFile, key: str | None = None) -> zipfile.ZipInfo:
    """Return the member of an archive that holds the data: of a name, or ``x``, or the only one."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if key is not None and key not in members:
        raise DataError(f"key={key!r}: {path} holds {first_few([*members]) or 'nothing'}.")
    if key is None and "x" not in members and len(members) != 1:
        there = first_few([*members])
        raise DataError(
            f"{path} holds {there}: choose one with key={next(iter(members))!r}."
            if members
            else f"{path} holds no arrays."
        )
    member = members[key] if key else members.get("x") or next(iter(members.values()))
    # other methods of compression may take any amount of memory
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed in another way than NumPy does")
    return member


def check_directory(path: Path) -> None:
    """Refuse an archive of very many members, each of which costs more memory than its entry."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 1 << 17), io.SEEK_END)
        tail = file.read()
    for mark, place, form in ((b"PK\6\6", 40, "<Q"), (b"PK\5\6", 12, "<I")):
        start = tail.rfind(mark)
        if start >= 0:
            (size,) = struct.unpack_from(form, tail, start + place)
            if _DIRECTORY < size != 2**32 - 1:  # this value refers to the other mark
                raise ValueError(f"its list of members takes {sizes.words(size)}")


def check_array(file: IO[bytes], length: int) -> None:
    """Refuse an array whose header does not match the number of bytes in its file."""
    head = io.BytesIO(file.read(_HEADER))
    version, form = np.lib.format.read_magic(head), np.lib.format
    read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
    shape, _, kind = read(head)
    if kind.hasobject or not kind.itemsize:
        raise ValueError(
            f"values of type {kind} are not read: save the numbers, as by x.astype(float)"
        )
    size, rest = math.prod(shape) * kind.itemsize, length - head.tell()
    if size != rest:
        raise ValueError(f"it declares {size} bytes of data {shape} and holds {rest}")


def check_size(path: Path, size: int) -> None:
    """Refuse to unpack more than is plausible for the file's size, or than memory allows."""
    if size > max(_SMALL, _RATIO * path.stat().st_size):
        raise DataError(
            f"{path} unpacks to {sizes.words(size)}, more than {_RATIO} times its own size: save "
            "it uncompressed if that is right."
        )
    if size > sizes.memory():
        raise DataError(
            f"{path} holds {sizes.words(size)}, and there are {sizes.words(sizes.memory())} of "
            "memory: use a part of it."
        )
