"""Writing files aside first, so that what carries the final name is always whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def publish(written: Path, path: Path) -> None:
    """Move a finished temporary file or folder to its name, with the modes the umask asks for."""
    mask = os.umask(0)
    os.umask(mask)
    for item in (written, *written.rglob("*")):
        item.chmod((0o777 if item.is_dir() else 0o666) & ~mask)
    os.replace(written, path)


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
