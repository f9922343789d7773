"""Engines: where the parts of a job are worked out.

A part is a function of the run, its ids and their data alone: the same wherever it is made, and
made again after a worker was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from scorefield.jobs import Columns, fingerprint
from scorefield.training.run import Run


class Task(NamedTuple):
    """A part to be made.

    Attributes:
        part: its number.
        ids: of its items.
        x: their data, ``(len(ids), ...)``, or None where they are made of noise.
    """

    part: int
    ids: range
    x: Tensor | None


Work = Callable[[Run, Task], Columns]  # picklable
Made = Iterator[tuple[int, Columns]]
Engine = Callable[[Run, Path, Work, Iterable[Task]], Made]


def here(run: Run, folder: Path, work: Work, tasks: Iterable[Task]) -> Made:
    """Yield the number and the columns of each part, one after another in this process."""
    for task in tasks:
        yield task.part, work(run, task)


ENGINES: dict[str, Engine] = {"here": here}


def find_engine(name: str) -> Engine:
    """Return the engine of a name."""
    return ENGINES[name]


def mark_of(folder: Path) -> str:
    """Return a digest of a run's files."""
    return fingerprint(folder / "model.safetensors", folder / "config.toml")
