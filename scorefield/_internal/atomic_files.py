"""The one writer of files: under a temporary name first, so that each file is always whole.

The file is written, synchronised with the disk and renamed, and the rename is synchronised too. A
reader, a kill or a power cut finds the old file or the new one, never a part. Nothing is written
through a link, or out of the folder that the file belongs to.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from scorefield._internal import sizes
from scorefield._internal.errors import StorageError
from scorefield._internal.files import leads_out

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def publish(written: Path, path: Path) -> None:
    """Move a finished temporary file or folder to its name, with the modes of the umask."""
    mask = os.umask(0)
    os.umask(mask)
    for item in (written, *written.rglob("*")):
        item.chmod((0o777 if item.is_dir() else 0o666) & ~mask)
        settle(item)
    os.replace(written, path)
    settle(path.parent)


def settle(path: Path) -> None:
    """Synchronise a file's contents, or a folder's entries, with the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(
    path: Path,
    fill: Callable[[BinaryIO], object],
    size: int | None = None,
    folder: Path | None = None,
) -> None:
    """Write a file, of ``size`` bytes if given, as a whole or not at all.

    Raises:
        StorageError: it does not fit on the disk; or as `check_place`.
    """
    check_place(path, folder)
    with in_room(path, size):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                fill(file)
            publish(Path(name), path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def append(path: Path, line: str, folder: Path | None = None) -> None:
    """Append a line to a file, which may be new, and synchronise it with the disk.

    Raises:
        StorageError: as `write`.
    """
    check_place(path, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"{line}\n".encode()
    with in_room(path, len(text)), path.open("ab") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def check_place(path: Path, folder: Path | None = None) -> None:
    """Refuse to write through a link.

    Args:
        folder: that the file must lie in, links resolved.

    Raises:
        StorageError: the path is a link, or leads out of the folder.
    """
    if path.is_symlink() or (folder is not None and leads_out(path, folder)):
        raise StorageError(
            f"{path} leads to {os.path.realpath(path)}, and nothing is written through links: "
            "remove the link."
        )


@contextmanager
def in_room(path: Path, size: int | None) -> Iterator[None]:
    """Raise `StorageError` with the sizes if writing a path fails for want of room.

    Raises:
        StorageError: the disk, a quota or the largest file allowed is too small.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        needs = "" if size is None else f"it needs {sizes.words(size)}, and "
        raise StorageError(
            f"{path} cannot be written, {os.strerror(error.errno).lower()}: {needs}there is room "
            f"for {sizes.words(sizes.room(path.parent))}. Make room, or write elsewhere."
        ) from None


def differing(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Return the names under which two sets of facts differ, separated by commas."""
    return ", ".join(sorted(k for k in {*theirs, *mine} if theirs.get(k) != mine.get(k)))
