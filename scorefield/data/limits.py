"""Limits on the size of a file's contents, checked before they are unpacked.

A declared size is compared with the size of the file, and the unpacked size with both the size of
the file and memory.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from scorefield._internal import sizes
from scorefield._internal.errors import DataError

THRIFT = 1 << 20  # bytes of a name in a parquet file, and members of a list

_RATIO, _SMALL = 200, 1 << 26  # how often its size a file may unpack to, or how many bytes
_HEADER = 1 << 14  # bytes at the start of an array
_DIRECTORY = 1 << 20  # bytes of an archive's list of members
_LINE = 1 << 24  # characters of a table's row

# errors that the libraries raise for malformed bytes
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    ArithmeticError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@contextmanager
def reading(source: Path | str, form: str, *others: type[Exception]) -> Iterator[None]:
    """Raise any error on malformed data as one `DataError`.

    Args:
        form: of the data, as in ``a table``, for the message.
        others: errors of a library besides the usual ones.
    """
    errors: tuple[type[Exception], ...] = (*_UNREADABLE, *others)
    try:
        yield
    except DataError:
        raise
    except errors as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{source} cannot be read as {form}: {reason}") from None


def member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return the member of an archive that holds the data."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if "x" not in members and len(members) != 1:
        raise DataError(f"{path} holds {', '.join(members) or 'nothing'}: name the data x.")
    member = members.get("x") or next(iter(members.values()))
    # other methods of compression may take any amount of memory
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed in another way than NumPy does")
    return member


def check_directory(path: Path) -> None:
    """Refuse an archive of very many members, each of which costs more memory than its entry."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 1 << 17), io.SEEK_END)
        tail = file.read()
    for mark, place, form in ((b"PK\6\6", 40, "<Q"), (b"PK\5\6", 12, "<I")):
        start = tail.rfind(mark)
        if start >= 0:
            (size,) = struct.unpack_from(form, tail, start + place)
            if _DIRECTORY < size != 2**32 - 1:  # this value refers to the other mark
                raise ValueError(f"its list of members takes {sizes.words(size)}")


def check_array(file: IO[bytes], length: int) -> None:
    """Refuse an array whose header does not match the number of bytes in its file."""
    head = io.BytesIO(file.read(_HEADER))
    version, form = np.lib.format.read_magic(head), np.lib.format
    read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
    shape, _, kind = read(head)
    if kind.hasobject or not kind.itemsize:
        raise ValueError(f"values of type {kind} are not read")
    size, rest = math.prod(shape) * kind.itemsize, length - head.tell()
    if size != rest:
        raise ValueError(f"it declares {size} bytes of data {shape} and holds {rest}")


def check_size(path: Path, size: int) -> None:
    """Refuse to unpack more than is plausible for the file's size, or than memory allows."""
    if size > max(_SMALL, _RATIO * path.stat().st_size):
        raise DataError(
            f"{path} unpacks to {sizes.words(size)}, more than {_RATIO} times its own size: save "
            "it uncompressed if that is right."
        )
    if size > sizes.memory():
        raise DataError(
            f"{path} holds {sizes.words(size)}, and there are {sizes.words(sizes.memory())} of "
            "memory: use a part of it."
        )


def lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Yield the lines of a table, each of limited length."""
    while line := file.readline(_LINE):
        if len(line) == _LINE:
            raise DataError(
                f"{path} holds a line of {_LINE:,} characters or more: too long for a row."
            )
        yield line
