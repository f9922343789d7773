"""The choice of the columns of a table, and of their kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorefield._internal.errors import DataError
from scorefield.data.config import DataConfig
from scorefield.data.contents import first_few

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
