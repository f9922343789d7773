"""Settings from TOML files, of limited size and depth."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from scorefield._internal import files

LARGEST = 1 << 23  # bytes: 250,000 names of genes; of lists and tables, ten seconds of reading
_DEEPEST = 32  # tables in tables; the time of reading grows with its square

# Texts and comments, whose dots do not separate names. One without an end goes on to the end of the
# line or the file, as in TOML. The quantifiers are possessive, so the time is linear in the size.
_WORDS = re.compile(
    r"""
    \"{3} (?: [^"\\]++ | \\. | "(?!"") )*+ "{0,5}
    | '{3} (?: [^']++ | '(?!'') )*+ '{0,5}
    | " (?: [^"\\\n]++ | \\. )*+ "?
    | ' [^'\n]*+ '?
    | \# [^\n]*+
    """,
    re.VERBOSE | re.DOTALL,
)


def read(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """Return the values of a file.

    Raises:
        OSError, ValueError: as `files.read` and `parse`.
    """
    return parse(files.read(path, LARGEST, folder))


def parse(content: bytes) -> dict[str, Any]:
    """Return the values of a file's content.

    Raises:
        ValueError: it is too large or too deep, or not TOML.
    """
    if len(content) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST:,} bytes")
    text = content.decode().replace("\r\n", "\n")
    names = re.split(r"[,=\n]", _WORDS.sub("", text))
    if any(name.count(".") >= _DEEPEST for name in names):
        raise ValueError(f"it holds a name of more than {_DEEPEST} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it holds lists in lists without end") from None
