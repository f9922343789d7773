"""The one gate for files from anywhere: plain files of bounded size, inside their folder.

A pipe, a device or a folder is refused before it is opened, so that no reader waits or fills
memory. A file that the user names may be a link; one that is found inside a folder must lie there.
"""

from __future__ import annotations

import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from scorefield._internal import sizes

# errors that libraries raise for malformed bytes; MemoryError is of sizes that a file declares
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


def check(path: Path, most: int | None = None, folder: Path | None = None) -> int:
    """Return the size of a plain file, or refuse it.

    Args:
        most: bytes of the largest file allowed; by default those of the memory.
        folder: that the file must lie in, links resolved.

    Raises:
        OSError: it does not exist or is not accessible.
        ValueError: it is not a plain file, is too large, or leads out of the folder.
    """
    if folder is not None and leads_out(path, folder):
        raise ValueError(
            f"it leads out of its folder, to {os.path.realpath(path)}: put the file there"
        )
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a plain file")
    most = sizes.memory() if most is None else most
    if status.st_size > most:
        raise ValueError(
            f"it has {sizes.words(status.st_size)}, and at most {sizes.words(most)} are read"
        )
    return status.st_size


def opened(path: Path, most: int | None = None, folder: Path | None = None) -> BufferedReader:
    """Return a file opened for reading bytes.

    Raises:
        OSError, ValueError: as `check`.
    """
    check(path, most, folder)
    return path.open("rb")


def read(path: Path, most: int | None = None, folder: Path | None = None) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError, ValueError: as `check`; or it has grown since.
    """
    size = check(path, most, folder)
    with path.open("rb") as file:
        content = file.read(size + 1)
    if len(content) > size:
        raise ValueError("it has changed while it was read")
    return content


@contextmanager
def reading(
    source: Path | str, form: str, kind: type[ValueError], *others: type[Exception]
) -> Iterator[None]:
    """Raise any error on a malformed file as one of a kind; those with an exit code pass.

    Args:
        form: of the content, as in ``a table``, for the message; or empty.
        kind: of the error, as `DataError`.
        others: errors of a library besides the usual ones.
    """
    errors: tuple[type[Exception], ...] = (*_UNREADABLE, *others)
    try:
        yield
    except errors as error:
        if hasattr(error, "exit_code"):
            raise
        raise kind(f"{source} cannot be read{form and f' as {form}'}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """Return the reason of an error on a file, which the message does not repeat."""
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path leads out of a folder, or of the blobs that its snapshot links to."""
    target, allowed = Path(os.path.realpath(path)), [Path(os.path.realpath(folder))]
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots":
            repository = Path(os.path.realpath(place.parent.parent))
            allowed = [repository / "snapshots" / place.name, repository / "blobs"]  # not if links
    return not any(target.is_relative_to(place) for place in allowed)
