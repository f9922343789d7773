"""Writing files aside first, so that what carries the final name is always whole.

Written, brought to the disk, renamed, and the rename brought to the disk: a reader, a kill or a
power cut finds the old or the new, never a part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO


def publish(written: Path, path: Path) -> None:
    """Move a finished temporary file or folder to its name, with the modes the umask asks for."""
    mask = os.umask(0)
    os.umask(mask)
    for item in (written, *written.rglob("*")):
        item.chmod((0o777 if item.is_dir() else 0o666) & ~mask)
        settle(item)
    os.replace(written, path)
    settle(path.parent)


def settle(path: Path) -> None:
    """Bring a file's contents, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file at once or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
        publish(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def differing(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Return the names under which two sets of facts differ, as a list to read; empty if none."""
    return ", ".join(sorted(k for k in {*theirs, *mine} if theirs.get(k) != mine.get(k)))
