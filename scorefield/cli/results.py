"""Kinds of results that commands write from parts; torch is not needed to declare one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorefield._internal.statistics import ColumnStatistics

Statistics = Mapping[str, "ColumnStatistics"]


@dataclass(frozen=True)
class ResultKind:
    """A kind of result, and how its parts make a file.

    Attributes:
        name: of the work, in messages and in the settings of its parts.
        noun: the content of the file.
        report: prints a summary from the settings and the statistics of all columns.
        result: the column that makes a ``.npy`` file; empty if all columns make a table.
        picture: the column that images are drawn from, ``(n, ...)``, or ``(n, k, ...)`` for rows
            of ``k``; empty for no picture.
        tabular: whether vectors of the run's data may also be written as a table.
    """

    name: str
    noun: str
    report: Callable[[Mapping[str, Any], Statistics], None]
    result: str = ""
    picture: str = ""
    tabular: bool = False
