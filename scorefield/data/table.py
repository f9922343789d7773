"""Tables: files and objects in memory become a `pyarrow.Table`, which has the names and the types.

pyarrow is imported where a table is met, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from pathlib import Path
from typing import Any

from scorefield._internal.errors import DataError
from scorefield.data.arrow_images import image_columns
from scorefield.data.contents import ALL, THRIFT, Use, check_size, reading
from scorefield.data.delimited import read_delimited, unique

KINDS = (".csv", ".parquet")


def read(source: Any, name: str, use: Use = ALL) -> Any:
    """Return the selected columns of a file or an object as a `pyarrow.Table`.

    If a column holds images, it comes first, followed by the columns that may be its classes.

    Args:
        source: a path; or an object with the Arrow C interface, with ``__dataframe__``, or a
            mapping of names to arrays ``(N,)``.
        name: what messages call it.
        use: the columns to read.

    Raises:
        DataError: a file that cannot be read; two columns of one name; no rows or columns.
    """
    if not isinstance(source, Path):
        return _from_object(source, name, use)
    return (
        _from_parquet(source, use) if source.suffix == ".parquet" else read_delimited(source, use)
    )


def _from_object(source: Any, name: str, use: Use) -> Any:
    import pyarrow
    from pyarrow import interchange

    if hasattr(source, "reset_index"):  # the names of rows are not data
        source = source.reset_index(drop=True)
    with reading(name, "a table", pyarrow.ArrowException):
        other = hasattr(source, "__dataframe__") and not hasattr(source, "__arrow_c_stream__")
        table = interchange.from_dataframe(source) if other else pyarrow.table(source)
    names = unique(name, table.column_names)
    if not names or not table.num_rows:
        raise DataError(f"{name} holds no {'rows' if names else 'columns'}.")
    if images := image_columns(compress(table.schema, use.picks(names))):
        return table.select(images)
    picked = list(compress(range(len(names)), use.picks(names)))
    return table.rename_columns(names).select(picked)


def _from_parquet(path: Path, use: Use) -> Any:
    import pyarrow
    from pyarrow import parquet

    limits = {"thrift_string_size_limit": THRIFT, "thrift_container_size_limit": THRIFT}
    with reading(path, "parquet", pyarrow.ArrowException):
        with parquet.ParquetFile(path, **limits) as file:
            names, head = unique(path, file.schema_arrow.names), file.metadata
            columns = list(compress(file.schema_arrow, use.picks(names)))
        images = image_columns(columns)
        if not columns or not head.num_rows:
            raise DataError(f"{path} holds no {'rows' if columns else 'columns'}.")
        groups = [head.row_group(k) for k in range(head.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        check_size(path, max(unpacked, 8 * head.num_rows * len(names)))
        # as codes, because a short text may be in any number of rows
        texts = () if images else tuple(_texts(columns))
        with parquet.ParquetFile(path, read_dictionary=texts, **limits) as file:
            table = file.read(images or [column.name for column in columns])
        for name in texts:
            table = _decoded(path, table, name)
    if images:
        return table.select(images)
    return table.rename_columns(list(compress(names, use.picks(names))))


def _texts(columns: Iterable[Any]) -> Iterable[str]:
    from pyarrow import types

    return (column.name for column in columns if types.is_string(column.type))


def _decoded(path: Path, table: Any, name: str) -> Any:
    """Return a table with a column of texts instead of their codes, if memory allows it."""
    from pyarrow import compute

    place = table.schema.get_field_index(name)
    column = table.column(place)
    lengths = (
        compute.sum(compute.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
        for chunk in column.chunks
    )
    check_size(path, sum(lengths))
    return table.set_column(place, name, column.cast("string"))
