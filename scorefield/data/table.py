"""Tables: CSV, or parquet by pyarrow.

A column of a table is of numbers or of texts, and a cell may be empty. The first row is a header
unless all its cells are numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.data.contents import Contents
from scorefield.data.limits import THRIFT, UNREADABLE, check_size, lines, reason
from scorefield.errors import DataError

Use = Callable[[str], bool]

KINDS = (".csv", ".parquet")
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
MOST_LABELS = 64  # in a column of texts


def read_csv(path: Path, use: Use = lambda name: True) -> Contents:
    """Read a table of numbers and texts, in two passes.

    Args:
        use: tells which columns are of use; the others are left empty, whatever they hold.

    Raises:
        DataError: rows of different lengths, a column of both numbers and texts, one of more than
            `MOST_LABELS` texts.
    """
    check_size(path, path.stat().st_size)
    rows = _rows(path)
    try:
        _, first = next(rows)
    except StopIteration:
        raise DataError(f"{path} holds no rows.") from None
    header = not all(_is_number(cell) for cell in first)
    names = _named(path, first if header else [str(k + 1) for k in range(len(first))])
    columns, count = [_Column(path, name, use(name)) for name in names], 0
    for line, row in islice(_rows(path), header, None):
        count += 1
        if len(row) != len(names):
            raise DataError(f"{path}, row {line}: {len(row)} cells, but {len(names)} columns.")
        for column, cell in zip(columns, row, strict=True):
            if column.used:
                column.see(line, cell)
    values = np.empty((count, len(names)))
    codes = [{label: k for k, label in enumerate(column.labels)} for column in columns]
    for k, (_, row) in enumerate(islice(_rows(path), header, None)):
        for j, cell in enumerate(row):
            text = cell.strip()
            if not columns[j].used or text.lower() in MISSING:
                values[k, j] = np.nan
            else:
                values[k, j] = codes[j][text] if codes[j] else float(text)
    labels = {c.name: c.labels for c in columns if c.labels}
    return Contents(values, names, labels, typed=True)


class _Column:
    """What the first pass finds in a column."""

    def __init__(self, path: Path, name: str, used: bool) -> None:
        self.path, self.name, self.used = path, name, used
        self.number, self.texts = "", set[str]()

    def see(self, line: int, cell: str) -> None:
        text = cell.strip()
        if text.lower() in MISSING:
            return
        if _is_number(text):
            self.number = self.number or text
        else:
            self.texts.add(text)
        where = f"{self.path}, row {line}, column {self.name}: {text!r}"
        if self.number and self.texts:
            raise DataError(
                f"{where}, but the column holds both numbers such as {self.number} and texts such "
                f"as {min(self.texts)!r}: write one or the other, and leave unknown cells empty."
            )
        if len(self.texts) > MOST_LABELS:
            raise DataError(
                f"{where} is one of more than {MOST_LABELS} different texts, too many for a "
                f"category: leave the column out with --without {self.name}."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted(self.texts))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty with their numbers, from 1."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(lines(path, file)), 1):
                if row:
                    yield number, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {reason(error)}") from None


def _named(path: Path, names: list[str]) -> tuple[str, ...]:
    """Return the names of columns; one without is called by its place, from 1."""
    found = tuple(name.strip() or f"column {k}" for k, name in enumerate(names, 1))
    for k, name in enumerate(found):
        if name in found[:k]:
            raise DataError(f"{path} has two columns named {name}: rename one of them.")
    return found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_parquet(path: Path, use: Use = lambda name: True) -> Contents:
    """Read a table of numbers, truth values and texts.

    Args:
        use: as for `read_csv`.

    Raises:
        DataError: a column of another type, or one of more than `MOST_LABELS` texts.
    """
    table, names = _arrow(path, use)
    values, labels = np.full((table.num_rows, len(names)), np.nan), {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        place = names.index(name)
        if _is_text(column.type):
            values[:, place], labels[name] = _codes(path, name, column)
        else:
            values[:, place] = column.cast("float64", safe=False).to_numpy()
    return Contents(values, names, labels, typed=True)


def _arrow(path: Path, use: Use) -> tuple[Any, tuple[str, ...]]:
    """Return a table of the columns that are of use, and the names of all."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: parquet needs pyarrow; pip install 'scorefield[parquet]'."
        ) from None
    limits = {"thrift_string_size_limit": THRIFT, "thrift_container_size_limit": THRIFT}
    try:
        with parquet.ParquetFile(path, **limits) as file:
            columns = [column for column in file.schema_arrow if use(column.name)]
            names, head = _named(path, file.schema_arrow.names), file.metadata
        for column in columns:
            if not (_is_text(column.type) or _is_number_type(column.type)):
                raise DataError(
                    f"{path}, column {column.name}: of type {column.type}, neither numbers nor "
                    f"texts: leave it out with --without {column.name}."
                )
        if not columns or not head.num_rows:
            raise DataError(f"{path} holds no {'rows' if columns else 'columns'}.")
        groups = [head.row_group(k) for k in range(head.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        check_size(path, max(unpacked, 8 * head.num_rows * len(names)))
        # as codes: a short text may stand in any number of rows
        coded = [column.name for column in columns if pyarrow.types.is_string(column.type)]
        with parquet.ParquetFile(path, read_dictionary=coded, **limits) as file:
            return file.read([column.name for column in columns]), names
    except DataError:
        raise
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {reason(error)}") from None


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind))


def _is_number_type(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def _codes(path: Path, name: str, column: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the codes of a column of texts or truth values, NaN for none, and their labels."""
    from pyarrow import types

    if types.is_boolean(column.type):
        column = column.cast("string")
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    places = whole.indices.cast("float64").to_numpy(zero_copy_only=False)
    used = np.unique(places[~np.isnan(places)]).astype(np.int64)
    if len(used) > MOST_LABELS:
        raise DataError(
            f"{path}, column {name}: {len(used)} different texts, too many for a category: leave "
            f"it out with --without {name}."
        )
    texts = whole.dictionary.take(used).to_pylist()
    labels = sorted({text for text in texts if text})
    codes = np.array([labels.index(text) if text else np.nan for text in texts] or [np.nan])
    found = codes[np.searchsorted(used, np.nan_to_num(places)).clip(max=len(codes) - 1)]
    return np.where(np.isnan(places), np.nan, found), tuple(labels)
