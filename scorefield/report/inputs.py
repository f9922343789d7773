"""What a report is made of: a run, what lies in its folder, and data; checked before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data import read
from scorefield.report.frames import tuned_plans
from scorefield.report.frontier_section import read_frontier
from scorefield.runs.folder import FRONTIER
from scorefield.runs.run import Run, load
from scorefield.sampling import Plan
from scorefield.training.held_out import split
from scorefield.training.log import NAME, records
from scorefield.tuning.frontier import Frontier

_LARGEST = 2**26  # bytes of a file beside the weights
_MOST = 2000  # items of data
_NUMBERS = 2**25  # in them


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of.

    Attributes:
        run, folder: the run, and where it was read from.
        source, held_out: the data's name, and whether only what was not trained on is taken.
        x: items of the data, or None.
        log: the records of the training.
        tuned: the plans that were tuned for the run.
        frontier: what was measured of solvers, or None.
        seed: of all noise.
    """

    run: Run
    folder: Path
    source: str | None
    held_out: bool
    x: Tensor | None
    log: list[dict[str, Any]]
    tuned: list[Plan]
    frontier: Frontier | None
    seed: int

    @property
    def y(self) -> int | None:
        """The class to generate where the field without one was not learned."""
        config = self.run.config
        return 0 if config.data.classes and not config.train.dropout else None


def open_inputs(folder: Path, data: str | Path | None, held_out: bool, seed: int) -> ReportInputs:
    """Read what a report is made of.

    Raises:
        UsageError: ``held_out`` without data, or for a run that held nothing out.
        DataError: data that cannot be read, or is not of the run's kind.
        CheckpointError: no run, or a file beside it that cannot be used.
        ValueError: a seed out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed = {seed}: give an integer from 0 to 2^64 - 1.")
    if held_out and data is None:
        raise UsageError("--held-out takes a share of data: name the data the run was trained on.")
    run = load(folder)
    x = None if data is None else _items(run, str(data), held_out)
    log = inside(folder / NAME)
    return ReportInputs(
        run,
        folder,
        None if data is None else str(data),
        held_out,
        x,
        [] if log is None else records(log),
        tuned_plans(folder, run.field),
        read_frontier(inside(folder / FRONTIER)),
        seed,
    )


def _items(run: Run, source: str, held_out: bool) -> Tensor:
    """Return the first items of a source, or of those that were held out of it."""
    data, config = run.config.data, run.config.train
    rows = read(source, learn=False, like=data).x
    places = torch.arange(len(rows))
    if held_out:
        if not config.held_out:
            raise UsageError(
                "--held-out: the run was trained on all its data, or elsewhere; leave it out."
            )
        if len(rows) != data.count:
            raise UsageError(
                f"--held-out: {source} has {len(rows)} items, and the run was trained on data of "
                f"{data.count}: name that."
            )
        places = split(len(rows), config.held_out, config.seed)[1]
    x = rows[places[: min(_MOST, max(2, _NUMBERS // math.prod(data.shape)))]]
    run.check_data(x, source)
    return x


def inside(path: Path) -> Path | None:
    """Return a path if a plain file is there, and refuse one that is too large."""
    if not path.is_file():
        return None
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path} is larger than 64 MiB: no report is made of it.")
    return path
