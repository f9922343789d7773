"""Opening a run for a command: its network, its class, its guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scorefield._internal import sizes
from scorefield._internal.errors import UsageError
from scorefield.cli.options import ItemOptions
from scorefield.runs.folder import RunFolder
from scorefield.runs.jobs.engines import Source
from scorefield.runs.run import Run

_COPIES = 8  # of a batch, at least: state, noise, estimates and inside the network


@dataclass(frozen=True)
class Opened:
    """A run as a command uses it.

    Attributes:
        run, source: the run, and where it comes from.
        options: those of the command.
        y: the number of the class in ``options.y``.
    """

    run: Run
    source: Source
    options: ItemOptions
    y: int | None

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(self.source.folder)


def open_run(folder: Path, options: ItemOptions, guidance: float = 1.0) -> Opened:
    """Open a run, with guidance towards the class in ``options.y``.

    Raises:
        UsageError: a batch size, a device or a class that does not exist; guidance without a class.
        CheckpointError: as `scorefield.load`.
    """
    if options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size}: give at least 1.")
    if guidance != 1 and options.y is None:
        raise UsageError(f"--guidance {guidance:g}: name the class with --y.")
    source = Source(folder, options.network, options.device)
    run = source.load().guided(guidance)
    needs = _COPIES * 4 * options.batch_size * math.prod(run.config.data.shape)
    if needs > sizes.memory():
        raise UsageError(
            f"--batch-size {options.batch_size}: a batch takes {sizes.words(needs)}, and there are "
            f"{sizes.words(sizes.memory())} of memory."
        )
    return Opened(run, source, options, class_number(run, options.y))


def embedding(embeddings: Path | None, prompt: int | None) -> dict[str, Tensor]:
    """Return the condition of a text in a file of embeddings, ``(1, tokens, width)``, by its name.

    Raises:
        UsageError: a text that the file does not have.
        DataError: as `scorefield.data.embeddings.read_embeddings`.
    """
    if embeddings is None:
        if prompt is not None:
            raise UsageError(f"--prompt {prompt}: has no effect without --embeddings.")
        return {}
    from scorefield.data.embeddings import CONDITION, read_embeddings

    every, k = read_embeddings(embeddings), prompt or 0
    if not 0 <= k < len(every):
        raise UsageError(f"--prompt {k}: {embeddings} has the texts 0 to {len(every) - 1}.")
    return {CONDITION: every[k : k + 1]}


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
