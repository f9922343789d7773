"""The dialect of tables of text: its options, and the usual marks of missing values."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass

from scorefield._internal.errors import UsageError

NOTE = b"scorefield.format"  # metadata of a table: a sentence on the detected format
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "?", "<na>"})
NUMBER = re.compile(r"[+-]?(\d[\d.,' \u00a0\u202f’]*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.I)
_WORDS = {"tab": "\t", "\\t": "\t", "space": " "}  # a shell does not pass them on as they are


@dataclass(frozen=True)
class Dialect:
    """The format of a table of text; None is detected.

    Attributes:
        delimiter: one character, or ``tab``.
        decimal: ``.`` or ``,``; the other one may group digits by three.
        encoding: a codec of Python.
        comment: the first character of lines to leave out; an empty text for no comments.
        header: whether the first row names the columns.
        na: cells that are missing, besides empty ones; the default is `MISSING` in any case, and
            ``-`` and ``.`` in columns of numbers.
    """

    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    comment: str | None = None
    header: bool | None = None
    na: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        delimiter = _WORDS.get(self.delimiter or "", self.delimiter)
        object.__setattr__(self, "delimiter", delimiter)
        if isinstance(self.na, str):
            object.__setattr__(self, "na", (self.na,))
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise UsageError(f"delimiter={delimiter!r}: must be one character, or tab.")
        if self.decimal not in (None, ".", ","):
            raise UsageError(f"decimal={self.decimal!r}: must be . or , (a comma).")
        if self.comment is not None and len(self.comment) > 1:
            raise UsageError(f"comment={self.comment!r}: must be one character, or empty.")
        if self.encoding is not None and not _is_encoding(self.encoding):
            raise UsageError(
                f"encoding={self.encoding!r}: Python has no such encoding; latin-1 and utf-16 are "
                "two of those it has."
            )


DETECTED = Dialect()


def _is_encoding(name: str) -> bool:
    try:
        return isinstance("".encode(codecs.lookup(name).name), bytes)
    except LookupError:  # unknown, or of bytes
        return False


def is_header(row: Iterable[str], missing: frozenset[str] = MISSING) -> bool:
    """Return whether the first row of a table names its columns.

    It does not if its cells are only numbers, numbers and missing values, or empty.
    """
    texts = {cell.strip().lower() for cell in row}
    numbers = {text for text in texts if NUMBER.fullmatch(text)}
    return not texts - numbers <= (missing if numbers else {""})
