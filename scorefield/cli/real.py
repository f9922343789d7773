"""Real data to compare samples with: held out, of a class if asked, half of it for the floor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.options import CompareOptions
from scorefield.cli.parts import read_data
from scorefield.data import Data
from scorefield.runs.run import Run
from scorefield.training.held_out import split
from scorefield.tuning.frontier.measure import SMALLEST

SAMPLES = 512  # of a plan unless told, and as far as there is data
_MOST = 2048  # to compare with


@dataclass(frozen=True)
class Real:
    """Real data as the field sees it.

    Attributes:
        real: to compare samples with, ``(m, *shape)``.
        other: as much as there are samples, for the floor, ``(n, *shape)``.
    """

    real: Tensor
    other: Tensor


def as_data(run: Run, z: Tensor) -> Tensor:
    """Return what the field makes as data of a run's kind would be seen."""
    return run.to_field(run.to_data(z))


def real_data(run: Run, source: str, y: int | None, how: CompareOptions) -> Real:
    """Return data to compare with, half of it for the floor.

    Raises:
        UsageError: what was trained on; too few items.
        DataError: as `read_data`; classes that are not known.
    """
    _check_held_out(run, source, how.held_out)
    data = read_data(run, source, how.labels)
    items = torch.arange(len(data.x))
    if how.held_out:
        items = _held_out(run, source, len(items))
    if y is not None:
        items = items[_of_class(run, data, y)[items]]
    least = SMALLEST if how.n is None else how.n
    if len(items) < 2 * least:
        of_class = "" if y is None else f" of class {y}"
        wanted = "" if how.n is None else f" for --n {how.n}"
        raise UsageError(
            f"{source} has {len(items)} items{of_class} to compare with: give {2 * least} or more"
            f"{wanted}, since half of them are for the floor."
        )
    one, two = split(len(items), 0.5, how.seed)  # data that lies sorted is dealt all the same
    one = one[torch.linspace(0, len(one) - 1, min(len(one), _MOST)).long()]
    two = two[: SAMPLES if how.n is None else how.n]
    return Real(run.to_field(data.x[items[one]]), run.to_field(data.x[items[two]]))


def _check_held_out(run: Run, source: str, held_out: bool) -> None:
    if held_out and not run.config.train.held_out:
        raise UsageError("--held-out: this run was trained on all of its data, or elsewhere.")
    if not held_out and _same(source, run.config.data.name):
        raise UsageError(
            f"{source} is what this run was trained on: give other data, or --held-out for what "
            "was held out of it."
        )


def _same(source: str, trained: str) -> bool:
    """Return whether two names of data are those of one built-in set, or of one file."""
    one, two = Path(source), Path(trained)
    return source == trained or (one.exists() and two.exists() and one.samefile(two))


def _held_out(run: Run, source: str, count: int) -> Tensor:
    """Return the numbers of the items that training held out."""
    trained = run.config.data
    if count != trained.count:
        raise DataError(
            f"{source} has {count} items, and this run was trained on {trained.count} of "
            f"{trained.name}: give the same."
        )
    return split(count, run.config.train.held_out, run.config.train.seed)[1]


def _of_class(run: Run, data: Data, y: int) -> Tensor:
    """Return which items are of a class of the run's."""
    names = run.config.data.class_names
    if data.y is None:
        raise DataError(f"{data.name} has no classes: say with --labels which item is of which.")
    if names and data.class_names:
        y = data.class_names.index(names[y]) if names[y] in data.class_names else -1
    return data.y == y if y >= 0 else torch.zeros(len(data.y), dtype=torch.bool)
