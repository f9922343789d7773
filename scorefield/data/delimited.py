"""Tables of text, a line for each row, read by pyarrow: first all cells as texts, then by column.

The types of the columns are those of `scorefield.data.cell_types`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from scorefield._internal.errors import DataError
from scorefield.data.cell_types import Cells, decimal_mark, typed
from scorefield.data.contents import ALL, LINE, Use, reading
from scorefield.data.dialect import NOTE, is_header
from scorefield.data.form import Form, detect
from scorefield.data.text_files import TextFile


def read_delimited(path: Path, use: Use = ALL) -> Any:
    """Return the selected columns of a file as a `pyarrow.Table`.

    Args:
        use: the columns to read, and the dialect.

    Raises:
        DataError: another encoding; rows of different lengths; no rows; two columns of one name; a
            column of both numbers and texts; numbers that may be read in two ways.
    """
    import pyarrow

    with reading(path, "a table", pyarrow.ArrowException, csv.Error):
        file = TextFile.of(path, use.dialect.encoding)
        form = detect(file, use.dialect)
        _check_quotes(file, form)
        names = unique(path, form.first) if form.has_names else _placed(form.width, use)
        picked = list(compress(range(form.width), use.picks(names)))
        table = _texts(file, form, picked)
        if not table.num_rows:
            raise DataError(_empty(path, names, form))
        columns = []
        for k in picked:
            is_text = names[k] in use.texts
            cells = Cells.of(names[k], table.column(0), use.dialect.na, is_text)
            table = table.remove_column(0)  # which frees its memory
            if cells.filled or not form.has_names or form.first[k].strip():
                columns.append(cells)
        if not columns:
            raise DataError(f"{path} holds no columns.")
        decimal = use.dialect.decimal or decimal_mark(path, columns, form.delimiter)
        note = _note(file, form, decimal, columns)
        arrays = {cells.name: typed(file, form, cells, decimal) for cells in columns}
    return pyarrow.table(arrays, metadata={NOTE: note})


def _texts(file: TextFile, form: Form, picked: Sequence[int]) -> Any:
    """Return the cells of some columns as texts."""
    import pyarrow
    from pyarrow import compute, csv as arrow_csv

    bad: list[Any] = []  # pyarrow does not pass on exceptions of a handler

    def handle(row: Any) -> str:
        remark = form.comment and row.text.startswith(form.comment)
        if remark or not row.text.strip():
            return "skip"
        bad.append(row)
        return "error"

    places = [str(k) for k in range(form.width)]
    # comments of as many cells as a row are known by the first cell
    extra = [0] if form.comment and 0 not in picked else []
    reads = arrow_csv.ReadOptions(
        use_threads=False,
        column_names=places,
        skip_rows=form.skip,
        skip_rows_after_names=int(form.header),
        block_size=LINE,
        encoding="utf8" if file.encoding == "utf-8-sig" else file.encoding,
    )
    parses = arrow_csv.ParseOptions(
        delimiter=form.delimiter,
        newlines_in_values=True,
        ignore_empty_lines=form.width > 1,
        invalid_row_handler=handle,
    )
    converts = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(places, pyarrow.string()),
        include_columns=[places[k] for k in [*picked, *extra]],
    )
    try:
        with file.bytes() as content:
            table = arrow_csv.read_csv(content, reads, parses, converts)
    except pyarrow.ArrowInvalid as error:
        if bad:
            raise DataError(_ragged(file, form, bad[0])) from None
        if next(form.rows(file), None) is None:  # a last line without its end
            return pyarrow.table({place: [] for place in converts.include_columns})
        if "straddling" in str(error):
            raise ValueError(f"a row has {LINE:,} characters or more") from None
        raise
    if form.comment:
        table = table.filter(compute.invert(compute.starts_with(table.column("0"), form.comment)))
    return table.select([places[k] for k in picked])


def _check_quotes(file: TextFile, form: Form) -> None:
    """Refuse a file that ends inside a quoted cell, which pyarrow takes for the end of the cell."""
    if not file.odd_quotes:
        return
    with file.text() as text:
        for _ in range(form.skip):
            text.readline()
        reader, row = csv.reader(text, delimiter=form.delimiter, strict=True), form.skip
        try:
            for _ in reader:
                row += 1
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise DataError(
                    f"{file.path}, row {row + 1}: a quotation mark opens a cell that does not end. "
                    'Close it, or write a mark inside a cell as "".'
                ) from None


def _ragged(file: TextFile, form: Form, bad: Any) -> str:
    rows = (number for number, row in form.rows(file) if len(row) != form.width)
    text = bad.text if len(bad.text) < 40 else f"{bad.text[:40]}…"
    return (
        f"{file.path}, row {next(rows, bad.number)}: {bad.actual_columns} cells, but {form.width} "
        f"column(s) separated by {form.separated}: {text!r}. Put cells that hold the separator in "
        "quotes, or pass the separator as delimiter=, or the mark of comments as comment=."
    )


def _empty(path: Path, names: Sequence[str], form: Form) -> str:
    if not form.header:
        return f"{path} holds no rows."
    return (
        f"{path} holds no rows besides a header of {len(names)} column(s), {names[0]!r} first: "
        "pass header=False if it is a row of data."
    )


def _note(file: TextFile, form: Form, decimal: str, columns: Sequence[Cells]) -> str:
    """Return a sentence on the format of a file."""
    marks = sorted({mark for cells in columns for mark in cells.marks})
    parts = [
        f"cells separated by {form.separated}" if form.width > 1 else "one column",
        "header" if form.has_names else "no header",
        "decimal commas" if decimal == "," else "",
        "" if file.encoding in ("utf-8", "utf-8-sig") else f"encoding {file.encoding}",
        f"comments after {form.comment}" if form.comment else "",
        f"missing cells written as {', '.join(map(repr, marks))}" if marks else "",
    ]
    return ", ".join(filter(None, parts))


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
