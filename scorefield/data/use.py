"""Which columns of a table are read, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorefield.data.config import DataConfig

MOST_LABELS = 64  # in a column of texts
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Use:
    """What is wanted of a table.

    Attributes:
        names: of the columns that are of use, in their order; all if there are none.
        without: columns that are of no use.
        texts: columns of texts, whether or not these could be numbers.
        classes: what names the classes, if anything does: it may be a column.
    """

    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()
    classes: str | None = None

    @classmethod
    def of(cls, labels: Any, without: tuple[str, ...], like: DataConfig | None) -> Use:
        """Return what the arguments of `scorefield.data.read` ask for."""
        classes = str(labels) if isinstance(labels, str | Path) else None
        if like is None:
            return cls(without=without, classes=classes)
        return cls(like.columns.names, without, frozenset(like.columns.categories), classes)

    def picks(self, names: Sequence[str]) -> list[bool]:
        """Return which columns are of use."""
        wanted = {*(self.names or names)} - {*self.without} | {self.classes}
        return [name in wanted for name in names]

    def most(self, name: str) -> int:
        """Return how many texts a column may hold."""
        return MOST_CLASSES if name == self.classes else MOST_LABELS

    def too_many(self, name: str) -> str:
        """Return what a message says of a column that holds more."""
        if name == self.classes:
            return "too many for classes: name another column."
        return f"too many for a category: leave the column out with --without {name}."


ALL = Use()
