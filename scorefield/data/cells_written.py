"""Cells × genes as an ``.h5ad`` file, written block by block.

Format: https://anndata.readthedocs.io/en/latest/fileformat-prose.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from scorefield._internal.atomic_files import write
from scorefield._internal.errors import DataError
from scorefield.data.config import numbered
from scorefield.data.contents import Coded, coded

_LAYOUT = 2**14  # numbers in a piece of a stored array
_GROUPS = ("layers", "obsm", "obsp", "uns", "varm", "varp")


class CellBlock(NamedTuple):
    """Some cells: numbers ``(B, genes)``, and annotations ``(B,)`` by name."""

    x: np.ndarray
    obs: Mapping[str, Coded | np.ndarray]


def write_h5ad(
    path: str | Path,
    x: Tensor | np.ndarray,
    obs: Mapping[str, Any] | None = None,
    genes: Sequence[str] = (),
) -> None:
    """Write cells as an ``.h5ad`` file; whole numbers from 0 are stored as a sparse matrix.

    Args:
        x: ``(N, genes)``.
        obs: annotations of the cells by name, ``(N,)``: texts become categories. A ``/`` of a name
            becomes ``_``, because it would make a group of the file.
        genes: their names; the default is their numbers.

    Raises:
        DataError: ``x`` of another shape; annotations or names of another length; h5py is missing.
        StorageError: no room on the disk.
    """
    values = x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)
    columns = {name: np.asarray(column) for name, column in (obs or {}).items()}
    if values.ndim != 2:
        raise DataError(f"x: has shape {values.shape}; give (cells, genes).")
    for name, column in columns.items():
        if column.shape != (len(values),):
            raise DataError(f"obs: {name} has shape {column.shape} for {len(values)} cells.")
    kinds = {k: c if c.dtype.kind in "biuf" else coded(c.astype(str)) for k, c in columns.items()}
    write_cells(Path(path), [CellBlock(values, kinds)], genes)


def write_cells(path: Path, blocks: Iterable[CellBlock], genes: Sequence[str] = ()) -> None:
    """Write blocks of cells, at once or not at all.

    Raises:
        DataError: names of another length; h5py is missing.
        StorageError: no room on the disk.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: cells need h5py; pip install 'scorefield[cells]'.") from None
    rest = iter(blocks)
    first = next(rest)
    names = tuple(genes) or numbered(first.x.shape[1])
    if len(names) != first.x.shape[1]:
        raise DataError(f"genes: {len(names)} names for {first.x.shape[1]} genes.")

    def fill(target: Any) -> None:
        with h5py.File(target, "w") as file:
            _mark(file, "anndata", "0.1.0")
            count = _fill(file, first, chain([first], rest), len(names))
            _index(file["obs"], [f"cell {k}" for k in range(count)])
            _index(_table(file, "var", ()), names)
            for group in _GROUPS:
                _mark(file.create_group(group), "dict", "0.1.0")

    write(path, fill)


def _fill(file: Any, first: CellBlock, blocks: Iterator[CellBlock], genes: int) -> int:
    """Write the matrix and the annotations, and return the number of cells."""
    sparse = bool((first.x == np.floor(first.x)).all() and (first.x >= 0).all())
    stored = _stored(first.obs)
    obs = _table(file, "obs", tuple(stored.values()))
    columns = {name: _column(obs, stored[name], values) for name, values in first.obs.items()}
    if sparse:
        matrix = file.create_group("X")
        _mark(matrix, "csr_matrix", "0.1.0")
        data, places = (_growing(matrix, k, t) for k, t in (("data", "f4"), ("indices", "i8")))
    else:
        data = file.create_dataset("X", (0, genes), "f4", maxshape=(None, genes))
        _mark(data, "array", "0.2.0")
    ends, count = [np.zeros(1, np.int64)], 0
    for block in blocks:
        count += len(block.x)
        if sparse:
            rows, entries = np.nonzero(block.x)
            _append(data, block.x[rows, entries])
            _append(places, entries)
            ends.append(ends[-1][-1] + (block.x != 0).sum(1).cumsum())
        else:
            _append(data, block.x)
        for name, values in block.obs.items():
            _append(columns[name], values.codes if isinstance(values, Coded) else values)
    if sparse:
        matrix.create_dataset("indptr", data=np.concatenate(ends))
        matrix.attrs["shape"] = np.array([count, genes])
    return count


def _stored(names: Iterable[str]) -> dict[str, str]:
    """Return distinct names that a file can have, by those of the annotations."""
    stored: dict[str, str] = {}
    for name in names:
        safe = name.replace("/", "_")
        while safe in ("", ".", "_index", *stored.values()):
            safe += "_"
        stored[name] = safe
    return stored


def _table(file: Any, name: str, columns: Sequence[str]) -> Any:
    import h5py

    table = file.create_group(name)
    _mark(table, "dataframe", "0.2.0")
    table.attrs["_index"] = "_index"
    table.attrs.create("column-order", np.array(columns, object), dtype=h5py.string_dtype())
    return table


def _column(table: Any, name: str, values: Coded | np.ndarray) -> Any:
    """Create a column, and return the array that its values are added to."""
    if not isinstance(values, Coded):
        column = _growing(table, name, values.dtype)
        _mark(column, "array", "0.2.0")
        return column
    group = table.create_group(name)
    _mark(group, "categorical", "0.2.0")
    group.attrs["ordered"] = False
    _texts(group, "categories", values.labels)
    codes = _growing(group, "codes", "i4")
    _mark(codes, "array", "0.2.0")
    return codes


def _index(table: Any, names: Sequence[str]) -> None:
    _texts(table, "_index", names)


def _texts(group: Any, name: str, values: Sequence[str]) -> None:
    import h5py

    texts = group.create_dataset(name, data=np.array(values, object), dtype=h5py.string_dtype())
    _mark(texts, "string-array", "0.2.0")


def _growing(group: Any, name: str, dtype: Any) -> Any:
    return group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(_LAYOUT,))


def _append(array: Any, values: np.ndarray) -> None:
    size = len(array)
    array.resize(size + len(values), axis=0)
    array[size:] = values


def _mark(item: Any, kind: str, version: str) -> None:
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, version
