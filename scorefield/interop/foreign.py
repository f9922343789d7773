"""Runs of networks trained elsewhere: the steps that all libraries share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield.data import Standardize
from scorefield.data.config import ClassChannel, CodecConfig, DataConfig
from scorefield.data.rows import Rows, chunks
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
_LARGEST = 2**26  # numbers in a sample
_STDS = 1e-6, 1e6  # their squares are neither 0 nor infinite in single precision


@dataclass(frozen=True)
class DataOptions:
    """Information on the training data of a network trained elsewhere.

    Attributes:
        data_std: root-mean-square deviation of the data in the network's units; by default the
            library's usual value.
        levels: the number of values of whole-number data from 0 up, or 0 for continuous data; by
            default 256 for pictures of one or three channels, and 0 otherwise.
        data: data in the units of the run, to measure the mean and the variance of each coordinate.

    Raises:
        UsageError: a number out of range; both ``data_std`` and ``data``.
    """

    data_std: float | None = None
    levels: int | None = None
    data: Rows | None = None

    def __post_init__(self) -> None:
        if self.data_std is not None and not _STDS[0] <= self.data_std <= _STDS[1]:
            raise UsageError(
                f"data_std={self.data_std:g}: must be from {_STDS[0]:g} to {_STDS[1]:g}."
            )
        if self.levels is not None and not 0 <= self.levels <= 65536:
            raise UsageError(f"levels={self.levels}: must be from 0 to 65536.")
        if self.levels == 1:
            raise UsageError("levels=1: must be at least 2, or 0 for continuous data.")
        if self.data_std is not None and self.data is not None:
            raise UsageError(
                f"data_std={self.data_std:g}: cannot be combined with data, which measures it."
            )


class Noising(NamedTuple):
    """The process, the parametrization and the label of a network.

    Attributes:
        low: the network's value of black; white is 1, and the mean is assumed to be midway.
    """

    process: ProcessConfig
    parametrization: ParametrizationConfig
    label: LabelConfig
    low: float = -1.0


@dataclass(frozen=True)
class ForeignNetwork:
    """A network trained elsewhere, in our configuration.

    Attributes:
        source: description of the network and of its place.
        name: of the data, if known.
        shape: of a sample; of the pictures if the network models their latents.
        noising: the process, the parametrization and the label.
        network: as in `scorefield.training.config.TrainConfig`.
        weights: of the network, by the names of its parameters.
        data_std: the library's usual standard deviation of the data.
        classes: the number of classes, without one that stands for no class.
        unconditional: whether the network also works without a class.
        codec, codec_weights: the autoencoder, if the network models latents.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    noising: Noising
    network: NetworkConfig
    weights: Mapping[str, Tensor]
    data_std: float = 0.5
    classes: int = 0
    unconditional: bool = False
    codec: CodecConfig | None = None
    codec_weights: Mapping[str, Tensor] | None = None

    def run(self, options: DataOptions) -> Run:
        """Return the run.

        Raises:
            CheckpointError: weights that do not fit the network, or are not finite.
            DataError: data of another shape, outside the levels, or without variance.
            UsageError: a configuration that a run folder cannot store.
            ValueError: settings that contradict each other.
        """
        self._check_shape()
        levels = options.levels
        if levels is None:
            levels = _LEVELS if len(self.shape) == 3 and self.shape[0] in _PICTURES else 0
        conditions = (ClassChannel(name="y", count=self.classes),) if self.classes else ()
        data = DataConfig(name=self.name, shape=self.shape, conditions=conditions, codec=self.codec)
        try:
            shape = build.field_shape(TrainConfig(), data)
            outline = build.outline(build.Design(self.network, shape, conditions))
            training = self._training(shape, levels)
        except ValueError as error:
            raise CheckpointError(f"{self.source}: {error}") from None
        check_weights(outline, self.weights, self.source)
        config = RunConfig(data=data, train=training, source=self.source)
        check_config(config)
        denoiser = new_denoiser(config.train, data)
        denoiser.network.load_state_dict({k: v.float() for k, v in self.weights.items()})
        denoiser.mean = torch.full(shape, (self.noising.low + 1) / 2)
        denoiser.variance = torch.full(shape, (options.data_std or self.data_std) ** 2)
        pixels = levels if self.codec is None else 0
        transform = Standardize.of_levels(pixels, self.noising.low, 1.0, shape)
        run = Run(denoiser.eval(), transform, config, codec=self._codec())
        return run if options.data is None else _measure(run, options.data)

    def _codec(self) -> Codec | None:
        if self.codec is None or self.codec_weights is None:
            return None
        check_weights(build.codec_outline(self.codec), self.codec_weights, self.source)
        codec = build.codec(self.codec)
        codec.load_state_dict({k: v.float() for k, v in self.codec_weights.items()})
        return codec.eval()

    def _training(self, shape: tuple[int, ...], levels: int) -> TrainConfig:
        config = TrainConfig(
            process=self.noising.process,
            parametrization=self.noising.parametrization,
            label=self.noising.label,
            network=self.network,
            levels=levels,
            conditional=bool(self.classes),
            dropout=TrainConfig().dropout if self.unconditional else 0.0,
        )
        return build.resolved(config, shape)

    def _check_shape(self) -> None:
        sides = [side for side in self.shape if isinstance(side, int) and side > 0]
        if not 1 <= len(sides) == len(self.shape) <= 3 or math.prod(sides) > _LARGEST:
            raise UsageError(
                f"{self.source}: shape={str(self.shape)[:60]}: must have one to three sides, such "
                f"as (C, H, W), and at most {_LARGEST:,} numbers."
            )


def check_weights(outline: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Reject weights with other names or shapes than a network has, or that are not finite.

    Raises:
        CheckpointError: with both sides; or if a run folder cannot store the network.
    """
    expected = {name: tuple(value.shape) for name, value in outline.state_dict().items()}
    if len(expected) > build.MOST_TENSORS:
        raise CheckpointError(
            f"{source}: {len(expected):,} tensors: at most {build.MOST_TENSORS:,} are allowed."
        )
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{source}: the weights do not match the network: missing {missing[:4]}, unknown "
            f"{extra[:4]}."
        )
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}, and the network {shape}."
            )
        if not bool(weights[name].isfinite().all()):
            raise CheckpointError(f"{source}: {name} has values that are not finite.")


def _measure(run: Run, data: Rows) -> Run:
    """Return the run with mean and variance measured on data."""
    for chunk in chunks(data):
        run.check_data(chunk, "data")
    mean, variance = run.encoding.moments(data)
    run.field.mean = run.transform.forward(mean).float()
    run.field.variance = (variance / run.transform.std.double() ** 2).float()
    measured = torch.stack([run.field.mean, run.field.variance])
    if not bool(measured.isfinite().all() and (run.field.variance > 0).any()):
        raise DataError(
            "data: all samples are equal, or too large for single precision, so their standard "
            "deviation cannot be measured; give other data, or data_std instead."
        )
    return run
