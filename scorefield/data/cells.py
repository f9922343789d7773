"""Cells × genes: AnnData's .h5ad files, by h5py, read a few cells at a time.

Format: https://anndata.readthedocs.io/en/latest/fileformat-prose.html, with the older form in which
a table is one compound array.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.data.contents import Coded, Contents, Values, coded
from scorefield.errors import DataError

_MOST_SQUEEZED = 1100  # times; deflate, which such files are packed with, reaches 1,030
_SPARE = 2**20  # bytes


def read_h5ad(path: Path, layer: str | None = None) -> Contents:
    """Open a file of cells; its genes are the columns, and what is said of cells is by name.

    Args:
        layer: instead of the main matrix ``X``.

    Raises:
        DataError: h5py missing, another kind of file, no such layer, a matrix stored by columns,
            links out of the file.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(
            f"{path}: cells need h5py; pip install 'scorefield[cells]', or save a .npy file."
        ) from None
    try:
        file = h5py.File(path, "r")
        names = sorted(file["layers"]) if "layers" in file else []
        if layer is not None and layer not in names:
            raise DataError(f"{path} has no layer {layer}: it has {', '.join(names) or 'none'}.")
        matrix = _inside(path, file, "X" if layer is None else f"layers/{layer}")
        values: Values = _Sparse(path, matrix) if isinstance(matrix, h5py.Group) else _Dense(matrix)
        genes = _texts(_column(path, file, "var", _index(file, "var")))
        columns = {name: partial(_said, path, file, name) for name in _names(file, "obs")}
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as .h5ad: {error}") from None
    if len(values.shape) != 2 or len(genes) != values.shape[1]:
        raise DataError(f"{path} has a matrix of shape {values.shape} for {len(genes)} genes.")
    unique = len(set(genes)) == len(genes)
    return Contents(values, tuple(genes) if unique else (), by_name=columns)


class _Dense:
    """Rows of a matrix on the disk."""

    def __init__(self, matrix: Any) -> None:
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        sorted_rows, back = np.unique(rows, return_inverse=True)
        start, stop = int(sorted_rows[0]), int(sorted_rows[-1]) + 1
        if stop - start == len(sorted_rows):
            return np.asarray(self.matrix[start:stop])[back]
        return np.asarray(self.matrix[sorted_rows])[back]


class _Sparse:
    """Rows of a matrix on the disk of which only what is not zero is stored, row by row."""

    def __init__(self, path: Path, group: Any) -> None:
        kind = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", ""))
        if kind not in ("csr_matrix", "csr"):
            raise DataError(
                f"{path} stores {group.name} as {kind or 'an unknown kind'}: save it by rows, as a "
                "csr_matrix, or as a dense array."
            )
        parts = (_inside(path, group, name) for name in ("data", "indices", "indptr"))
        self.data, self.indices, ends = parts
        self.ends = np.asarray(ends)
        shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
        self.shape, self.dtype = tuple(map(int, shape)), self.data.dtype
        rising = len(self.ends) == self.shape[0] + 1 and bool((np.diff(self.ends) >= 0).all())
        if (
            not rising
            or self.ends[0] != 0
            or not self.ends[-1] == len(self.data) == len(self.indices)
        ):
            raise DataError(f"{path}: the rows of {group.name} do not add up to its entries.")

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        out = np.zeros((len(rows), self.shape[1]), self.dtype)
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            first, last = int(self.ends[rows[0]]), int(self.ends[rows[-1] + 1])
            place = np.repeat(np.arange(len(rows)), np.diff(self.ends[rows[0] : rows[-1] + 2]))
            out[place, self.indices[first:last]] = self.data[first:last]
            return out
        for k, row in enumerate(rows):
            first, last = int(self.ends[row]), int(self.ends[row + 1])
            out[k, self.indices[first:last]] = self.data[first:last]
        return out


def _inside(path: Path, group: Any, name: str) -> Any:
    """Return what lies under a name, in this file and of a size that the file can hold.

    Raises:
        DataError: it is a link, or its data lies elsewhere, or it declares more than that.
    """
    import h5py

    parent: Any = group
    for part in name.split("/"):
        if not isinstance(parent.get(part, getlink=True), h5py.HardLink):
            raise DataError(f"{path}: {name} is missing or a link: save the file as a whole.")
        parent = parent[part]
    if isinstance(parent, h5py.Dataset):
        if parent.external or parent.is_virtual:
            raise DataError(f"{path}: the data of {name} lies in other files: save it as a whole.")
        size, held = math.prod(parent.shape) * parent.dtype.itemsize, parent.id.get_storage_size()
        if size > _MOST_SQUEEZED * held + _SPARE:
            raise DataError(f"{path}: {name} declares {size} bytes and holds {held}.")
    return parent


def _index(file: Any, table: str) -> str:
    """Return the name of the column that names the rows of a table."""
    found = file[table].attrs.get("_index")
    if isinstance(found, bytes):
        return found.decode()
    if found is None:  # the older form
        names = file[table].dtype.names or ("index",)
        return "index" if "index" in names else str(names[0])
    return str(found)


def _names(file: Any, table: str) -> list[str]:
    import h5py

    if isinstance(file[table], h5py.Dataset):
        return [name for name in file[table].dtype.names or () if name != _index(file, table)]
    return [name for name in file[table] if name not in (_index(file, table), "__categories")]


def _column(path: Path, file: Any, table: str, name: str) -> Any:
    import h5py

    found = _inside(path, file, table)
    if isinstance(found, h5py.Dataset):
        return np.asarray(found[name])
    column = _inside(path, found, name)
    return column if isinstance(column, h5py.Group) else np.asarray(column)


def _said(path: Path, file: Any, name: str) -> Coded:
    """Return what a column says of the cells: the labels of a categorical one, else its values."""
    import h5py

    column = _column(path, file, "obs", name)
    if isinstance(column, h5py.Group):
        known = _texts(np.asarray(_inside(path, column, "categories")))
        codes = np.asarray(_inside(path, column, "codes"))
    elif (older := _older(path, file, name)) is not None:
        known, codes = older, column
    else:
        return coded(_texts(column))
    if len(codes) and not -1 <= codes.min() <= codes.max() < len(known):
        raise DataError(f"{path}: obs/{name} holds codes beyond its {len(known)} categories.")
    return Coded(codes.astype(np.int64), tuple(known))


def _older(path: Path, file: Any, name: str) -> np.ndarray | None:
    """Return the labels of a categorical column in the two older forms, or None."""
    import h5py

    if isinstance(file["obs"], h5py.Group):
        where = f"obs/__categories/{name}"
    else:
        where = f"uns/{name}_categories"
    return _texts(np.asarray(_inside(path, file, where))) if where in file else None


def _texts(array: np.ndarray) -> np.ndarray:
    """Return values as text; missing ones as empty."""
    if array.dtype.kind in "SO":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in array], dtype=str)
    texts = array.astype(str)
    return np.where(texts == "nan", "", texts)
