"""The weights of a run folder, checked before a byte of them is used.

The header of a weights file is compared with the size of the file and with the configuration before
memory is allocated, so reading an untrusted folder costs no more than the size of its files.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scorefield._internal import files, sizes
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.runs import build, header
from scorefield.training.config import RunConfig, TrainConfig

CONFIG = "config.toml"
Outlines = dict[str, Tensor]  # without memory: shape and type
_TYPES = {torch.float32: "F32", torch.int64: "I64"}

_MOST_COPIES = 16  # averages that a header may list, however many the configuration claims


def plain_file(folder: Path, name: str) -> Path:
    """Return the path of a plain file inside a folder.

    Raises:
        CheckpointError: the file does not exist, is not a plain file, or leads out of the folder.
    """
    path = folder / name
    with files.reading(path, "", CheckpointError):
        files.check(path, sys.maxsize, folder)  # its header is checked before its size
    return path


def read_tensors(path: Path, expected: Outlines, reference: str = CONFIG) -> dict[str, Tensor]:
    """Return finite tensors of the expected names and shapes.

    Args:
        reference: where the expected shapes come from, for messages.

    Raises:
        CheckpointError: the file does not match, is damaged, or is larger than memory.
    """
    _check_shapes(path, header.read(path), expected, reference)
    _check_size(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    _check_finite(path, tensors)
    return tensors


def read_checkpoint(
    folder: Path,
    step: int,
    config: TrainConfig,
    average: int,
    expected: Outlines,
    reference: str = CONFIG,
) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint.

    Args:
        folder: of the checkpoints.
        config: the settings of the run, which the checkpoint must have too.
        average: which of the averages of the weights to read.

    Raises:
        UsageError: no checkpoint of this step.
        CheckpointError: as `read_tensors`; a checkpoint of another run.
    """
    from scorefield.training import checkpoint as checkpoints

    available = checkpoints.steps(folder)
    if not available:
        raise UsageError(
            f"checkpoint={step}: {folder.parent} has no checkpoints; train with --keep-every."
        )
    if step not in available:
        raise UsageError(
            f"checkpoint={step}: {folder.parent} has checkpoints of the steps "
            f"{available}; choose one of them."
        )
    prefix = f"average.{average}.module."
    plain_file(folder, f"{checkpoints.name(step)}/{checkpoints.MANIFEST}")
    path = plain_file(folder, f"{checkpoints.name(step)}/{checkpoints.STATE}")
    # of the weights: the weights, two moments, and the averages, of the last and of the best step
    copies = 3 + 2 * len(config.optim.ema)
    places = header.read(path, min(copies, _MOST_COPIES))
    names = {f"network.{k.removeprefix(prefix)}": k for k in places if k.startswith(prefix)}
    _check_shapes(path, {new: places[k] for new, k in names.items()}, expected, reference)
    numbers = copies * sum(value.numel() for value in expected.values()) + 2 * len(places)
    if sum(place.size for place in places.values()) > 4 * numbers:
        raise CheckpointError(f"{path} holds more than the weights, averages and moments of a run.")
    _check_size(path)
    checkpoint = checkpoints.read(path.parent)
    if checkpoint is None:
        raise CheckpointError(f"{path.parent} is damaged.")
    if not checkpoint.is_of(config):
        raise CheckpointError(f"{path.parent} is of a run with other settings: remove it.")
    tensors = {new: checkpoint.tensors[k] for new, k in names.items()}
    _check_finite(path, tensors)
    return tensors


def outlines(config: RunConfig, path: Path, network: nn.Module | None = None) -> Outlines:
    """Return the shapes and types of the tensors of a run, without allocating them.

    Args:
        path: of the configuration, for messages.
        network: the user's own, if the configuration does not describe one.

    Raises:
        CheckpointError: the configuration does not describe a run that could be built.
    """
    try:
        shape = build.field_shape(config.train, config.data)
        if network is None:
            design = build.Design.of(config.train, config.data)
            _check_network_size(design)
            network = build.outline(design)
    except ValueError as error:
        raise CheckpointError(f"{path} does not describe a run: {error}") from None
    channels, *rest = shape
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    if config.data.codec is not None:
        codec = build.codec_outline(config.data.codec, config.data.shape).state_dict()
        tensors |= {f"codec.{k}": v for k, v in codec.items()}
    moments = torch.empty(channels, *[1] * len(rest), device="meta")
    tensors |= dict.fromkeys(("transform.mean", "transform.std"), moments)
    if count := config.data.columns.quantiles:
        maps = torch.empty(channels, count, device="meta")
        tensors |= dict.fromkeys(("quantiles.data", "quantiles.field"), maps)
    for key, sides in config.data.examples.items():
        tensors[f"examples.{key}"] = torch.empty(sides, device="meta")
    of_data = torch.empty(shape, device="meta")
    return tensors | dict.fromkeys(("data.mean", "data.variance"), of_data)


def _check_network_size(design: build.Design) -> None:
    tensors, numbers = build.network_size(design)
    if math.isinf(numbers):
        raise ValueError("its network is larger than any memory.")
    if tensors > build.MOST_TENSORS:
        raise ValueError(
            f"a network of {sizes.words(4 * numbers)} and {tensors:,} tensors or more; at most "
            f"{build.MOST_TENSORS:,} tensors are allowed."
        )


def check_types(tensors: Mapping[str, Tensor]) -> None:
    """Reject tensors that a run folder cannot hold.

    Raises:
        UsageError: naming the tensor.
    """
    for name, value in tensors.items():
        if value.dtype not in _TYPES:
            raise UsageError(
                f"{name} has type {value.dtype}: a run folder holds float32 weights (and int64 "
                "counts); convert the network with network.float()."
            )


def check_moments(path: Path, tensors: dict[str, Tensor]) -> None:
    """Reject standard deviations that are not positive, and negative variances.

    Raises:
        CheckpointError: naming the tensor.
    """
    if not bool((tensors["transform.std"] > 0).all()):
        raise CheckpointError(f"{path}: transform.std must be positive everywhere.")
    variance = tensors["data.variance"]
    if not bool((variance >= 0).all() and (variance > 0).any()):
        raise CheckpointError(
            f"{path}: data.variance must be at least 0 everywhere, and above 0 somewhere."
        )


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > sizes.memory():
        raise CheckpointError(
            f"{path} holds {sizes.words(size)}, but this machine has {sizes.words(sizes.memory())} "
            "of memory: use a larger machine."
        )


def _check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        # NaN fills up the sets among the examples
        finite = value.isfinite() | (value.isnan() if name.startswith("examples.") else False)
        if not bool(finite.all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite.")


def _check_shapes(path: Path, places: header.Places, expected: Outlines, reference: str) -> None:
    if set(places) != set(expected):
        missing = sorted(set(expected) - set(places))
        extra = sorted(set(places) - set(expected))
        raise CheckpointError(
            f"{path} does not match {reference}: missing tensors {missing[:4]}, unexpected "
            f"tensors {extra[:4]}."
        )
    for name, outline in expected.items():
        place, shape = places[name], tuple(outline.shape)
        if place.shape != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {place.shape}, but {reference} describes {shape}."
            )
        wanted = _TYPES.get(outline.dtype, "F32")
        if place.dtype != wanted:
            raise CheckpointError(
                f"{path}: {name} has type {place.dtype}; weights must be {wanted}."
            )
