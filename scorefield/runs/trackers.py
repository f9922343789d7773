"""Experiment trackers, which receive the numbers of the log; each needs its package."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield._internal.errors import UsageError


class Tracker(ABC):
    """A destination of the numbers of a run, in addition to its log."""

    @abstractmethod
    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers by their names, such as ``train/loss``."""

    @abstractmethod
    def close(self) -> None:
        """Write everything that is left."""


class TensorBoard(Tracker):
    """Event files in a folder; steps that are repeated replace the earlier ones."""

    def __init__(self, folder: Path, step: int) -> None:
        _need("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Hosted(Tracker):
    """wandb or trackio, which have the same interface; their own settings choose the place."""

    def __init__(self, package: str, name: str, settings: Mapping[str, Any]) -> None:
        self.package = _need(package)
        self.package.init(project="scorefield", name=name, config=dict(settings))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.package.log(dict(values), step=step)

    def close(self) -> None:
        self.package.finish()


def tracker(
    kind: str, folder: Path, name: str, settings: Mapping[str, Any], step: int = 0
) -> Tracker:
    """Return the tracker of a kind: tensorboard, wandb or trackio.

    Args:
        folder: for the files of tensorboard.
        name, settings: of the run.
        step: number of steps that are done already.

    Raises:
        UsageError: its package is not installed.
    """
    if kind == "tensorboard":
        return TensorBoard(folder, step)
    return Hosted(kind, name, settings)


def _need(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(
            f"tracker={package}: needs a package; pip install 'scorefield[{package}]'."
        ) from None
