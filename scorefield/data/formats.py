"""What a file holds: NumPy's arrays and the idx format of MNIST here, the rest by module.

Sizes that a file declares are compared with what it holds before anything is allocated, and nothing
in a file is run.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scorefield.data.cells import read_h5ad
from scorefield.data.contents import Contents
from scorefield.data.images import read_images
from scorefield.data.table import Use, read_csv, read_parquet
from scorefield.errors import DataError

KINDS = (".npy", ".npz", ".csv", ".parquet", ".h5ad", ".idx", ".idx.gz")
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_file(path: Path, layer: str | None = None, use: Use = lambda name: True) -> Contents:
    """Return what a file or a folder of images holds, by the ending of its name.

    Args:
        layer: of a file of cells.
        use: tells by their names which columns of a table are of use.

    Raises:
        DataError: an ending that is not known, or a file that is not what its ending says.
    """
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix + ".gz"
    if layer is not None and suffix != ".h5ad":
        raise DataError(f"{path} has no layers: only .h5ad files do.")
    if suffix == ".h5ad":
        return read_h5ad(path, layer)
    if path.is_dir():
        return read_images(path)
    if suffix in TABLES:
        return TABLES[suffix](path, use)
    if path.name.removesuffix(".gz").endswith("-ubyte"):
        suffix = ".idx"
    if suffix not in ARRAYS:
        raise DataError(
            f"{path} ends in none of {', '.join(KINDS)}, and is no folder of images: save the data "
            "as one of them."
        )
    return Contents(ARRAYS[suffix](path))


def _npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
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


ARRAYS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".idx": _idx,
    ".idx.gz": _idx,
}
TABLES: dict[str, Callable[[Path, Use], Contents]] = {".csv": read_csv, ".parquet": read_parquet}
