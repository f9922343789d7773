"""File formats: NumPy's arrays and the idx format of MNIST here, the rest in modules of their own.

Declared sizes are compared with the size of the file before memory is allocated. No code in a file
is executed.
"""

from __future__ import annotations

import gzip
import math
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scorefield._internal import files
from scorefield._internal.errors import DataError
from scorefield.data.cells import read_h5ad
from scorefield.data.config import ReadingConfig
from scorefield.data.contents import (
    ALL,
    Contents,
    Use,
    check_array,
    check_directory,
    check_size,
    member,
    reading,
)
from scorefield.data.images import read_images
from scorefield.data.objects import array_contents, read_table
from scorefield.data.table import KINDS as TABLES, PACKED

KINDS = (".npy", ".npz", *TABLES, ".h5ad", ".idx", ".idx.gz")
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_file(path: Path, choices: ReadingConfig = ReadingConfig(), use: Use = ALL) -> Contents:
    """Return the contents of a file or a folder of images, by the ending of its name.

    Args:
        choices: of an array, a matrix or a size.
        use: the columns of a table that are read.

    Raises:
        DataError: an unknown ending, a file that does not match its ending, or one that unpacks to
            more than its own size or memory allows.
    """
    name = path.name.lower()
    suffix = "".join(Path(name).suffixes[-2 if name.endswith(".gz") else -1 :])
    if path.is_dir():
        return read_images(path, choices)
    with reading(path, "data"):
        files.check(path, sys.maxsize)  # an array may be larger than memory
    if suffix == ".h5ad":
        return read_h5ad(path, choices.matrix)
    if suffix in (*TABLES, *PACKED):
        return read_table(path, str(path), use, choices=choices)
    if name.removesuffix(".gz").endswith("-ubyte"):
        suffix = ".idx"
    if suffix not in ARRAYS:
        raise DataError(
            f"{path} ends in none of {', '.join(KINDS)}, and is not a folder of images: save the "
            "data as one of them."
        )
    # NumPy parses the header of an array as Python, which may warn of its spelling
    with warnings.catch_warnings(action="ignore"):
        array = ARRAYS[suffix](path, choices.key)
    contents = array_contents(array, str(path), use)
    if not array.ndim:
        raise DataError(
            f"{path} holds one number, {array}, not samples: save an array of (N, ...)."
        )
    if suffix == ".npz":
        others = {key: partial(_npz, path, key) for key in _members(path)}
        contents = replace(contents, options=(*contents.options, "key"), others=others)
    return contents


def _npy(path: Path, key: str | None) -> np.ndarray:
    with reading(path, "a .npy file"):
        with path.open("rb") as file:
            if file.read(4) == b"PK\3\4":
                raise DataError(f"{path} holds an archive, not one array: name it .npz.")
        with path.open("rb") as file:
            check_array(file, path.stat().st_size)
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _npz(path: Path, key: str | None) -> np.ndarray:
    with reading(path, "a .npz file"):
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise DataError(f"{path} holds one array, not an archive: name it .npy.")
        check_directory(path)
        with zipfile.ZipFile(path) as archive:
            if {"data.npy", "indices.npy", "indptr.npy"} <= {*archive.namelist()}:
                raise DataError(
                    f"{path} holds a sparse matrix of scipy: save its numbers, as by "
                    "np.save(path, matrix.toarray())."
                )
            part = member(path, archive, key)
            check_size(path, part.file_size)
            with archive.open(part) as head:
                check_array(head, part.file_size)
            with archive.open(part) as whole:
                return np.asarray(np.lib.format.read_array(whole, allow_pickle=False))


def _members(path: Path) -> list[str]:
    """Return the names of the arrays of an archive."""
    with reading(path, "a .npz file"), zipfile.ZipFile(path) as archive:
        return [info.filename.removesuffix(".npy") for info in archive.infolist()]


def _idx(path: Path, key: str | None) -> np.ndarray:
    opened: Callable[..., gzip.GzipFile] = gzip.open if path.suffix.lower() == ".gz" else open  # type: ignore[assignment]
    with reading(path, "an idx file"), opened(path, "rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not head[3]:
            raise DataError(f"{path} is not in the idx format.")
        kind, sides = np.dtype(_IDX_TYPES[head[2]]), file.read(4 * head[3])
        if len(sides) < 4 * head[3]:
            raise DataError(f"{path} ends inside its header.")
        shape = struct.unpack(f">{head[3]}I", sides)
        size = math.prod(shape) * kind.itemsize
        if path.suffix.lower() != ".gz" and size != path.stat().st_size - file.tell():
            raise DataError(
                f"{path} declares {size} bytes of data {shape} and holds "
                f"{path.stat().st_size - file.tell()}."
            )
        check_size(path, size)
        data = bytearray()
        while len(data) <= size and (some := file.read(min(1 << 20, size + 1 - len(data)))):
            data += some
    if len(data) != size:
        holds = f"{len(data)}" if len(data) < size else "more"
        raise DataError(f"{path} declares {size} bytes of data {shape} and holds {holds}.")
    if not size:
        raise DataError(f"{path} has shape {shape}: it holds no data.")
    return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="))


ARRAYS: dict[str, Callable[[Path, str | None], np.ndarray]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".idx": _idx,
    ".idx.gz": _idx,
}
