"""Training runs in progress, from data and a configuration to a finished run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from scorefield.config import DataConfig, RunConfig, TrainConfig
from scorefield.data import Data, Levels, Standardize
from scorefield.data.rows import Through
from scorefield.errors import UsageError
from scorefield.jobs import fingerprint
from scorefield.training import build, checkpoint
from scorefield.training.loop import Progress, fit
from scorefield.training.run import Run, new_denoiser


class Training:
    """A training run in progress: iterate to train, then take `run`.

    Args:
        data: what to learn.
        config: how.

    Raises:
        ValueError: a conditional run on data without classes; a network that does not fit.
    """

    def __init__(self, data: Data, config: TrainConfig | None = None) -> None:
        config = TrainConfig() if config is None else config
        if config.conditional and data.y is None:
            raise UsageError(
                f"{data.name} has no classes to condition on: give labels, or leave out "
                "conditional."
            )
        self.config = build.resolved(config, data.shape)
        classes = data.classes if config.conditional else 0
        self.data_config = DataConfig(
            name=data.name, shape=data.shape, count=len(data.x), classes=classes
        )
        levels = self.config.levels
        if levels:
            Levels(levels).check(data.x, data.name)
        width = 1.0 if levels else 0.0
        self.transform = Standardize.fit(data.x, between=width)
        self.between = width / self.transform.std
        z = self.transform.forward(data.x)
        variance, mean = torch.var_mean(z.double(), 0, correction=0)
        self.denoiser = new_denoiser(
            self.config,
            self.data_config,
            (mean + self.between / 2).float(),
            (variance + self.between**2 / 12).float(),
        )
        self.data = data
        self._losses: deque[float] = deque(maxlen=100)
        self.fit = fit(
            self.denoiser,
            build.objective(self.config),
            Through(data.x, self.transform.forward),
            data.y if self.config.conditional else None,
            optim=self.config.optim,
            dropout=self.config.dropout,
            between=self.between if self.config.levels else None,
            seed=self.config.seed,
        )

    def __iter__(self) -> Iterator[Progress]:
        for progress in self.fit:
            self._losses.append(progress.loss)
            yield progress

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the run is of, in JSON's types."""
        arrays = [a.numpy() for a in (self.data.x, self.data.y) if a is not None]
        return {"settings": self.config.model_dump(mode="json"), "data": fingerprint(*arrays)}

    def save_checkpoint(self, folder: Path) -> None:
        """Keep what the run goes on from, at once or not at all."""
        facts = {**self.facts, "losses": list(self._losses)}
        checkpoint.save(folder, self.fit.step, self.fit.state(), facts)

    def resume(self, folder: Path) -> int:
        """Go on from the newest checkpoint in a folder, if there is one; return the steps done.

        Raises:
            UsageError: it is of another run.
            StorageError: all checkpoints there are damaged.
        """
        kept = checkpoint.newest(folder)
        if kept is None:
            return 0
        checkpoint.check_same(folder, kept, self.facts)
        self.fit.restore(kept.tensors)
        self._losses.extend(kept.facts["losses"])
        return self.fit.step

    @property
    def loss(self) -> float:
        """The mean loss of the last hundred steps."""
        return sum(self._losses) / max(1, len(self._losses))

    @property
    def run(self) -> Run:
        """The result: before the last step a view of the weights as they stand, not averaged."""
        config = RunConfig(data=self.data_config, train=self.config, loss=self.loss)
        return Run(self.denoiser, self.transform, config)


def train(data: Data, config: TrainConfig | None = None) -> Run:
    """Train a field on data and return the finished run.

    Raises:
        ValueError: as `Training` and `scorefield.training.loop.fit`.
    """
    training = Training(data, config)
    for _ in training:
        pass
    return training.run
