"""Tables: CSV, or parquet by pyarrow.

A column of a table holds numbers or texts, and a cell may be empty. The first row is a header,
except if all its cells are numbers, numbers and missing values, or empty.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.arrow_images import image_columns, read_image_table
from scorefield.data.contents import ALL, THRIFT, Contents, Use, check_size, lines, reading

KINDS = (".csv", ".parquet")
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


def read_csv(path: Path, use: Use = ALL) -> Contents:
    """Read a table of numbers and texts, in two passes.

    Args:
        use: the columns to read; the others are left empty.

    Raises:
        DataError: rows of different lengths, a column of both numbers and texts, or of more texts
            than `Use.most`.
    """
    check_size(path, path.stat().st_size)
    rows = _rows(path)
    try:
        _, first = next(rows)
    except StopIteration:
        raise DataError(f"{path} holds no rows.") from None
    header = is_header(first)
    names = _unique(path, first) if header else _placed(len(first), use)
    columns, count = [_Column(path, name, use) for name in names], 0
    used = use.picks(names)
    for line, row in islice(_rows(path), header, None):
        count += 1
        if len(row) != len(names):
            raise DataError(f"{path}, row {line}: {len(row)} cells, but {len(names)} columns.")
        for column, cell in compress(zip(columns, row, strict=True), used):
            column.see(line, cell)
    values = np.empty((count, len(names)))
    codes = [{label: k for k, label in enumerate(column.labels)} for column in columns]
    for k, (_, row) in enumerate(islice(_rows(path), header, None)):
        for j, cell in enumerate(row):
            text = cell.strip()
            if not used[j] or text.lower() in MISSING:
                values[k, j] = np.nan
            else:
                values[k, j] = codes[j][text] if codes[j] else float(text)
    labels = {c.name: c.labels for c in columns if c.labels}
    return Contents(values, names, labels, typed=True)


class _Column:
    """The contents of a column, collected in the first pass."""

    def __init__(self, path: Path, name: str, use: Use) -> None:
        self.path, self.name, self.use = path, name, use
        self.as_text, self.most = name in use.texts, use.most(name)
        self.number, self.texts = "", set[str]()

    def see(self, line: int, cell: str) -> None:
        text = cell.strip()
        if text.lower() in MISSING:
            return
        if self.as_text or not _is_number(text):
            self.texts.add(text)
        else:
            self.number = self.number or text
        if self.texts:
            self._check(line, text)

    def _check(self, line: int, text: str) -> None:
        where = f"{self.path}, row {line}, column {self.name}: {text!r}"
        if self.number:
            raise DataError(
                f"{where}, but the column holds both numbers such as {self.number} and texts such "
                f"as {min(self.texts)!r}: write one or the other, and leave unknown cells empty."
            )
        if len(self.texts) > self.most:
            raise DataError(
                f"{where} is one of more than {self.most} different texts, "
                + self.use.too_many(self.name)
            )

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted(self.texts))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty with their numbers, from 1."""
    with (
        reading(path, "a table", csv.Error),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        for number, row in enumerate(csv.reader(lines(path, file)), 1):
            if row:
                yield number, row


def _unique(path: Path | str, names: list[str]) -> tuple[str, ...]:
    """Return the names of columns; one without a name is called by its position, from 1."""
    columns = tuple(name.strip() or f"column {k}" for k, name in enumerate(names, 1))
    for name, count in Counter(columns).items():
        if count > 1:
            raise DataError(f"{path} has two columns named {name}: rename one of them.")
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


def read_parquet(path: Path, use: Use = ALL) -> Contents:
    """Read a table of numbers, truth values and texts, or one with a column of images.

    Args:
        use: as for `read_csv`.

    Raises:
        DataError: a column of another type, or of more texts than `Use.most`.
    """
    table, names = _arrow(path, use)
    if names is None:
        return read_image_table(path, table, {}, paths=False)
    return _contents(path, table, names, use)


def read_frame(
    frame: Any,
    name: str,
    use: Use = ALL,
    class_names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Contents:
    """Read a table in memory that has the Arrow C interface or ``__dataframe__``.

    Args:
        class_names: of columns next to images, by the column.

    Raises:
        DataError: as `read_parquet`; pyarrow missing.
    """
    try:
        import pyarrow
        from pyarrow import interchange
    except ImportError:
        raise DataError(
            f"{name}: tables in memory need pyarrow; pip install 'scorefield[parquet]', or pass an "
            "array of numbers."
        ) from None
    if hasattr(frame, "reset_index"):  # the names of rows are not data
        frame = frame.reset_index(drop=True)
    with reading(name, "a table", pyarrow.ArrowException):
        arrow = hasattr(frame, "__arrow_c_stream__")
        table = pyarrow.table(frame) if arrow else interchange.from_dataframe(frame)
    names = _unique(name, table.column_names)
    if not names or not table.num_rows:
        raise DataError(f"{name} holds no {'rows' if names else 'columns'}.")
    if images := image_columns(compress(table.schema, use.picks(names))):
        return read_image_table(name, table.select(images), class_names, paths=True)
    picked = list(compress(range(len(names)), use.picks(names)))
    _check_types(name, [table.schema.field(k) for k in picked])
    return _contents(name, table.select(picked), names, use)


def _contents(path: Path | str, table: Any, names: tuple[str, ...], use: Use) -> Contents:
    """Return the contents of an Arrow table of the selected columns."""
    values, labels = np.full((table.num_rows, len(names)), np.nan), dict[str, tuple[str, ...]]()
    places = np.flatnonzero(use.picks(names))
    for place, column in zip(places, table.columns, strict=True):
        if _is_text(column.type):
            values[:, place], labels[names[place]] = _codes(path, names[place], column, use)
        else:
            values[:, place] = column.cast("float64", safe=False).to_numpy()
    return Contents(values, names, {k: v for k, v in labels.items() if v}, typed=True)


def _check_types(path: Path | str, columns: Iterable[Any]) -> None:
    for column in columns:
        if not (_is_text(column.type) or _is_number_type(column.type)):
            raise DataError(
                f"{path}, column {column.name}: of type {column.type}, neither numbers nor "
                f'texts: leave it out with without="{column.name}".'
            )


def _arrow(path: Path, use: Use) -> tuple[Any, tuple[str, ...] | None]:
    """Return a table of the selected columns, and the names of all; None for one with images."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: parquet needs pyarrow; pip install 'scorefield[parquet]'."
        ) from None
    limits = {"thrift_string_size_limit": THRIFT, "thrift_container_size_limit": THRIFT}
    with reading(path, "parquet", pyarrow.ArrowException):
        with parquet.ParquetFile(path, **limits) as file:
            names, head = _unique(path, file.schema_arrow.names), file.metadata
            columns = list(compress(file.schema_arrow, use.picks(names)))
        images = image_columns(columns)
        if not images:
            _check_types(path, columns)
        if not columns or not head.num_rows:
            raise DataError(f"{path} holds no {'rows' if columns else 'columns'}.")
        groups = [head.row_group(k) for k in range(head.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        check_size(path, max(unpacked, 8 * head.num_rows * len(names)))
        if images:
            with parquet.ParquetFile(path, **limits) as file:
                return file.read(images).select(images), None
        # as codes, because a short text may be in any number of rows
        coded = [column.name for column in columns if pyarrow.types.is_string(column.type)]
        with parquet.ParquetFile(path, read_dictionary=coded, **limits) as file:
            return file.read([column.name for column in columns]), names


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (types.is_boolean, types.is_string, types.is_large_string, types.is_string_view)
    return any(test(kind) for test in tests)


def _is_number_type(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def _codes(
    path: Path | str, name: str, column: Any, use: Use
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the codes of a column of texts or truth values, NaN if missing, and their labels.

    Texts are as in `read_csv`, so that samples may be written in either format.
    """
    from pyarrow import types

    if types.is_boolean(column.type):
        column = column.cast("string")
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    places = whole.indices.cast("float64").to_numpy(zero_copy_only=False)
    used = np.unique(places[~np.isnan(places)]).astype(np.int64)
    texts = [
        (text or "").strip()
        for text in whole.dictionary.cast("large_string").take(used).to_pylist()
    ]
    labels = sorted({text for text in texts if text.lower() not in MISSING})
    if len(labels) > use.most(name):
        raise DataError(
            f"{path}, column {name}: {len(labels)} different texts, " + use.too_many(name)
        )
    code_of = {label: code for code, label in enumerate(labels)}
    codes = np.array([code_of.get(text, np.nan) for text in texts] or [np.nan])
    every = codes[np.searchsorted(used, np.nan_to_num(places)).clip(max=len(codes) - 1)]
    return np.where(np.isnan(places), np.nan, every), tuple(labels)
