"""Columns of texts as columns of numbers, where all of their cells are numbers or missing.

A number is written as in ``-1.5e3``, with a point or a comma. The other of the two, a space or an
apostrophe may group its digits by three. Whole numbers with a zero in front, as postal codes have,
are texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scorefield._internal.errors import DataError
from scorefield.data.dialect import MISSING
from scorefield.data.form import Form
from scorefield.data.text_files import TextFile

_DASHES = ("-", "--", ".")  # missing numbers
_GROUPS = {".": ",", ",": "."}
_SPACES = " '’\u00a0\u202f"
_PADDED = r"^0\d+$"
_WHOLE = r"^[+-]?\d+$"
_HEAD = 100  # cells to look at before all of them


def _number(decimal: str) -> str:
    """Return the pattern of numbers with a decimal mark."""
    point = "[.]" if decimal == "." else ","
    groups = "|".join(rf"([{mark}]\d{{3}})+" for mark in (_GROUPS[decimal], *_SPACES))
    return (
        rf"^[+-]?(({_plain(point)})([eE][+-]?\d+)?|[1-9]\d{{0,2}}({groups})({point}\d*)?"
        r"|(?i:inf(inity)?))$"
    )


def _plain(point: str) -> str:
    return rf"\d+({point}\d*)?|{point}\d+"


_NUMBERS = {decimal: _number(decimal) for decimal in ".,"}


@dataclass(frozen=True)
class Cells:
    """A column of texts, without the space around them, null where a cell is missing.

    Attributes:
        marks: of missing cells, besides empty ones.
        decimals: the decimal marks with which all cells are numbers; empty for texts.
        is_text: whether the caller asks for texts.
        plain: whether all cells are numbers with a point and without groups of digits.
    """

    name: str
    cells: Any
    marks: frozenset[str]
    decimals: str
    is_text: bool = False
    plain: bool = False

    @classmethod
    def of(
        cls, name: str, cells: Any, na: str | tuple[str, ...] | None, is_text: bool = False
    ) -> Cells:
        """Return a column of a file.

        Args:
            na: the marks of missing cells; by default the usual ones, in any case.
            is_text: whether to leave numbers as texts.
        """
        import pyarrow
        from pyarrow import compute

        cells = compute.utf8_trim_whitespace(cells)
        marks = sorted(MISSING if na is None else {"", *na})
        keys = compute.ascii_lower(cells) if na is None else cells
        column = cls(name, cells, frozenset(), "", is_text)._without(
            compute.is_in(keys, pyarrow.array(marks))
        )
        if is_text or not column.filled:
            return column
        column = column._classified()
        if na is None and not column.decimals:
            dashes = compute.is_in(column.cells, pyarrow.array(_DASHES))
            if compute.any(dashes).as_py():
                numbers = column._without(dashes)._classified()
                return numbers if numbers.decimals else column
        return column

    @property
    def filled(self) -> bool:
        """Whether a cell is not missing."""
        return bool(self.cells.null_count < len(self.cells))

    def has(self, pattern: str) -> bool:
        """Return whether a cell matches."""
        from pyarrow import compute

        return bool(compute.any(compute.match_substring_regex(self.cells, pattern)).as_py())

    def all(self, pattern: str) -> bool:
        """Return whether all cells match."""
        from pyarrow import compute

        parts = (self.cells.drop_null().slice(0, _HEAD), self.cells)
        return all(
            compute.all(compute.match_substring_regex(part, pattern)).as_py() for part in parts
        )

    def first(self, pattern: str) -> str:
        """Return the first cell that matches."""
        from pyarrow import compute

        matches = compute.match_substring_regex(self.cells, pattern)
        return str(self.cells.filter(matches)[0].as_py())

    def _classified(self) -> Cells:
        """Return the column with its decimal marks; a cast is faster than a pattern."""
        from pyarrow import compute

        plain = self._casts()
        if plain and not compute.any(compute.match_substring(self.cells, ".")).as_py():
            decimals = ".,"
        else:
            decimals = "." * plain + "".join(
                d for d, pattern in _NUMBERS.items() if d not in "." * plain and self.all(pattern)
            )
        padded = decimals and self.has(_PADDED)
        return replace(self, decimals="" if padded or not self.filled else decimals, plain=plain)

    def _casts(self) -> bool:
        """Return whether all cells are numbers as pyarrow reads them."""
        import pyarrow

        try:
            self.cells.cast("float64")
        except pyarrow.ArrowInvalid:
            return False
        return True

    def _without(self, absent: Any) -> Cells:
        """Return the column with more missing cells, and their marks."""
        from pyarrow import compute

        absent = compute.fill_null(absent, False)
        marks = compute.unique(self.cells.filter(absent)).to_pylist()
        cells = compute.if_else(absent, None, self.cells)
        return replace(self, cells=cells, marks=self.marks | {*marks} - {""})


def decimal_mark(path: Path, columns: Sequence[Cells], delimiter: str) -> str:
    """Return the decimal mark with which the columns of a file are numbers.

    Raises:
        DataError: columns that need different ones; or numbers that either of them allows, if the
            delimiter does not settle it.
    """
    point, comma = (next((c for c in columns if c.decimals == mark), None) for mark in ".,")
    if point and comma:
        raise DataError(
            f"{path} has numbers with commas, such as {comma.first(',')!r} in column {comma.name}, "
            f"and with points, such as {point.first('[.]| |,')!r} in column {point.name}: pass "
            "decimal='.' or decimal=',', and the column that it does not fit is one of texts."
        )
    if point or comma:
        return "." if point else ","
    for column in columns:
        if column.decimals and delimiter != ",":
            marks = ",." if delimiter == ";" else ","
            if column.has(f"[{marks}]"):
                raise DataError(
                    f"{path}, column {column.name}: {column.first(f'[{marks}]')!r} may be a "
                    "number of three decimals or one of thousands: pass decimal='.' or decimal=','."
                )
    return "."


def typed(file: TextFile, form: Form, column: Cells, decimal: str) -> Any:
    """Return a column as int64, uint64 or float64 if all are numbers; else as texts.

    Raises:
        DataError: both numbers and texts, or whole numbers of more than 64 bits.
    """
    import pyarrow
    from pyarrow import compute

    cells = column.cells
    if decimal not in column.decimals:
        _check_pure(file, form, column, decimal)
        return cells
    groups = f"[{_GROUPS[decimal]}{_SPACES}]"
    if decimal == "," or not column.plain:
        cells = compute.replace_substring_regex(cells, groups, "")
        cells = compute.replace_substring(cells, ",", ".")
    if not replace(column, cells=cells).all(_WHOLE):
        return cells.cast("float64")
    plain = compute.utf8_ltrim(cells, "+")
    for kind in ("int64", "uint64"):
        try:
            return plain.cast(kind)
        except pyarrow.ArrowInvalid:
            continue
    place = compute.index(compute.greater(compute.utf8_length(plain), 18), True).as_py()
    raise DataError(
        f"{file.path}, row {_row(file, form, place)}, column {column.name}: "
        f"{plain[place].as_py():.40}, a whole number of more than 64 bits: write it with an "
        f'exponent, as in 1.5e30, or use columns="{column.name}=drop".'
    )


def _check_pure(file: TextFile, form: Form, column: Cells, decimal: str) -> None:
    """Refuse a column of both numbers and texts, except if the numbers are codes such as 01."""
    from pyarrow import compute

    pattern = _NUMBERS[decimal]
    if column.is_text or column.decimals or not column.has(pattern) or column.has(_PADDED):
        return
    numbers = compute.match_substring_regex(column.cells, pattern)
    place = compute.index(numbers, False).as_py()
    row = _row(file, form, place)
    text = column.cells[place].as_py()
    raise DataError(
        f"{file.path}, row {row}, column {column.name}: {text!r}, but the column holds both texts "
        f"and numbers such as {column.first(pattern)}: pass na={text!r} if it stands for a missing "
        f'value, or columns="{column.name}=category" if all are texts.'
    )


def _row(file: TextFile, form: Form, place: int) -> int:
    """Return the number in the file of a row of data."""
    return next(number for k, (number, _) in enumerate(form.rows(file)) if k == place)
