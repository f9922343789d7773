"""The record of a search in a file, from which an interrupted search resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield.tuning.search import Levels


class Tried(dict[Levels, float]):
    """Errors by levels; each is written to the disk as soon as it is measured.

    Args:
        path: of the file, with one JSON value in each line. A record of the same search is
            continued; another one is replaced when the first error is added.
        facts: everything that the errors depend on besides the levels, in JSON's types.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = path
        head, *lines = _lines(path)
        self._begun, self._head = head == dict(facts), json.dumps(facts) + "\n"
        for line in lines if self._begun else ():
            super().__setitem__(_levels(line["levels"]), float.fromhex(line["error"]))

    def __setitem__(self, levels: Levels, error: float) -> None:
        if not self._begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self._head, encoding="utf-8")
            self._begun = True
        line = {"levels": [level.hex() for level in levels], "error": error.hex()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        super().__setitem__(levels, error)

    def remove(self) -> None:
        """Remove the file after the search."""
        self.path.unlink(missing_ok=True)


def _levels(text: list[str]) -> Levels:
    return tuple(map(float.fromhex, text))


def _lines(path: Path) -> list[Any]:
    """Return the values of a file's complete lines, and remove an incomplete one."""
    if not path.exists():
        return [None]
    values, content = [], path.read_bytes()
    whole = content.rfind(b"\n") + 1
    os.truncate(path, whole)  # the next line must not be joined to an incomplete one
    for line in content[:whole].decode(errors="replace").splitlines():
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            return [None]
    return values or [None]
