"""Files of results, written block by block so that memory holds one block: .npy, .csv, .parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scorefield._internal.atomic_files import write
from scorefield._internal.errors import UsageError

ARRAY = (".npy",)
TABLE = (".csv", ".parquet")


def check_target(path: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Reject a file that a result cannot be written to, before any work.

    Raises:
        UsageError: another ending, a folder that does not exist, a file that exists, pyarrow is
            missing.
    """
    if path.is_dir():
        raise UsageError(f"out={path}: is a folder; pass the name of a file in it.")
    if path.suffix not in endings or not path.parent.is_dir():
        raise UsageError(
            f"out={path}: must end in {' or '.join(endings)}, in a folder that exists."
        )
    refuse_file(path, overwrite)
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UsageError(
                f"out={path}: needs pyarrow; pip install 'scorefield[parquet]', or pass a name "
                "that ends in .csv."
            ) from None


def refuse_file(path: Path, overwrite: bool) -> None:
    """Raise `UsageError` if a file exists and must not be replaced."""
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


def write_table(path: Path, blocks: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write blocks of columns, at once or not at all; numbers in CSV keep all their digits.

    A CSV file has no header if all names are numbers, because readers would take it for a row.
    """
    fill = _fill_parquet if path.suffix == ".parquet" else _fill_csv
    write(path, lambda file: fill(file, blocks))


def _fill_csv(file: BinaryIO, blocks: Iterable[Mapping[str, np.ndarray]]) -> None:
    from scorefield.data.table import is_header

    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    for k, block in enumerate(blocks):
        if k == 0 and is_header(block):
            lines.writerow(block)
        lines.writerows(zip(*(_cells(column) for column in block.values()), strict=True))
    text.detach()  # which flushes, and leaves the file open


def _cells(column: np.ndarray) -> list[object]:
    """Return the cells of a column, with as few digits as are exact; None for a missing value."""
    missing = column.dtype.kind == "f" and bool(np.isnan(column).any())
    short = map(float, column.astype(str)) if column.dtype == np.float32 else column.tolist()
    return [None if missing and value != value else value for value in short]


def _fill_parquet(file: BinaryIO, blocks: Iterable[Mapping[str, np.ndarray]]) -> None:
    import pyarrow
    from pyarrow import parquet

    def table(block: Mapping[str, np.ndarray]) -> pyarrow.Table:
        return pyarrow.table({k: pyarrow.array(v, from_pandas=True) for k, v in block.items()})

    tables = map(table, blocks)
    first = next(tables)
    with parquet.ParquetWriter(file, first.schema) as writer:
        for rows in chain([first], tables):
            writer.write_table(rows)
