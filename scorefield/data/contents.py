"""The contents of files and objects, and the choice of the columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.config import DataConfig

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
        values: numbers ``(N, ...)``; in a table, NaN for a missing value, and codes for texts.
        names: of the columns, if they have names.
        labels: of the columns of texts.
        classes: of the items, if they lie in folders.
        by_name: functions that return classes of the items.
        typed: whether whole numbers are a kind of their own, as in a table.
    """

    values: Values
    names: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: Coded | None = None
    by_name: Mapping[str, Callable[[], Coded]] = field(default_factory=dict)
    typed: bool = False


def coded(texts: np.ndarray) -> Coded:
    """Return the codes of texts ``(N,)`` in the order of their labels; an empty text is missing."""
    labels, codes = np.unique(texts, return_inverse=True)
    if len(labels) and labels[0] == "":
        labels, codes = labels[1:], codes - 1
    return Coded(codes.astype(np.int64), tuple(map(str, labels)))


def first_few(names: Sequence[object]) -> str:
    """Return the first names of a long list, separated by commas."""
    return ", ".join(map(str, names[:_FEW])) + (" …" if len(names) > _FEW else "")


def whole(values: Values) -> np.ndarray:
    """Return all of an array."""
    return values[np.arange(values.shape[0])] if values.shape else np.asarray(values)


MOST_LABELS = 64  # in a column of texts
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Use:
    """The columns of a table to read.

    Attributes:
        names: of the columns, in order; all columns if empty.
        without: columns to leave out.
        texts: columns of texts, even if all of these are numbers.
        classes: the column of classes, if there is one.
    """

    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()
    classes: str | None = None

    @classmethod
    def of(cls, labels: Any, without: tuple[str, ...], like: DataConfig | None) -> Use:
        """Return the columns for the arguments of `scorefield.data.read`."""
        classes = str(labels) if isinstance(labels, str | Path) else None
        if like is None:
            return cls(without=without, classes=classes)
        return cls(like.columns.names, without, frozenset(like.columns.categories), classes)

    def picks(self, names: Sequence[str]) -> list[bool]:
        """Return for each column whether it is read.

        Raises:
            DataError: a column to leave out that is not there.
        """
        for column in self.without:
            if column not in names:
                raise DataError(f"without={column!r}: the data has {first_few(names)}.")
        wanted = {*(self.names or names)} - {*self.without} | {self.classes}
        return [name in wanted for name in names]

    def most(self, name: str) -> int:
        """Return the largest number of texts in a column."""
        return MOST_CLASSES if name == self.classes else MOST_LABELS

    def too_many(self, name: str) -> str:
        """Return the end of a message on a column that holds more."""
        if name == self.classes:
            return "too many for classes: name another column."
        return f'too many for a category: leave the column out with without="{name}".'


ALL = Use()
