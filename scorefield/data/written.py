"""Numbers, dates and times that a column has as texts of one format.

A format is one of `scorefield.data.dates` or of `scorefield.data.amounts`. It reads all texts of a
column as whole numbers, and writes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from scorefield.data import amounts, dates

_SOME = 4  # texts, from which on one of another format is rejected


class Stray(NamedTuple):
    """A text that is not of the format of most others, and its row."""

    row: int
    text: str
    form: str


def is_date(form: str) -> bool:
    """Return whether a format is one of dates or times."""
    return bool(form) and not amounts.is_amount(form)


def decimals(form: str) -> int:
    """Return the number of decimals of the numbers that a format writes."""
    return dates.digits_of(form) if is_date(form) else amounts.decimals(form)


def read_texts(texts: Any, form: str) -> Any:
    """Return the whole numbers of an Arrow array of texts, null for others: int64."""
    return (dates.read_dates if is_date(form) else amounts.read_amounts)(texts, form)


def write_texts(numbers: Any, form: str) -> Any:
    """Return the texts of whole numbers."""
    return (dates.write_dates if is_date(form) else amounts.write_amounts)(numbers, form)


def find_format(texts: Any) -> str:
    """Return the format that reads all of an Arrow array of texts and writes them again, or ''."""
    texts = texts.drop_null().unique()
    return next((form for form in _formats(texts) if _matches(texts, form).all()), "")


def find_stray(texts: Any) -> Stray | None:
    """Return the first text of another format than at least half of the texts, if there is one."""
    given = np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))
    texts = texts.drop_null()
    for form in _formats(texts) if len(texts) >= _SOME else ():
        good = _matches(texts, form)
        if 2 * good.sum() >= len(texts) and (is_date(form) or amounts.has_symbol(form)):
            row = int(np.flatnonzero(~good)[0])
            return Stray(int(given[row]), texts[row].as_py(), form)
    return None


def _formats(texts: Any) -> Iterator[str]:
    """Yield the formats of some of the texts."""
    last = len(texts) - 1
    for place in sorted({0, last // 2, last} if len(texts) else ()):
        text = texts[place].as_py()
        yield from chain(dates.dates(text), amounts.amounts(text))


def _matches(texts: Any, form: str) -> np.ndarray:
    """Return for each text whether a format reads it and writes it again."""
    from pyarrow import compute

    numbers = read_texts(texts, form)
    same = compute.equal(write_texts(numbers, form), texts).fill_null(False)
    result: np.ndarray = np.asarray(same.to_numpy(zero_copy_only=False), bool)
    return result
