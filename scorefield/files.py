"""Writing files aside first, so that what carries the final name is always whole."""

from __future__ import annotations

import os
from pathlib import Path


def publish(written: Path, path: Path) -> None:
    """Move a finished temporary file or folder to its name, with the modes the umask asks for."""
    mask = os.umask(0)
    os.umask(mask)
    for item in (written, *written.rglob("*")):
        item.chmod((0o777 if item.is_dir() else 0o666) & ~mask)
    os.replace(written, path)
