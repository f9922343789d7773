"""Images in a column of an Arrow table, as the datasets of Hugging Face store them.

Such a column holds structs of ``bytes``, an encoded file, and ``path``. Columns of whole numbers or
of texts may serve as classes; the metadata of the table name the classes of a column of numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.config import ReadingConfig
from scorefield.data.contents import Coded, Contents, coded
from scorefield.data.images import decoded
from scorefield.data.pixels import Encoded, Source

_METADATA = b"huggingface"
_CLASSES = "label"  # the usual name of a column of classes


def is_image(kind: Any) -> bool:
    """Return whether an Arrow type is that of images."""
    from pyarrow import types

    if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field("bytes").type
    return bool(types.is_binary(content) or types.is_large_binary(content))


def is_class(kind: Any) -> bool:
    """Return whether the values of an Arrow type may be classes."""
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def image_columns(columns: Iterable[Any]) -> list[str]:
    """Return the names of the fields of a schema that hold images, and of those for classes.

    The images come first; without images the result is empty.
    """
    fields = list(columns)
    images = [field.name for field in fields if is_image(field.type)]
    return [*images[:1], *(f.name for f in fields if is_class(f.type))] if images else []


def read_image_table(
    where: Path | str,
    table: Any,
    class_names: Mapping[str, Sequence[str]],
    paths: bool,
    choices: ReadingConfig = ReadingConfig(),
) -> Contents:
    """Return the images of a table of the columns that `image_columns` names.

    The classes are those of the one column with named classes, or of a column called ``label``.

    Args:
        class_names: the names of the classes, by the column, in addition to the table's metadata.
        paths: read an image without bytes from its path. Not for a file, whose paths may be of
            another machine.
        choices: of the colours and sizes of the images.

    Raises:
        DataError: an image without content; as `scorefield.data.images.decoded`.
    """
    name, *others = table.column_names
    names = {**_class_names(table.schema.metadata or {}), **class_names}
    by_name = {other: partial(_classes, table, other, names.get(other)) for other in others}
    usual = [other for other in others if other in names] or [o for o in others if o == _CLASSES]
    classes = by_name[usual[0]]() if len(usual) == 1 else None
    contents = decoded(where, _Cells(where, name, table.column(name), paths), choices)
    return replace(contents, classes=classes, by_name=by_name)


class _Cells(Sequence[Source]):
    """The images of a column."""

    def __init__(self, where: Path | str, name: str, column: Any, paths: bool) -> None:
        self.where, self.name, self.column, self.paths = where, name, column, paths

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, k: int) -> Source: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[Source]: ...
    def __getitem__(self, k: int | slice) -> Source | Sequence[Source]:
        if isinstance(k, slice):
            return [self[j] for j in range(*k.indices(len(self)))]
        cell = self.column[int(k)].as_py() or {}
        content, path = cell.get("bytes"), cell.get("path")
        place = f"{self.where}, row {int(k)}, column {self.name}"
        if content is not None:
            return Encoded(place, content)
        if path and self.paths:
            return Path(path)
        raise DataError(f"{place}: has no bytes: store the images in the table, not their paths.")


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Return the names of classes in the metadata of a schema."""
    try:
        features = json.loads(metadata.get(_METADATA, b"{}"))["info"]["features"].items()
        return {k: [str(n) for n in f["names"]] for k, f in features if f.get("names")}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return {}  # written by another program


def _classes(table: Any, name: str, names: Sequence[str] | None) -> Coded:
    column = table.column(name).to_pylist()
    if any(isinstance(value, str) for value in column):
        return coded(np.array([value or "" for value in column], str))
    codes = np.array([-1 if value is None else value for value in column], np.int64)
    if names is None:
        numbers = np.unique(codes[codes >= 0])
        place = np.searchsorted(numbers, codes)
        return Coded(np.where(codes < 0, -1, place), tuple(map(str, numbers)))
    if len(codes) and not (codes.min() >= -1 and codes.max() < len(names)):
        raise DataError(f"column {name} has values up to {codes.max()}, for {len(names)} names.")
    return Coded(codes, tuple(names))
