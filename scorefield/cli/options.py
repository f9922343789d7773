"""Options that several commands share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

MissingName = Literal["refuse", "drop", "keep"]


@dataclass(frozen=True)
class ReadOptions:
    """How data is read.

    Attributes:
        labels: A file of N integers from 0, the classes; or the name of a column of the table, or
            of what an .h5ad file says of its cells. A folder's images have its folders' names.
        missing: What to do about gaps in vectors: refuse them, drop the samples, or keep them and
            learn where they are. For tables keep, for the rest refuse, unless given.
        without: Columns to leave out.
        layer: Of an .h5ad file, instead of X.
    """

    labels: Path | None = None
    missing: MissingName | None = None
    without: tuple[str, ...] = ()
    layer: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `scorefield.data.read`."""
        return asdict(self)
