"""Tables as text, a line for each row, read by pyarrow: every cell a text first, then its column.

A column holds numbers if all its cells are numbers or missing; else it holds texts.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from scorefield._internal.errors import DataError
from scorefield.data.contents import ALL, LINE, Use, check_size, lines, reading

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_WHOLE = r"^[+-]?\d+$"
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)$"


def read_delimited(path: Path, use: Use = ALL) -> Any:
    """Return the selected columns of a file as a `pyarrow.Table`.

    Args:
        use: the columns to read.

    Raises:
        DataError: rows of different lengths; a column of both numbers and texts.
    """
    import pyarrow

    check_size(path, path.stat().st_size)
    try:
        first = next(_rows(path))
    except StopIteration:
        raise DataError(f"{path} holds no rows.") from None
    header = is_header(first)
    names = unique(path, first) if header else _placed(len(first), use)
    picked = list(compress(range(len(names)), use.picks(names)))
    cells = _cells(path, len(names), picked, header)
    _check_quotes(path)
    columns = {}
    for k in picked:
        column, cells = cells.column(0), cells.remove_column(0)  # which frees its memory
        columns[names[k]] = _typed(path, names[k], column, names[k] in use.texts, header)
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{path} holds no {'rows' if columns else 'columns'}.")
    return pyarrow.table(columns)


def _cells(path: Path, width: int, picked: Sequence[int], header: bool) -> Any:
    """Return the cells of some columns as texts, by the position of the column."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    bad: list[Any] = []  # pyarrow does not pass on exceptions of a handler

    def refuse(row: Any) -> str:
        bad.append(row)
        return "error"

    places = [str(k) for k in range(width)]
    # with threads, rows have no numbers
    reads = arrow_csv.ReadOptions(
        use_threads=False, column_names=places, skip_rows=int(header), block_size=LINE
    )
    parses = arrow_csv.ParseOptions(
        newlines_in_values=True, ignore_empty_lines=width > 1, invalid_row_handler=refuse
    )
    converts = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(places, pyarrow.string()),
        include_columns=[places[k] for k in picked],
    )
    with reading(path, "a table", pyarrow.ArrowException):
        try:
            return arrow_csv.read_csv(path, reads, parses, converts)
        except pyarrow.ArrowInvalid:
            if not bad:
                raise
    row = bad[0]
    raise DataError(
        f"{path}, row {row.number}: {row.actual_columns} cells, but {row.expected_columns} columns."
    )


def _typed(path: Path, name: str, cells: Any, as_text: bool, header: bool) -> Any:
    """Return a column of texts as int64, uint64 or float64 if all are numbers; else as texts."""
    import pyarrow
    from pyarrow import compute

    cells = compute.utf8_trim_whitespace(cells)
    absent = compute.is_in(compute.utf8_lower(cells), pyarrow.array(sorted(MISSING)))
    cells = compute.if_else(absent, None, cells)
    numbers = compute.match_substring_regex(cells, _NUMBER, ignore_case=True)
    if as_text or not compute.any(numbers).as_py():
        return cells
    if not compute.all(numbers).as_py():
        number = cells.filter(numbers)[0].as_py()
        texts = compute.invert(compute.fill_null(numbers, True))
        place = compute.index(texts, True).as_py()
        row, text = _row_number(path, place + header), cells[place].as_py()
        raise DataError(
            f"{path}, row {row}, column {name}: {text!r}, but the column holds both texts and "
            f"numbers such as {number}: write one or the other, and leave unknown cells empty."
        )
    if compute.all(compute.match_substring_regex(cells, _WHOLE)).as_py():
        plain = compute.utf8_ltrim(cells, "+")
        for kind in ("int64", "uint64"):
            try:
                return plain.cast(kind)
            except pyarrow.ArrowInvalid:
                continue
    return cells.cast("float64")


def _check_quotes(path: Path) -> None:
    """Refuse a file that ends inside a quoted cell, which pyarrow takes for the end of the cell."""
    with path.open("rb") as file:
        odd = sum(block.count(b'"') for block in iter(lambda: file.read(LINE), b"")) % 2
    if odd:
        for _ in _rows(path, strict=True):
            pass


def _rows(path: Path, strict: bool = False) -> Iterator[list[str]]:
    """Yield the rows that are not empty, for messages and headers."""
    with (
        reading(path, "a table", csv.Error),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        yield from filter(None, csv.reader(lines(path, file), strict=strict))


def _row_number(path: Path, place: int) -> int:
    """Return the number in the file, from 1, of a row that is not empty."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(lines(path, file))
        full = (k for k, row in enumerate(rows, 1) if row)
        return next(number for k, number in enumerate(full) if k == place)


def unique(path: Path | str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns; one without a name is called by its position, from 1.

    Raises:
        DataError: two columns of one name.
    """
    columns = tuple(name.strip() or f"column {k}" for k, name in enumerate(names, 1))
    places: dict[str, int] = {}
    for k, name in enumerate(columns, 1):
        if places.setdefault(name, k) < k:
            raise DataError(
                f"{path} has two columns named {name}, columns {places[name]} and {k}: rename one "
                "of them."
            )
    return columns


def _placed(count: int, use: Use) -> tuple[str, ...]:
    """Return the names of columns without a header: 1, 2, ...

    If the names of a run are all numbers, they are used: its samples have no header either.
    """
    if len(use.names) == count and not is_header(use.names):
        return use.names
    return tuple(str(k) for k in range(1, count + 1))


def is_header(row: Iterable[str]) -> bool:
    """Return whether the first row of a table names its columns."""
    texts = {cell.strip().lower() for cell in row}
    numbers = {text for text in texts if _is_number(text)}
    return not texts - numbers <= (MISSING if numbers else {""})


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 10_000 as a number
