"""Cells × genes: AnnData's .h5ad files, read a few cells at a time by h5py.

Format: https://anndata.readthedocs.io/en/latest/fileformat-prose.html, and the older
form, in which a table is one compound array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.axes import Axes
from scorefield.data.contents import Coded, Contents, Values, coded, first_few, reading

_LARGEST_RATIO = 1100  # of compression; deflate, which such files use, reaches 1,030
_SPARE = 2**20  # bytes


def read_h5ad(path: Path, matrix: str | None = None) -> Contents:
    """Open a file of cells: the genes are the columns, and ``obs`` gives classes by name.

    Args:
        matrix: ``X``, ``raw``, ``layers/NAME`` or ``obsm/NAME``; by default ``X``.

    Raises:
        DataError: h5py missing, another kind of file, no such matrix, links out of the file.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(
            f"{path}: cells need h5py; pip install 'scorefield[cells]', or save a .npy file."
        ) from None
    with _reading(path):
        file = h5py.File(path, "r")
        every = list(_matrices(file))
        name = matrix or "X"
        if name not in every:
            raise DataError(
                f"matrix={name!r}: {path} has {first_few(every) or 'no matrix'}"
                + ("." if matrix else "; choose one of them.")
            )
        stored = _inside(path, file, "raw/X" if name == "raw" else name)
        is_group = isinstance(stored, h5py.Group)
        values: Values = _Sparse(path, stored) if is_group else _Dense(path, stored)
        genes: tuple[str, ...] = ()
        if not name.startswith("obsm/"):
            table = "raw/var" if name == "raw" else "var"
            genes = tuple(map(str, _labels(path, file, table, _index(file, table))))
        columns = {name: partial(_classes, path, file, name) for name in _names(file, "obs")}
    if len(values.shape) != 2 or (genes and len(genes) != values.shape[1]):
        raise DataError(f"{path} has a matrix of shape {values.shape} for {len(genes)} genes.")
    return Contents(
        values,
        genes if len(set(genes)) == len(genes) else (),
        by_name=columns,
        axes=Axes("vectors"),
        notes=(matrix_note(name, every),),
        options=("matrix",),
    )


def _matrices(file: Any) -> Iterator[str]:
    """Yield the names of the matrices of a file."""
    if "X" in file:
        yield "X"
    if "raw/X" in file:
        yield "raw"
    for group in ("layers", "obsm"):
        yield from (f"{group}/{name}" for name in file.get(group, ()))


def matrix_note(name: str, every: Sequence[str]) -> str:
    """Return the line that says which matrix of cells is read."""
    others = first_few([other for other in every if other != name])
    return f"matrix {name} of the cells" + (f"; the file also has {others}" if others else "")


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, ".h5ad", LookupError, AttributeError)


class _Dense:
    """Rows of a matrix on the disk."""

    def __init__(self, path: Path, matrix: Any) -> None:
        self.path, self.matrix = path, matrix
        self.shape, self.dtype = matrix.shape, matrix.dtype

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        sorted_rows, back = np.unique(rows, return_inverse=True)
        start, stop = int(sorted_rows[0]), int(sorted_rows[-1]) + 1
        wanted = slice(start, stop) if stop - start == len(sorted_rows) else sorted_rows
        with _reading(self.path):
            return np.asarray(self.matrix[wanted])[back]


class _Sparse:
    """Rows of a sparse matrix on the disk, or in memory if it is stored by columns."""

    def __init__(self, path: Path, group: Any) -> None:
        kind = _text(group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", "")))
        order = kind.removesuffix("_matrix")
        if order not in ("csr", "csc"):
            raise DataError(
                f"{path} stores {group.name} as {kind or 'an unknown kind'}: save it as a "
                "csr_matrix, a csc_matrix or a dense array, or choose another matrix."
            )
        parts = (_inside(path, group, name) for name in ("data", "indices", "indptr"))
        self.path, (self.data, self.genes, ends) = path, parts
        shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
        self.shape, self.dtype = tuple(map(int, shape)), self.data.dtype
        if self.genes.dtype.kind not in "iu" or ends.dtype.kind not in "iu":
            raise DataError(f"{path}: the indices of {group.name} are not integers.")
        self.ends = np.asarray(ends).astype(np.int64)
        major = self.shape[order == "csc"]
        rising = len(self.ends) == major + 1 and bool((np.diff(self.ends) >= 0).all())
        if (
            not rising
            or self.ends[0] != 0
            or not self.ends[-1] == len(self.data) == len(self.genes)
        ):
            raise DataError(f"{path}: the rows of {group.name} do not add up to its entries.")
        if order == "csc":
            self._sort_by_rows()

    def _sort_by_rows(self) -> None:
        cells = np.asarray(self.genes)
        if len(cells) and not 0 <= cells.min() <= cells.max() < self.shape[0]:
            raise DataError(
                f"{self.path} has entries of cells {cells.min()} to {cells.max()}, counted from 0, "
                f"and {self.shape[0]} cells."
            )
        order = np.argsort(cells, kind="stable")
        genes = np.repeat(np.arange(self.shape[1]), np.diff(self.ends))
        self.data, self.genes = np.asarray(self.data)[order], genes[order]
        self.ends = np.append(0, np.bincount(cells, minlength=self.shape[0]).cumsum())

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        out = np.zeros((len(rows), self.shape[1]), self.dtype)
        with _reading(self.path):
            if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
                self._add(out, self.ends[rows[0] : rows[-1] + 2])
            else:
                for k, row in enumerate(rows):
                    self._add(out[k : k + 1], self.ends[row : row + 2])
        return out

    def _add(self, out: np.ndarray, ends: np.ndarray) -> None:
        """Add the entries of consecutive rows; repeated entries of a gene are summed, as in SciPy.

        Raises:
            DataError: an entry of a gene outside the matrix.
        """
        span = slice(int(ends[0]), int(ends[-1]))
        genes = self.genes[span]
        if len(genes) and not 0 <= genes.min() <= genes.max() < self.shape[1]:
            raise DataError(
                f"{self.path} has entries of genes {genes.min()} to {genes.max()}, counted from 0, "
                f"and {self.shape[1]} genes."
            )
        starts = np.repeat(np.arange(len(out)) * self.shape[1], np.diff(ends))
        np.add.at(out.reshape(-1), starts + genes.astype(np.int64), self.data[span])


def _inside(path: Path, group: Any, name: str) -> Any:
    """Return the group or array of a name, which is in this file and fits into it.

    Raises:
        DataError: a link, data in another file, or a larger declared size.
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
        size, stored = math.prod(parent.shape) * parent.dtype.itemsize, parent.id.get_storage_size()
        if size > _LARGEST_RATIO * stored + _SPARE:
            raise DataError(f"{path}: {name} declares {size} bytes and holds {stored}.")
    return parent


def _index(file: Any, table: str) -> str:
    """Return the name of the column that names the rows of a table."""
    name = file[table].attrs.get("_index")
    if name is None:  # the older form
        names = file[table].dtype.names or ("index",)
        return "index" if "index" in names else str(names[0])
    return _text(name)


def _names(file: Any, table: str) -> list[str]:
    import h5py

    if isinstance(file[table], h5py.Dataset):
        return [name for name in file[table].dtype.names or () if name != _index(file, table)]
    return [name for name in file[table] if name not in (_index(file, table), "__categories")]


def _labels(path: Path, file: Any, table: str, name: str) -> np.ndarray:
    """Return the values of a column as texts, whichever way it is stored."""
    column = _stored(path, file, table, name)
    if isinstance(column, np.ndarray):
        return _texts(column)
    codes, labels = column
    texts: np.ndarray = np.array([*labels, ""], str)[codes]
    return texts


def _stored(path: Path, file: Any, table: str, name: str) -> np.ndarray | Coded:
    """Return the values of a column, or its codes and labels."""
    import h5py

    parent, place = _inside(path, file, table), f"{table}/{name}"
    if isinstance(parent, h5py.Dataset):
        column = _list(path, place, parent[name])
    else:
        column = _inside(path, parent, name)
        if isinstance(column, h5py.Group):
            pair = ("values", "mask") if "mask" in column else ("categories", "codes")
            first, second = (_list(path, f"{place}/{p}", _inside(path, column, p)) for p in pair)
            if "mask" not in column:
                return _categories(path, place, second, _texts(first))
            return np.where(second.astype(bool), "", _texts(first))
        column = _list(path, place, column)
    older = _older(path, file, table, name)
    return column if older is None else _categories(path, place, column, older)


def _list(path: Path, name: str, values: Any) -> np.ndarray:
    """Return the values of a column, or of a part of one."""
    if len(values.shape) != 1:
        raise DataError(f"{path}: {name} has shape {values.shape}: needs one value for each row.")
    return np.asarray(values)


def _classes(path: Path, file: Any, name: str) -> Coded:
    """Return the classes of a column of ``obs``: its categories, or else its values.

    Raises:
        DataError: a column that cannot be read, or does not hold one value for each cell.
    """
    with _reading(path):
        column = _stored(path, file, "obs", name)
    return column if isinstance(column, Coded) else coded(_texts(column))


def _categories(path: Path, place: str, codes: np.ndarray, labels: np.ndarray) -> Coded:
    if codes.dtype.kind not in "iu":
        raise DataError(f"{path}: {place} holds codes of type {codes.dtype}: needs integers.")
    if len(codes) and not -1 <= codes.min() <= codes.max() < len(labels):
        raise DataError(f"{path}: {place} holds codes beyond its {len(labels)} categories.")
    return Coded(codes.astype(np.int64), tuple(labels))


def _older(path: Path, file: Any, table: str, name: str) -> np.ndarray | None:
    """Return the labels of a categorical column in the two older forms, or None."""
    import h5py

    if isinstance(file[table], h5py.Group):
        where = f"{table}/__categories/{name}"
    else:
        where = f"uns/{name}_categories"
    return _texts(_list(path, where, _inside(path, file, where))) if where in file else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(array: np.ndarray) -> np.ndarray:
    """Return values as texts; missing ones are empty."""
    if array.dtype.kind in "SO":
        return np.array([_text(v) for v in array], dtype=str)
    texts = array.astype(str)
    return np.where(texts == "nan", "", texts)
