"""From what a source holds to a run: what all libraries have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield.data import Standardize
from scorefield.data.config import CodecConfig, DataConfig
from scorefield.data.rows import Rows, chunks
from scorefield.data.transform import moments
from scorefield.networks import Codec
from scorefield.runs import build
from scorefield.runs.folder import check_config
from scorefield.runs.loading import new_denoiser
from scorefield.runs.run import Run
from scorefield.training.config import (
    LabelConfig,
    NetworkConfig,
    ParametrizationConfig,
    ProcessConfig,
    RunConfig,
    TrainConfig,
)

_PICTURES = (1, 3)  # channels
_LEVELS = 256
_LARGEST = 2**26  # numbers of a sample
_STDS = 1e-6, 1e6  # whose squares single precision can tell from 0 and from infinity


@dataclass(frozen=True)
class Known:
    """What is known of the data of a network that others have trained.

    Attributes:
        data_std: its root-mean-square deviation as the network sees it, unless it is measured.
        levels: of whole numbers from 0, how many values there are, 0 for continuous numbers; 256
            for pictures, of one channel or three, and 0 for the rest, unless given.
        data: to measure the mean and the variance of each coordinate, in the units of the run.

    Raises:
        UsageError: a number out of range; both a deviation and data.
    """

    data_std: float | None = None
    levels: int | None = None
    data: Rows | None = None

    def __post_init__(self) -> None:
        if self.data_std is not None and not _STDS[0] <= self.data_std <= _STDS[1]:
            raise UsageError(
                f"data_std = {self.data_std:g}: give a number above 0, from {_STDS[0]:g} to "
                f"{_STDS[1]:g}."
            )
        if self.levels is not None and not 0 <= self.levels <= 65536:
            raise UsageError(f"levels = {self.levels}: give a number from 0 to 65536.")
        if self.levels == 1:
            raise UsageError("levels = 1: give two or more, or 0 for continuous data.")
        if self.data_std is not None and self.data is not None:
            raise UsageError("data_std is measured where data is given: leave out one of them.")


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        source: what it is and where it was found, in words.
        name: of its data, as far as there is one.
        shape: of a sample, of pictures where the network is of their latents.
        process, parametrization, label, network: as in `scorefield.training.config.TrainConfig`.
        weights: of the network, by the names of its parameters.
        low, high: between which values the network sees pictures; the mean is taken to lie midway.
        data_std: the deviation of data unless it is known better.
        classes: that the network knows, without one that stands for none.
        unconditional: whether it has learned to go without a class.
        codec, codec_weights: what makes latents of pictures, if the network is of these.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    process: ProcessConfig
    parametrization: ParametrizationConfig
    label: LabelConfig
    network: NetworkConfig
    weights: Mapping[str, Tensor]
    low: float = -1.0
    high: float = 1.0
    data_std: float = 0.5
    classes: int = 0
    unconditional: bool = False
    codec: CodecConfig | None = None
    codec_weights: Mapping[str, Tensor] | None = None

    def run(self, known: Known) -> Run:
        """Return the run.

        Raises:
            CheckpointError: weights that do not fit the network, or are not finite.
            DataError: data of another shape, or not in the levels, or without a spread.
            UsageError: a configuration that no run folder could hold.
            ValueError: settings that contradict each other.
        """
        self._check_shape()
        levels = known.levels
        if levels is None:
            levels = _LEVELS if len(self.shape) == 3 and self.shape[0] in _PICTURES else 0
        data = DataConfig(name=self.name, shape=self.shape, classes=self.classes, codec=self.codec)
        try:
            seen = build.field_shape(TrainConfig(), data)
            outline = build.outline(self.network, seen, self.classes)
            training = self._training(seen, levels)
        except ValueError as error:
            raise CheckpointError(f"{self.source}: {error}") from None
        check_weights(outline, self.weights, self.source)
        config = RunConfig(data=data, train=training, source=self.source)
        check_config(config)
        denoiser = new_denoiser(config.train, data)
        denoiser.network.load_state_dict({k: v.float() for k, v in self.weights.items()})
        denoiser.mean = torch.full(seen, (self.low + self.high) / 2)
        denoiser.variance = torch.full(seen, (known.data_std or self.data_std) ** 2)
        pixels = levels if self.codec is None else 0
        transform = Standardize.of_levels(pixels, self.low, self.high, seen)
        run = Run(denoiser.eval(), transform, config, codec=self._codec())
        return run if known.data is None else _measured(run, known.data)

    def _codec(self) -> Codec | None:
        if self.codec is None or self.codec_weights is None:
            return None
        check_weights(build.codec_outline(self.codec), self.codec_weights, self.source)
        codec = build.codec(self.codec)
        codec.load_state_dict({k: v.float() for k, v in self.codec_weights.items()})
        return codec.eval()

    def _training(self, seen: tuple[int, ...], levels: int) -> TrainConfig:
        config = TrainConfig(
            process=self.process,
            parametrization=self.parametrization,
            label=self.label,
            network=self.network,
            levels=levels,
            conditional=bool(self.classes),
            dropout=TrainConfig().dropout if self.unconditional else 0.0,
        )
        return build.resolved(config, seen)

    def _check_shape(self) -> None:
        sides = [side for side in self.shape if isinstance(side, int) and side > 0]
        if not 1 <= len(sides) == len(self.shape) <= 3 or math.prod(sides) > _LARGEST:
            raise UsageError(
                f"{self.source}: samples of shape {str(self.shape)[:60]}: give one, two or three "
                f"sides, (C, H, W), and at most {_LARGEST:,} numbers."
            )


def check_weights(outline: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights of other names or shapes than a network has, and such as are not finite.

    Raises:
        CheckpointError: naming both sides; or a network that no run folder could hold.
    """
    expected = {name: tuple(value.shape) for name, value in outline.state_dict().items()}
    if len(expected) > build.MOST_TENSORS:
        raise CheckpointError(
            f"{source}: a network of {len(expected):,} tensors, where {build.MOST_TENSORS:,} are "
            "the most."
        )
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{source}: the weights do not match the network: they lack {missing[:4]} and have "
            f"{extra[:4]} besides."
        )
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}, but the network "
                f"describes {shape}."
            )
        if not bool(weights[name].isfinite().all()):
            raise CheckpointError(f"{source}: {name} holds values that are not finite.")


def _measured(run: Run, data: Rows) -> Run:
    """Return the run with the moments of its data measured."""
    for chunk in chunks(data):
        run.check_data(chunk, "data")
    mean, variance = moments(data, run.encoding)
    run.field.mean = run.transform.forward(mean).float()
    run.field.variance = (variance / run.transform.std.double() ** 2).float()
    found = torch.stack([run.field.mean, run.field.variance])
    if not bool(found.isfinite().all() and (run.field.variance > 0).any()):
        raise DataError(
            "data: all samples are the same, or too large for single precision, so there is no "
            "deviation to measure: give others, or data_std instead."
        )
    return run
