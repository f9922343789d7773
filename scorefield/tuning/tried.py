"""The record of a search in a file, from which an interrupted search resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield._internal import files
from scorefield._internal.atomic_files import append, check_place, write
from scorefield._internal.errors import StorageError
from scorefield.tuning.search import Levels

_LARGEST = 2**23  # bytes of a record


class Tried(dict[Levels, float]):
    """Errors by levels; each is written to the disk as soon as it is measured.

    Args:
        path: of the file, with one JSON value in each line. A record of the same search is
            continued; another one is replaced when the first error is added.
        facts: everything that the errors depend on besides the levels, in JSON's types.

    Raises:
        StorageError: the file is a link, is not a plain file, or is too large.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = path
        head, *lines = _lines(path)
        self._begun, self._head = head == dict(facts), json.dumps(facts)
        try:
            for line in lines if self._begun else ():
                super().__setitem__(_levels(line["levels"]), float.fromhex(line["error"]))
        except (LookupError, TypeError, ValueError, ArithmeticError):  # a damaged record
            self.clear()
            self._begun = False

    def __setitem__(self, levels: Levels, error: float) -> None:
        if not self._begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(self.path, lambda file: file.write(f"{self._head}\n".encode()))
            self._begun = True
        line = {"levels": [level.hex() for level in levels], "error": error.hex()}
        append(self.path, json.dumps(line))
        super().__setitem__(levels, error)

    def remove(self) -> None:
        """Remove the file after the search."""
        self.path.unlink(missing_ok=True)


def _levels(text: list[str]) -> Levels:
    return tuple(map(float.fromhex, text))


def _lines(path: Path) -> list[Any]:
    """Return the values of a file's complete lines, and remove an incomplete one."""
    check_place(path)
    if not path.exists():
        return [None]
    with files.reading(path, "a record of a search", StorageError):
        content = files.read(path, _LARGEST)
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:  # the next line must not be joined to an incomplete one
        write(path, lambda file: file.write(whole))
    values = []
    for line in whole.decode(errors="replace").splitlines():
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            return [None]
    return values or [None]
