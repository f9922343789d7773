"""The contents of files and objects, before any choice of columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

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
