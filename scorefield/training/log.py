"""The log of a training run: a JSON object a line, for each interval and each evaluation.

Of two runs with the same settings and data all fields are the same but those of `WALL_CLOCK`. What
a resumed run had logged beyond its checkpoint is taken back, since those steps come again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield._internal.atomic_files import write

NAME = "log.jsonl"
FINAL = "quality"  # the event of the end, which comes again if the end was not reached
WALL_CLOCK = frozenset({"seconds", "samples_per_second", "eta_seconds", "memory_mib"})


class Log:
    """A log that is written to, from a step on.

    Args:
        path: of the file, which is made at the first record.
        step: what was logged after it is taken back.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        if path.exists():
            kept = [
                record
                for record in records(path)
                if record["step"] <= step and record["event"] != FINAL
            ]
            text = "".join(json.dumps(record) + "\n" for record in kept)
            write(path, lambda file: file.write(text.encode()))

    def add(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a record, and bring it to the disk: a checkpoint that follows covers it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": event, "step": step, **values}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; a line that is no JSON, as a kill may leave, is none."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
    return found
