"""Files of results, written block by block so that memory holds one block: arrays and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scorefield._internal.atomic_files import check_place, write
from scorefield._internal.errors import UsageError

ARRAY = (".npy",)
CELLS = (".h5ad",)
TABLE = (".csv", ".tsv", ".jsonl", ".parquet")


def check_target(path: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Reject a file that a result cannot be written to, before any work.

    Raises:
        UsageError: another ending, a folder that does not exist, a file that exists; cells without
            h5py.
        StorageError: a link.
    """
    if path.is_dir():
        raise UsageError(f"out={path}: is a folder; pass the name of a file in it.")
    if path.suffix not in endings or not path.parent.is_dir():
        raise UsageError(
            f"out={path}: must end in {' or '.join(endings)}, in a folder that exists."
        )
    if path.suffix in CELLS and find_spec("h5py") is None:
        raise UsageError(f"out={path}: cells need h5py; pip install 'scorefield[cells]'.")
    refuse_file(path, overwrite)


def refuse_file(path: Path, overwrite: bool) -> None:
    """Raise `UsageError` if a file exists and must not be replaced, `StorageError` for a link."""
    check_place(path)
    if path.exists() and not overwrite:
        raise UsageError(f"out={path}: exists already; pass another file, or overwrite=True.")


def write_array(path: Path, count: int, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks of ``count`` rows in all as one ``.npy`` file, at once or not at all."""

    rest = map(np.ascontiguousarray, blocks)
    first = next(rest)

    def fill(file: BinaryIO) -> None:
        head = np.lib.format.header_data_from_array_1_0(first)
        head["shape"] = (count, *first.shape[1:])
        np.lib.format.write_array_header_1_0(file, head)
        for block in chain([first], rest):
            file.write(block.data)

    write(path, fill, count * first[0].nbytes)


def from_arrays(columns: Mapping[str, np.ndarray]) -> Any:
    """Return arrays ``(N,)`` as a `pyarrow.Table`, in which NaN is a missing value."""
    import pyarrow

    arrays = {name: pyarrow.array(column, from_pandas=True) for name, column in columns.items()}
    return pyarrow.table(arrays)


def write_table(path: Path, blocks: Iterable[Any]) -> None:
    """Write blocks of a `pyarrow.Table`, at once or not at all, in the format of the ending.

    Numbers as text keep all their digits. A file of texts has no header if all names are numbers,
    because readers would take it for a row.
    """
    fills: dict[str, Callable[[BinaryIO, Iterator[Any]], None]] = {
        ".csv": lambda file, rest: _fill_text(file, rest, ","),
        ".tsv": lambda file, rest: _fill_text(file, rest, "\t"),
        ".jsonl": _fill_json,
        ".parquet": _fill_parquet,
    }
    write(path, lambda file: fills[path.suffix](file, iter(blocks)))


def _fill_text(file: BinaryIO, blocks: Iterator[Any], delimiter: str) -> None:
    import pyarrow

    from scorefield.data.dialect import is_header

    first = next(blocks)
    if is_header(first.column_names):
        names = _quoted(pyarrow.array(first.column_names), delimiter).to_pylist()
        file.write((delimiter.join(names) + "\n").encode())
    for block in chain([first], blocks):
        file.write(_lines(block, delimiter).encode())


def _lines(table: Any, delimiter: str) -> str:
    from pyarrow import compute

    cells = (_quoted(column.cast("string"), delimiter) for column in table.columns)
    filled = [compute.fill_null(column, "") for column in cells]
    rows = compute.binary_join_element_wise(*filled, delimiter).to_pylist()
    return "".join(f"{row}\n" for row in rows)


def _quoted(cells: Any, delimiter: str) -> Any:
    """Return texts in quotes where a reader needs them."""
    from pyarrow import compute

    special = compute.match_substring_regex(cells, f'[{delimiter}"\r\n]|^$|^\\s|\\s$')
    twice = compute.replace_substring(cells, '"', '""')
    return compute.if_else(special, compute.binary_join_element_wise('"', twice, '"', ""), cells)


def _fill_json(file: BinaryIO, blocks: Iterator[Any]) -> None:
    for block in blocks:
        for row in block.to_pylist():
            text = json.dumps(row, default=_plain, ensure_ascii=False)
            file.write(f"{text}\n".encode())


def _plain(value: object) -> float | str:
    """Return a value that JSON has no type for: a decimal as a number, a time as a text."""
    return float(value) if isinstance(value, Decimal) else str(value)


def _fill_parquet(file: BinaryIO, blocks: Iterator[Any]) -> None:
    from pyarrow import parquet

    first = next(blocks)
    with parquet.ParquetWriter(file, first.schema) as writer:
        for block in chain([first], blocks):
            writer.write_table(block)
