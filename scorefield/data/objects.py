"""Data that is in memory already: arrays, tensors, sparse matrices, tables and AnnData objects.

The libraries that such objects come from are not imported. Datasets of Hugging Face become Arrow
tables.
"""

from __future__ import annotations

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
from scorefield.data.codes import contents_of
from scorefield.data.contents import ALL, Coded, Contents, Use, Values, coded
from scorefield.data.delimited import MISSING
from scorefield.data.table import read


def from_object(source: Any, name: str, layer: str | None = None, use: Use = ALL) -> Contents:
    """Return the contents of an object.

    Args:
        name: what messages call it.
        layer: of an AnnData object, instead of ``X``.
        use: the columns of a table that are read.

    Raises:
        DataError: a table with columns of other types than numbers and texts; a layer that the
            object does not have.
    """
    if hasattr(source, "obs") and hasattr(source, "X"):
        return _cells(source, name, layer)
    if isinstance(source, Mapping):
        keys = ", ".join(map(str, source)) or "none"
        raise DataError(f"{name} is a mapping with the keys {keys[:80]}: pass one of its values.")
    if layer is not None:
        raise DataError(f"layer={layer!r}: {name} is not an AnnData object; leave layer out.")
    if hasattr(source, "with_format") and hasattr(source, "features"):
        return _dataset(source, name, use)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__"):
        return read_table(source, name, use)
    return Contents(_values(source))


def read_table(
    source: Any,
    name: str,
    use: Use = ALL,
    class_names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Contents:
    """Return the contents of a table, or of one with a column of images.

    Args:
        class_names: of columns next to images, by the column.

    Raises:
        DataError: as `scorefield.data.table.read`, `scorefield.data.codes.contents_of`.
    """
    table = read(source, name, use)
    if is_image(table.schema.field(0).type):
        return read_image_table(name, table, class_names, paths=not isinstance(source, Path))
    return contents_of(table, name, use)


def _dataset(source: Any, name: str, use: Use) -> Contents:
    """Return the contents of a dataset of Hugging Face: of images, or of a table."""
    if not hasattr(source, "__len__"):
        raise DataError(f"{name} is a stream: load it whole, with streaming=False.")
    features = source.features or {}
    class_names = {column: f.names for column, f in features.items() if getattr(f, "names", None)}
    return read_table(source.with_format("arrow")[:], name, use, class_names)


def _cells(source: Any, name: str, layer: str | None) -> Contents:
    if layer is not None and layer not in source.layers:
        there = ", ".join(map(str, source.layers)) or "none"
        raise DataError(f"layer={layer!r}: {name} has the layers {there}.")
    genes = tuple(map(str, source.var_names))
    return Contents(
        _values(source.X if layer is None else source.layers[layer]),
        genes if len(set(genes)) == len(genes) else (),
        by_name={str(column): partial(_column, source.obs, column) for column in source.obs},
    )


def _column(table: Any, name: Any) -> Coded:
    return coded(texts(np.asarray(table[name])))


def texts(values: np.ndarray) -> np.ndarray:
    """Return values ``(N,)`` as texts, by the rules of a table; missing ones are empty."""
    every = (str(value).strip() for value in values.tolist())
    return np.array(["" if text.lower() in {*MISSING, "<na>"} else text for text in every], str)


def _values(source: Any) -> Values:
    if hasattr(source, "toarray"):
        return _Sparse(source)
    return array(source)


def array(source: Any) -> np.ndarray:
    """Return a tensor, or what NumPy takes for an array, as one."""
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = source.float() if source.dtype is torch.bfloat16 else source
    return np.asarray(source)


class _Sparse:
    """Rows of a sparse matrix, made dense when they are read."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr() if hasattr(matrix, "tocsr") else matrix
        self.shape, self.dtype = tuple(map(int, matrix.shape)), np.dtype(matrix.dtype)

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        return np.asarray(self.matrix[rows].toarray())
