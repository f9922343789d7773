"""Data that is in memory already: arrays, tensors, sparse matrices, tables and AnnData objects.

The libraries that such objects come from are not imported. Datasets of Hugging Face become Arrow
tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.arrow_images import is_image, read_image_table
from scorefield.data.axes import OPTIONS, Axes
from scorefield.data.cells import matrix_note
from scorefield.data.config import ReadingConfig
from scorefield.data.contents import (
    ALL,
    Coded,
    Contents,
    Use,
    Values,
    coded,
    counted,
    reading,
)
from scorefield.data.dialect import MISSING, NOTE
from scorefield.data.exact import Numbers
from scorefield.data.images import KINDS, decoded
from scorefield.data.lengths import stacked
from scorefield.data.pixels import Encoded
from scorefield.data.table import read


def from_object(
    source: Any, name: str, choices: ReadingConfig = ReadingConfig(), use: Use = ALL
) -> Contents:
    """Return the contents of an object.

    Args:
        name: what messages call it.
        choices: of an array, a matrix or a size.
        use: the columns of a table that are read.

    Raises:
        DataError: a table with columns of other types than numbers and texts; a matrix that the
            object does not have; items of several shapes.
    """
    if hasattr(source, "obs") and hasattr(source, "X"):
        return _cells(source, name, choices.matrix or "X")
    if hasattr(source, "getbands"):
        raise DataError(f"{name} is one image: pass a list of images.")
    if isinstance(source, list | tuple) and source and _is_image(source[0]):
        images = [
            Path(image) if isinstance(image, str | Path) else Encoded(f"{name}, item {k}", image)
            for k, image in enumerate(source)
        ]
        return decoded(name, images, choices)
    if hasattr(source, "with_format") and hasattr(source, "features"):
        return _dataset(source, name, use, choices)
    tables = ("__arrow_c_stream__", "__dataframe__", "to_frame")
    if isinstance(source, Mapping) or any(hasattr(source, each) for each in tables):
        return read_table(source, name, use, choices=choices)
    if hasattr(source, "toarray") or hasattr(source, "to_memory"):
        return Contents(_Sparse(source))
    # of lists of numbers, unequal ones are more often rows with a value missing
    if isinstance(source, list | tuple) and source and hasattr(source[0], "ndim"):
        signals = stacked(source, name)
        if signals is not None:
            values, axes = signals
            places = [each.shape[-1 if axes.channels != "last" else 0] for each in source]
            note = f"signals of {min(places)} to {max(places)} places"
            return Contents(values, axes=axes, notes=(note,))
    return array_contents(array(source, name), name, use)


def _is_image(item: Any) -> bool:
    if isinstance(item, str | Path):
        return Path(item).suffix.lower() in KINDS
    return hasattr(item, "getbands")


def array_contents(values: np.ndarray, name: str, use: Use = ALL) -> Contents:
    """Return the contents of an array; one of records is a table.

    Raises:
        DataError: records that hold arrays.
    """
    fields = values.dtype.names
    if not fields:
        return Contents(values, options=OPTIONS)
    if values.ndim != 1 or any(values.dtype[field].shape for field in fields):
        raise DataError(
            f"{name} has shape {values.shape} and records of type {values.dtype}: needs (N,) "
            "records of single values; pass the numbers of one field, as x[field]."
        )
    values = values.astype(values.dtype.newbyteorder("="))  # which pyarrow needs
    return read_table({field: values[field].copy() for field in fields}, name, use)


def read_table(
    source: Any,
    name: str,
    use: Use = ALL,
    class_names: Mapping[str, Sequence[str]] = MappingProxyType({}),
    choices: ReadingConfig = ReadingConfig(),
) -> Contents:
    """Return the contents of a table, or of one with a column of images.

    Args:
        class_names: of columns next to images, by the column.
        choices: of the colours and sizes of images.

    Raises:
        DataError: as `scorefield.data.table.read`.
    """
    table = read(source, name, use)
    if is_image(table.schema.field(0).type):
        paths = not isinstance(source, Path)
        return read_image_table(name, table, class_names, paths, choices)
    names, note = tuple(table.column_names), (table.schema.metadata or {}).get(NOTE)
    notes = () if note is None else (note.decode(),)
    return Contents(Numbers(table), names, table=table, notes=notes, axes=Axes("vectors"))


def _dataset(source: Any, name: str, use: Use, choices: ReadingConfig) -> Contents:
    """Return the contents of a dataset of Hugging Face: of images, or of a table."""
    if not hasattr(source, "__len__"):
        raise DataError(f"{name} is a stream: load it whole, with streaming=False.")
    features = source.features or {}
    class_names = {column: f.names for column, f in features.items() if getattr(f, "names", None)}
    return read_table(source.with_format("arrow")[:], name, use, class_names, choices)


def _cells(source: Any, name: str, matrix: str) -> Contents:
    groups = {"layers": getattr(source, "layers", None), "obsm": getattr(source, "obsm", None)}
    raw = getattr(source, "raw", None)
    every = {"X": source.X, **({} if raw is None else {"raw": raw.X})}
    every |= {
        f"{group}/{k}": v for group, values in groups.items() for k, v in (values or {}).items()
    }
    if matrix not in every:
        raise DataError(f"matrix={matrix!r}: {name} has {', '.join(every)}.")
    owner: Any = raw if matrix == "raw" else source
    genes = tuple(map(str, owner.var_names))
    return Contents(
        _values(every[matrix], name),
        genes if len(set(genes)) == len(genes) and not matrix.startswith("obsm/") else (),
        by_name={str(column): partial(_column, source.obs, column) for column in source.obs},
        axes=Axes("vectors"),
        notes=(matrix_note(matrix, [*every]),),
        options=("matrix",),
    )


def _column(table: Any, name: Any) -> Coded:
    column = table[name]
    if hasattr(column, "cat"):  # of pandas, in the order of its categories
        return Coded(np.asarray(column.cat.codes, np.int64), tuple(map(str, column.cat.categories)))
    return coded(texts(np.asarray(column)))


def texts(values: np.ndarray) -> np.ndarray:
    """Return values ``(N,)`` as texts, by the rules of a table; missing ones are empty."""
    every = (str(value).strip() for value in values.tolist())
    return np.array(["" if text.lower() in {*MISSING, "<na>"} else text for text in every], str)


def _values(source: Any, name: str) -> Values:
    sparse = hasattr(source, "toarray") or hasattr(source, "to_memory")
    return _Sparse(source) if sparse else array(source, name)


def array(source: Any, name: str = "data") -> np.ndarray:
    """Return a tensor, or nested lists of numbers, arrays or tensors, as an array.

    Masked values are NaN.

    Raises:
        DataError: items of several shapes; a tensor without values.
    """
    if isinstance(source, Tensor):
        with reading(name, "an array"):
            return _of_tensor(source, name)
    if isinstance(source, np.ma.MaskedArray):
        return np.ma.filled(source.astype(np.float64), np.nan)
    if isinstance(source, list | tuple) and source:
        if all(isinstance(item, Tensor) for item in source):
            source = [_of_tensor(item, name) for item in source]
        shapes = Counter(map(np.shape, source)) if hasattr(source[0], "shape") else ()
        if len(shapes) > 1:
            raise DataError(f"{name} has items of several shapes: {counted(shapes)}.")
    with reading(name, "an array"):
        return np.asarray(source)


def _of_tensor(x: Tensor, name: str) -> np.ndarray:
    if x.is_meta:
        raise DataError(f"{name} is a tensor on the device meta, which has no values.")
    x = x.detach().to_dense() if x.layout is not torch.strided else x.detach()
    x = x.dequantize() if x.is_quantized else x
    if x.is_floating_point() and x.dtype not in (torch.float16, torch.float32, torch.float64):
        x = x.float()  # of which NumPy has no type
    return np.asarray(x.cpu().resolve_conj().resolve_neg())


class _Sparse:
    """Rows of a sparse matrix, made dense when they are read."""

    def __init__(self, matrix: Any) -> None:
        matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
        self.matrix = matrix.tocsr() if hasattr(matrix, "tocsr") else matrix
        self.shape, self.dtype = tuple(map(int, matrix.shape)), np.dtype(matrix.dtype)

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        return np.asarray(self.matrix[rows].toarray())
