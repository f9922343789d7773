"""Arrays from files: NumPy's own, tables, and the idx format of MNIST.

Sizes that a file declares are compared with what it holds before anything is allocated, and nothing
in a file is run.
"""

from __future__ import annotations

import csv
import gzip
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scorefield.errors import DataError

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MISSING = {"", "na", "nan", "null", "none", "?"}


def read_file(path: Path) -> np.ndarray:
    """Return the array that a file holds, by the ending of its name.

    Raises:
        DataError: an ending that is not known, or a file that is not what its ending says.
    """
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix + ".gz"
    reader = READERS.get(suffix)
    if reader is None and path.name.removesuffix(".gz").endswith("-ubyte"):
        reader = _idx
    if reader is None:
        raise DataError(
            f"{path} ends in none of {', '.join(READERS)}: save the data as one of them."
        )
    return reader(path)


def _npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} holds an archive, not one array: name it .npz.")
    return array


def _npz(path: Path) -> np.ndarray:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path} holds one array, not an archive: name it .npy.")
        with archive:
            names = list(archive.keys())
            name = "x" if "x" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise DataError(f"{path} holds {', '.join(names) or 'nothing'}: name the data x.")
            return np.asarray(archive[name])
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a .npz file: {error}") from None


def _csv(path: Path) -> np.ndarray:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    if not rows:
        raise DataError(f"{path} holds no rows.")
    header = rows[0] if not all(_is_number(cell) for cell in rows[0]) else None
    first = 2 if header else 1
    names = header or [str(k + 1) for k in range(len(rows[0]))]
    values = np.empty((len(rows) - first + 1, len(names)))
    for k, row in enumerate(rows[first - 1 :]):
        if len(row) != len(names):
            raise DataError(f"{path}, row {k + first}: {len(row)} cells, but {len(names)} columns.")
        for j, cell in enumerate(row):
            if cell.strip().lower() in _MISSING:
                raise DataError(
                    f"{path}, row {k + first}, column {names[j]}: no value. Remove the row or the "
                    "column, or fill it in."
                )
            if not _is_number(cell):
                raise DataError(
                    f"{path}, row {k + first}, column {names[j]}: {cell!r} is no number. Leave the "
                    "column out, or write numbers for it."
                )
            values[k, j] = float(cell)
    return values


def _parquet(path: Path) -> np.ndarray:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: parquet needs pyarrow; pip install 'scorefield[parquet]'."
        ) from None
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not (
            pyarrow.types.is_integer(column.type)
            or pyarrow.types.is_floating(column.type)
            or pyarrow.types.is_boolean(column.type)
        ):
            raise DataError(
                f"{path}, column {name}: of type {column.type}, no numbers. Leave it out, or write "
                "numbers for it."
            )
        if column.null_count:
            row = next(k for k, value in enumerate(column) if not value.is_valid)
            raise DataError(
                f"{path}, row {row}, column {name}: no value. Remove the row or the column, or "
                "fill it in."
            )
        columns.append(column.to_numpy().astype(np.float64))
    if not columns:
        raise DataError(f"{path} holds no columns.")
    return np.stack(columns, 1)


def _idx(path: Path) -> np.ndarray:
    opened: Callable[..., gzip.GzipFile] = gzip.open if path.suffix == ".gz" else open  # type: ignore[assignment]
    try:
        with opened(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not head[3]:
                raise DataError(f"{path} is not in the idx format.")
            kind, sides = np.dtype(_IDX_TYPES[head[2]]), file.read(4 * head[3])
            if len(sides) < 4 * head[3]:
                raise DataError(f"{path} ends inside its header.")
            shape = struct.unpack(f">{head[3]}I", sides)
            size = math.prod(shape) * kind.itemsize
            data = bytearray()
            while len(data) <= size and (some := file.read(min(1 << 20, size + 1 - len(data)))):
                data += some
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(data) != size:
        held = f"{len(data)}" if len(data) < size else "more"
        raise DataError(f"{path} declares {size} bytes of data {shape} and holds {held}.")
    return np.frombuffer(bytes(data), kind).reshape(shape).astype(kind.newbyteorder("="))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
    ".idx": _idx,
    ".idx.gz": _idx,
}
