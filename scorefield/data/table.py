"""Tables: files and objects in memory become a `pyarrow.Table`, which has the names and the types.

pyarrow is imported where a table is met, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from scorefield._internal.errors import DataError
from scorefield.data.arrow_images import image_columns
from scorefield.data.contents import ALL, LINE, THRIFT, Use, check_size, reading
from scorefield.data.delimited import read_delimited, unique
from scorefield.data.text_files import TextFile, opened

_TEXTS, _JSON = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson")
KINDS = (*_TEXTS, *_JSON, ".parquet")
PACKED = tuple(f"{ending}.gz" for ending in (*_TEXTS, *_JSON))


def read(source: Any, name: str, use: Use = ALL) -> Any:
    """Return the selected columns of a file or an object as a `pyarrow.Table`.

    If a column holds images, it comes first, followed by the columns that may be its classes.

    Args:
        source: a path; or an object with the Arrow C interface or ``__dataframe__``; or a mapping
            of names to arrays ``(N,)``.
        name: what messages call it.
        use: the columns to read.

    Raises:
        DataError: a file that cannot be read; two columns of one name; no rows or columns.
    """
    if not isinstance(source, Path):
        return _from_object(source, name, use)
    ending = Path(source.name.lower().removesuffix(".gz")).suffix
    if ending == ".parquet":
        return _from_parquet(source, use)
    return _from_json(source, use) if ending in _JSON else read_delimited(source, use)


def _from_object(source: Any, name: str, use: Use) -> Any:
    import pyarrow
    from pyarrow import interchange

    if hasattr(source, "reset_index"):  # the names of rows are not data
        source = source.reset_index(drop=True)
    if hasattr(source, "to_frame"):  # one column
        source = source.to_frame()
    if hasattr(source, "iloc"):  # other columns need not be of a type that pyarrow has
        places = use.picks(unique(name, list(map(str, source.columns))))
        source = source.iloc[:, [*compress(range(len(places)), places)]]
    with reading(name, "a table", pyarrow.ArrowException):
        if isinstance(source, Mapping):
            source = _arrays(source, name)
        other = hasattr(source, "__dataframe__") and not hasattr(source, "__arrow_c_stream__")
        try:
            table = interchange.from_dataframe(source) if other else pyarrow.table(source)
        except pyarrow.ArrowException as error:  # of several parts, the column last
            raise ValueError(
                f"{': '.join(map(str, reversed(error.args)))}: write values of one type, or leave "
                "the column out with without="
            ) from None
    names = unique(name, table.column_names)
    if not names or not table.num_rows:
        raise DataError(f"{name} holds no {'rows' if names else 'columns'}.")
    if images := image_columns(compress(table.schema, use.picks(names))):
        return table.select(images)
    picked = list(compress(range(len(names)), use.picks(names)))
    renamed = table.rename_columns(names).replace_schema_metadata(table.schema.metadata)
    return renamed.select(picked)


def _arrays(source: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Return arrays, tensors or lists, by their names, as columns in which NaN is missing."""
    import pyarrow

    columns, lengths = {}, {}
    for key, column in source.items():
        shape = tuple(getattr(column, "shape", (len(column),) if isinstance(column, list) else ()))
        if len(shape) != 1:
            keys = ", ".join(map(str, source))
            raise DataError(
                f"{name} is a mapping with the keys {keys[:80]}: pass one of its values, or "
                f"columns of shape (N,); {key} has {shape}."
            )
        column = column.numpy(force=True) if hasattr(column, "numpy") else column
        columns[str(key)] = pyarrow.array(column, from_pandas=True)
        lengths[str(key)] = shape[0]
    if len({*lengths.values()}) > 1:
        raise DataError(f"{name} has columns of different lengths: {lengths}.")
    return columns


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
        table = _decoded(path, table, texts)
    if images:
        return table.select(images)
    renamed = table.rename_columns(list(compress(names, use.picks(names))))
    return renamed.replace_schema_metadata(table.schema.metadata)


def _from_json(path: Path, use: Use) -> Any:
    """Return the selected columns of a file of JSON objects, one in each line.

    Raises:
        DataError: lines that are not objects; a column of values of different types.
    """
    import pyarrow
    from pyarrow import json, types

    with reading(path, "lines of JSON objects", pyarrow.ArrowException):
        TextFile.of(path, "utf-8-sig", objects=True)

        def table(**options: Any) -> Any:
            with opened(path) as file:
                reads = json.ReadOptions(use_threads=False, block_size=LINE)
                return json.read_json(file, reads, json.ParseOptions(**options))

        content = table()
        times = [field for field in content.schema if types.is_timestamp(field.type)]
        if times:  # which are texts in JSON, and come back as they were
            schema = pyarrow.schema([field.with_type(pyarrow.string()) for field in times])
            content = table(explicit_schema=schema).select(content.column_names)
    names = unique(path, content.column_names)
    picked = list(compress(range(len(names)), use.picks(names)))
    if not picked:
        raise DataError(f"{path} holds no columns.")
    return content.rename_columns(names).select(picked)


def _texts(columns: Iterable[Any]) -> Iterable[str]:
    from pyarrow import types

    return (column.name for column in columns if types.is_string(column.type))


def _decoded(path: Path, table: Any, texts: Sequence[str]) -> Any:
    """Return a table with columns of texts instead of their codes, if memory allows it."""
    from pyarrow import types

    for place, field in enumerate(table.schema):
        if not types.is_dictionary(field.type) or not types.is_string(field.type.value_type):
            continue
        column = table.column(place)
        check_size(path, sum(map(_length, column.chunks)))
        if field.name in texts:
            table = table.set_column(place, field.name, column.cast("string"))
    return table


def _length(chunk: Any) -> int:
    """Return the number of bytes of the texts that codes stand for."""
    from pyarrow import compute

    return compute.sum(compute.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
