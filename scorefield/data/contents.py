"""What files hold, before anything is decided about it."""

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
    """Codes ``(N,)`` of labels, -1 where there is none."""

    codes: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        values: numbers ``(N, ...)``; of a table, NaN where there is none, and for texts their
            place among the labels.
        names: of the columns, if they have names.
        labels: of the columns that are texts.
        classes: of the items, if the source itself is sorted by them.
        by_name: what else the source says of its items.
        typed: whether whole numbers among the values are meant as such, as in a table.
    """

    values: Values
    names: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: Coded | None = None
    by_name: Mapping[str, Callable[[], Coded]] = field(default_factory=dict)
    typed: bool = False


def coded(texts: np.ndarray) -> Coded:
    """Return the codes of texts ``(N,)``, by their labels in order; an empty text is none."""
    labels, codes = np.unique(texts, return_inverse=True)
    if len(labels) and labels[0] == "":
        labels, codes = labels[1:], codes - 1
    return Coded(codes.astype(np.int64), tuple(map(str, labels)))


def first_few(names: Sequence[object]) -> str:
    """Return the first names of a list that may be long, as a list to read."""
    return ", ".join(map(str, names[:_FEW])) + (" …" if len(names) > _FEW else "")


def whole(values: Values) -> np.ndarray:
    """Return all of an array."""
    return values[np.arange(values.shape[0])] if values.shape else np.asarray(values)
