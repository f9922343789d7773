"""The log of a training run: one JSON object a line, for each interval and each evaluation.

Two runs with the same settings and data differ only in the fields of `WALL_CLOCK`. A resumed run
removes the records after its checkpoint, since those steps come again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield._internal import files
from scorefield._internal.atomic_files import append, write
from scorefield._internal.errors import CheckpointError

NAME = "log.jsonl"
_LARGEST = 2**25  # bytes
FINAL = "quality"  # the last event; a resumed run writes it again
WALL_CLOCK = frozenset({"seconds", "samples_per_second", "eta_seconds", "memory_mib"})


class Log:
    """A log that is written to, from a step on.

    Args:
        path: of the file, which is created with the first record.
        step: later records are removed.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        if path.exists():
            text = "".join(
                json.dumps(record) + "\n"
                for record in records(path)
                if record["step"] <= step and record["event"] != FINAL
            )
            write(path, lambda file: file.write(text.encode()))

    def add(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a record and synchronise it with the disk, before any later checkpoint."""
        line = json.dumps({"event": event, "step": step, **values}, allow_nan=False)
        append(self.path, line)


def records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log, without lines that are not JSON, as a kill may leave.

    Raises:
        CheckpointError: as `files.read`, of a log that leads out of its folder or is too large.
    """
    with files.reading(path, "", CheckpointError):
        text = files.read(path, _LARGEST, path.parent).decode(errors="replace")
    result = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            result.append(record)
    return result
