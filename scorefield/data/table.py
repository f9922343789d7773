"""Tables of results: CSV, or parquet by pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scorefield.errors import UsageError
from scorefield.files import write

KINDS = (".csv", ".parquet")


def check_table(path: Path) -> None:
    """Refuse a name that no table can be written to, before any work.

    Raises:
        UsageError: another ending, a folder that does not exist, or pyarrow missing.
    """
    if path.suffix not in KINDS or not path.parent.is_dir():
        raise UsageError(f"{path}: give a name that ends in .csv or .parquet, in a folder that "
                         "exists.")  # fmt: skip
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UsageError(
                f"{path}: parquet needs pyarrow; pip install 'scorefield[parquet]', or give a "
                "name that ends in .csv."
            ) from None


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of one length, at once or not at all; numbers in CSV keep all their digits."""
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table(dict(columns))
        write(path, lambda file: parquet.write_table(table, file))
        return
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    write(path, lambda file: file.write(text.getvalue().encode()))
