"""A lock on a folder, which the system releases when its process ends, however it ends.

`flock` on a file in the folder: nothing has to be cleaned up after a kill. On NFS it excludes other
machines too. File systems without locks, and systems without `flock`, exclude nobody.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from scorefield._internal.errors import StorageError

NAME = "lock"
_WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def lock(folder: Path, subject: str) -> Iterator[bool]:
    """Be the only process in a folder, which is made; yield whether its file system has locks.

    The lock is removed at the end, and so is the folder if nothing else is left in it.

    Args:
        subject: of the message if another process is there.

    Raises:
        StorageError: another process has the lock.
    """
    file, locked = _open(folder, subject)
    try:
        yield locked
    finally:
        with file, suppress(OSError):
            # in this order: whoever comes in between makes a new file, and the folder stays
            (folder / NAME).unlink()
            folder.rmdir()


def _open(folder: Path, subject: str) -> tuple[IO[str], bool]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue  # the folder was removed meanwhile
        file = os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
        locked = _lock(file, subject)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / NAME)):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file, locked
        file.close()  # of a file that was removed before it was locked


def _lock(file: IO[str], subject: str) -> bool:
    try:
        import fcntl
    except ImportError:  # not every system has it
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            owner = file.read(200)
        raise StorageError(
            f"{subject} is in use by another training ({owner}): wait until it ends, or choose "
            "another folder."
        ) from None
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
        return False
    return True
