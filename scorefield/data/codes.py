"""The columns of a table as numbers: numbers as they are, and the codes of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.axes import Axes
from scorefield.data.contents import ALL, Contents, Use
from scorefield.data.delimited import NOTE
from scorefield.data.dialect import MISSING


def contents_of(table: Any, name: Path | str, use: Use = ALL) -> Contents:
    """Return the contents of a `pyarrow.Table` of numbers, texts and truth values.

    Raises:
        DataError: a column of another type, or of more texts than `Use.most`.
    """
    values, labels = np.empty((table.num_rows, table.num_columns)), dict[str, tuple[str, ...]]()
    for k, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if _is_text(field.type):
            values[:, k], labels[field.name] = _codes(name, field.name, column, use)
        elif _is_number(field.type):
            values[:, k] = column.cast("float64", safe=False).to_numpy()
        else:
            raise DataError(
                f"{name}, column {field.name}: of type {field.type}, neither numbers nor "
                f'texts: leave it out with without="{field.name}".'
            )
    labels = {column: texts for column, texts in labels.items() if texts}
    notes = tuple(text.decode() for text in [(table.schema.metadata or {}).get(NOTE)] if text)
    return Contents(
        values,
        tuple(table.column_names),
        labels,
        table=table,
        notes=notes,
        axes=Axes("vectors"),
    )


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (types.is_boolean, types.is_string, types.is_large_string, types.is_string_view)
    return any(test(kind) for test in tests)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _codes(
    path: Path | str, name: str, column: Any, use: Use
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the codes of a column of texts or truth values, NaN if missing, and their labels.

    Texts are as in a file of texts, so that samples may be written in either format.
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
