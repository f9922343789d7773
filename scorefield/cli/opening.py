"""Opening a run for a command: its network, its class, its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.options import ItemOptions
from scorefield.data.rows import Rows, chunks
from scorefield.data.source import Data, read
from scorefield.data.transform import moments
from scorefield.runs.folder import RunFolder
from scorefield.runs.jobs.engines import load_run
from scorefield.runs.run import Run

_WIDEST = 8.0  # the largest ratio of scales between data and training data


@dataclass(frozen=True)
class Opened:
    """A run as a command uses it.

    Attributes:
        run, folder: the run, and its folder.
        options: those of the command.
        y: the number of the class in ``options.y``.
    """

    run: Run
    folder: RunFolder
    options: ItemOptions
    y: int | None


def open_run(folder: Path, options: ItemOptions, guidance: float = 1.0) -> Opened:
    """Open a run, with guidance towards the class in ``options.y``.

    Raises:
        UsageError: a batch size or a class that the run does not have; guidance without a class.
        CheckpointError: as `scorefield.load`.
    """
    if options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size}: give at least 1.")
    if guidance != 1 and options.y is None:
        raise UsageError(f"--guidance {guidance:g}: name the class with --y.")
    run = load_run(folder, options.network).guided(guidance)
    return Opened(run, RunFolder(folder), options, class_number(run, options.y))


def class_number(run: Run, y: str | None) -> int | None:
    """Return the number of a class, from its number or its name.

    Raises:
        UsageError: the run does not have it.
    """
    classes, names = run.config.data.classes, run.config.data.class_names
    if y is None:
        return None
    if not classes:
        raise UsageError(f"--y {y}: this run has no classes; train with --conditional.")
    if y in names:
        return names.index(y)
    if not (y.isdecimal() and int(y) < classes):
        listed = f", {', '.join(names[:8])}" if names else ""
        raise UsageError(f"--y {y}: this run has the classes 0 to {classes - 1}{listed}.")
    return int(y)


def check_device(device: str) -> None:
    """Raise `UsageError` if the device does not exist."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here.")


def read_data(run: Run, source: str, labels: Path | None = None) -> Data:
    """Return the items of a source, and their classes.

    Raises:
        DataError: another shape than the run's, or values that are not its levels.
    """
    data = read(source, labels, learn=False, like=run.config.data)
    for chunk in chunks(data.x):
        run.check_data(chunk, source)
    return data


def read_items(run: Run, source: str, any_scale: bool = True) -> Rows:
    """Return the items of a source.

    Raises:
        DataError: as `read_data`; another scale than that of the training data.
    """
    x = read_data(run, source).x
    if any_scale or len(x) < 16 or math.prod(x.shape) < 64:
        return x
    mean, variance = moments(x, run.encoding)
    scaled = run.transform.forward(mean), variance / run.transform.std.double() ** 2
    ratio = _width(*scaled) / _width(run.field.mean, run.field.variance)
    if not 1 / _WIDEST <= ratio <= _WIDEST:
        raise DataError(
            f"{source} spreads {ratio:.3g} times as wide as the training data: convert it to the "
            "same units, or give --any-scale if the difference is intended."
        )
    return x


def _width(mean: float | Tensor, variance: float | Tensor) -> float:
    """Return the standard deviation over all coordinates, the spread of their means included."""
    mean, variance = (torch.as_tensor(m, dtype=torch.float64) for m in (mean, variance))
    return float((variance + (mean - mean.mean()) ** 2).mean().sqrt())
