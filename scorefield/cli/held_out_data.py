"""Real data to compare samples with: held out from training, of one class or all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.opening import read_data
from scorefield.data import Data
from scorefield.runs.run import Run
from scorefield.training.held_out import split
from scorefield.tuning.frontier.measure import SMALLEST

SAMPLES = 512  # of a plan, if there are as many data
_MOST = 2048  # to compare with


@dataclass(frozen=True)
class Real:
    """Real data as the field sees it.

    Attributes:
        real: to compare samples with, ``(m, *shape)``.
        other: for the distance of data to data, ``(n, *shape)`` as many as there are samples.
    """

    real: Tensor
    other: Tensor


def as_data(run: Run, z: Tensor) -> Tensor:
    """Return samples of the field as the field sees data: rounded to the run's levels."""
    return run.to_field(run.to_data(z))


def real_data(
    run: Run,
    source: str,
    y: int | None,
    *,
    labels: Path | None,
    held_out: bool,
    n: int | None,
    seed: int,
) -> Real:
    """Return data to compare with, and as much for the distance of data to data.

    Raises:
        UsageError: the training data; too few items.
        DataError: as `read_data`; data without classes.
    """
    _check_held_out(run, source, held_out)
    data = read_data(run, source, labels)
    items = torch.arange(len(data.x))
    if held_out:
        items = _held_out(run, source, len(items))
    if y is not None:
        items = items[_of_class(run, data, y)[items]]
    least = SMALLEST if n is None else n
    if len(items) < 2 * least:
        of_class = "" if y is None else f" of class {y}"
        wanted = "" if n is None else f" for --n {n}"
        raise UsageError(
            f"{source} has {len(items)} items{of_class} to compare with: give {2 * least} or more"
            f"{wanted}, since half of them measure the distance of data to data."
        )
    one, two = split(len(items), 0.5, seed)  # sorted data is shuffled, too
    one = one[torch.linspace(0, len(one) - 1, min(len(one), _MOST)).long()]
    two = two[: SAMPLES if n is None else n]
    return Real(run.to_field(data.x[items[one]]), run.to_field(data.x[items[two]]))


def _check_held_out(run: Run, source: str, held_out: bool) -> None:
    if held_out and not run.config.train.held_out:
        raise UsageError(
            "--held-out: this run has no held-out data: it was trained without --held-out, or "
            "imported."
        )
    if not held_out and _same(source, run.config.data.name):
        raise UsageError(
            f"{source} is the training data of this run: give other data, or --held-out for the "
            "items that were held out."
        )


def _same(source: str, trained: str) -> bool:
    """Return whether two names stand for one built-in set, or for one file."""
    one, two = Path(source), Path(trained)
    return source == trained or (one.exists() and two.exists() and one.samefile(two))


def _held_out(run: Run, source: str, count: int) -> Tensor:
    """Return the indices of the items that training held out."""
    trained = run.config.data
    if count != trained.count:
        raise DataError(
            f"{source} has {count} items, and this run was trained on {trained.count} items of "
            f"{trained.name}: give the same data."
        )
    return split(count, run.config.train.held_out, run.config.train.seed)[1]


def _of_class(run: Run, data: Data, y: int) -> Tensor:
    """Return whether each item belongs to a class of the run."""
    names = run.config.data.class_names
    if data.y is None:
        raise DataError(f"{data.name} has no classes: give them with --labels.")
    if names and data.class_names:
        y = data.class_names.index(names[y]) if names[y] in data.class_names else -1
    return data.y == y if y >= 0 else torch.zeros(len(data.y), dtype=torch.bool)
