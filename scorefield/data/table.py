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
            for line, row in enumerate(csv.reader(file), 1):
                if row:
                    yield line, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


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
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: parquet needs pyarrow; pip install 'scorefield[parquet]'."
        ) from None
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    if not table.num_columns or not table.num_rows:
        raise DataError(f"{path} holds no {'rows' if table.num_columns else 'columns'}.")
    names = _named(path, table.column_names)
    values, labels = np.full((table.num_rows, len(names)), np.nan), {}
    for k, (name, column) in enumerate(zip(names, table.columns, strict=True)):
        if not use(name):
            continue
        values[:, k], found = _arrow(path, name, column)
        if found:
            labels[name] = found
    return Contents(values, names, labels, typed=True)


def _arrow(path: Path, name: str, column: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the numbers of a column, and of texts the labels that they count."""
    import pyarrow
    from pyarrow import compute, types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_integer(kind) or types.is_floating(kind):
        wide = column.cast(kind).cast(pyarrow.float64(), safe=False)
        return wide.to_numpy().astype(np.float64), ()
    if not (types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(
            f"{path}, column {name}: of type {column.type}, neither numbers nor texts: leave it "
            f"out with --without {name}."
        )
    texts = column.cast(pyarrow.string())
    labels = sorted(text for text in compute.unique(texts).to_pylist() if text)
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"{path}, column {name}: {len(labels)} different texts, too many for a category: leave "
            f"it out with --without {name}."
        )
    codes = compute.index_in(texts, pyarrow.array(labels, pyarrow.string()))
    return codes.cast(pyarrow.float64()).to_numpy().astype(np.float64), tuple(labels)
