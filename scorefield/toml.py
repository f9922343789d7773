"""Settings from TOML files, of limited size and depth."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

_LARGEST = 1 << 22  # bytes; the names of a hundred thousand genes
_DEEPEST = 32  # tables in tables; reading takes as long as the square of it


def read(path: Path) -> dict[str, Any]:
    """Return the values of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large or too deep, or not TOML.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no plain file")
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it holds more than {_LARGEST:,} bytes")
    text = content.decode().replace("\r\n", "\n")
    if any(part.count(".") > _DEEPEST for part in re.split(r"[,=\n]", text)):
        raise ValueError(f"it holds a name of more than {_DEEPEST} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it holds lists in lists without end") from None
