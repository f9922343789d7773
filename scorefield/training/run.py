"""A run: a trained field with its data transform and configuration, on disk a folder."""

from __future__ import annotations

import operator
import os
import shutil
import tempfile
import tomllib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scorefield.adaptive import Adaptive
from scorefield.config import DataConfig, RunConfig, TrainConfig
from scorefield.data import Data, Standardize
from scorefield.denoiser import Denoiser
from scorefield.errors import CheckpointError, UsageError
from scorefield.field import ScoreField
from scorefield.files import publish
from scorefield.plan import Plan
from scorefield.sampling import sample
from scorefield.solvers import Solver
from scorefield.training import build
from scorefield.training.loop import Progress, fit

_WEIGHTS, _CONFIG = "model.safetensors", "config.toml"


@dataclass(frozen=True)
class Run:
    """What training leaves: everything needed to generate in the data's own units.

    Attributes:
        field: the score field of the standardised data.
        transform: between data and what the field sees.
        config: how it came about.
    """

    field: Denoiser
    transform: Standardize
    config: RunConfig

    def sample(
        self,
        n: int | Sequence[int] | Tensor,
        solver: Solver | Plan | None = None,
        times: Tensor | Adaptive | None = None,
        *,
        seed: int = 0,
        y: int | None = None,
        tile: int = 64,
    ) -> Tensor:
        """Generate data ``(n, *shape)``; the arguments are those of `scorefield.sample`.

        Args:
            y: the class to generate, for a conditional run; all classes unless given.
        """
        field: ScoreField = self.field
        if y is not None:
            device = next(field.parameters()).device
            field = field.given(y=torch.tensor(operator.index(y), device=device))
        return self.transform.inverse(sample(field, n, solver, times, seed=seed, tile=tile))

    def save(self, folder: str | Path) -> None:
        """Write the folder at once or not at all.

        Raises:
            UsageError: the folder exists and is not empty.
        """
        folder = Path(folder)
        refuse_existing(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"network.{k}": v for k, v in self.field.network.state_dict().items()}
        tensors |= {"transform.mean": self.transform.mean, "transform.std": self.transform.std}
        written = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, written / _WEIGHTS)
            text = tomli_w.dumps(self.config.model_dump(exclude_none=True))
            (written / _CONFIG).write_text(text, encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            publish(written, folder)
        except BaseException:
            shutil.rmtree(written, ignore_errors=True)
            raise


def refuse_existing(folder: Path) -> None:
    """Raise `UsageError` if a run cannot be written to ``folder`` without losing something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: name another folder, or remove it first.")
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"{folder} cannot be made: {parent} is no folder that can be written to.")


def load(folder: str | Path) -> Run:
    """Rebuild a run from its folder: field, process, parametrization and data transform.

    Raises:
        CheckpointError: a file is missing or unreadable, or the weights do not match the
            configuration.
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        tensors = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / _WEIGHTS} cannot be read: {error}") from None
    try:
        denoiser = new_denoiser(config.train, config.data)
    except ValueError as error:
        raise CheckpointError(f"{folder / _CONFIG} describes no run: {error}") from None
    network = denoiser.network.state_dict()
    channels, *rest = config.data.shape
    moments = torch.Size([channels, *[1] * len(rest)])
    expected = {f"network.{k}": v.shape for k, v in network.items()}
    expected |= {"transform.mean": moments, "transform.std": moments}
    _check_tensors(folder, tensors, expected)
    denoiser.network.load_state_dict({k: tensors[f"network.{k}"] for k in network})
    denoiser.eval()
    transform = Standardize(tensors["transform.mean"], tensors["transform.std"])
    return Run(denoiser, transform, config)


def _read_config(folder: Path) -> RunConfig:
    path = folder / _CONFIG
    if not folder.is_dir():
        raise CheckpointError(f"there is no run folder {folder}: train one first.")
    try:
        return RunConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{path} is no run's configuration: {place}: {first['msg']}."
        ) from None


def _check_tensors(
    folder: Path, tensors: dict[str, Tensor], expected: dict[str, torch.Size]
) -> None:
    path = folder / _WEIGHTS
    if set(tensors) != set(expected):
        missing = sorted(set(expected) - set(tensors))
        extra = sorted(set(tensors) - set(expected))
        raise CheckpointError(
            f"{path} does not match {_CONFIG}: it lacks {missing[:4]} and has {extra[:4]} besides."
        )
    unusable = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if unusable or not bool((tensors["transform.std"] > 0).all()):
        raise CheckpointError(
            f"{path}: {unusable[0] if unusable else 'transform.std'} holds values that are not "
            "finite, or a deviation that is not positive."
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, but {_CONFIG} describes "
                f"{tuple(shape)}."
            )


def new_denoiser(config: TrainConfig, data: DataConfig) -> Denoiser:
    """Return an untrained denoiser, its weights a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build.network(config.network, data.shape, data.classes)
    parametrization = build.parametrization(config.parametrization)
    return Denoiser(network, build.process(config.process), parametrization, data.shape)


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
        self.transform = Standardize.fit(data.x)
        self.denoiser = new_denoiser(self.config, self.data_config)
        self.data = data
        self._losses: deque[float] = deque(maxlen=100)

    def __iter__(self) -> Iterator[Progress]:
        y = self.data.y if self.config.conditional else None
        steps = fit(
            self.denoiser,
            build.objective(self.config),
            self.transform.forward(self.data.x),
            y,
            optim=self.config.optim,
            dropout=self.config.dropout,
            seed=self.config.seed,
        )
        for progress in steps:
            self._losses.append(progress.loss)
            yield progress

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
