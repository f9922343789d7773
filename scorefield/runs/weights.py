"""The weights of a run folder, checked before a byte of them is used.

The header of a weights file is compared with the size of the file and with the configuration before
memory is allocated, so reading an untrusted folder costs no more than the size of its files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scorefield._internal import sizes
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.runs import build, header
from scorefield.training import checkpoint as checkpoints
from scorefield.training.config import RunConfig

CONFIG = "config.toml"
Shapes = dict[str, tuple[int, ...]]

_MOST_COPIES = 16  # averages that a header may list, however many the configuration claims


def plain_file(folder: Path, name: str) -> Path:
    """Return the path of a plain file inside a folder.

    Raises:
        CheckpointError: the file does not exist, or the path leads out of the folder.
    """
    path = folder / name
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(folder)):
        raise CheckpointError(f"{path} leads out of its folder, to {target}: put the file there.")
    if not target.is_file():
        raise CheckpointError(f"{path} cannot be read: the file does not exist.")
    return path


def read_tensors(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """Return finite tensors of the expected names and shapes.

    Raises:
        CheckpointError: the file does not match, is damaged, or is larger than memory.
    """
    _check_shapes(path, header.read(path), expected)
    _check_size(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    _check_finite(path, tensors)
    return tensors


def read_checkpoint(
    folder: Path, step: int, decays: Sequence[float], average: int, expected: Shapes
) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint.

    Args:
        folder: of the checkpoints.
        decays, average: of the averages of the weights, and which of them to read.

    Raises:
        UsageError: no checkpoint of this step.
        CheckpointError: as `read_tensors`.
    """
    available = checkpoints.steps(folder)
    if step not in available:
        raise UsageError(
            f"checkpoint={step}: {folder.parent} has checkpoints of the steps "
            f"{available or 'none'}; choose one of them."
        )
    prefix = f"average.{average}.module."
    plain_file(folder, f"{checkpoints.name(step)}/{checkpoints.MANIFEST}")
    path = plain_file(folder, f"{checkpoints.name(step)}/{checkpoints.STATE}")
    copies = 3 + len(decays)  # of the weights: the weights, two moments, and the averages
    places = header.read(path, min(copies, _MOST_COPIES))
    names = {f"network.{k.removeprefix(prefix)}": k for k in places if k.startswith(prefix)}
    _check_shapes(path, {new: places[k] for new, k in names.items()}, expected)
    numbers = copies * sum(map(math.prod, expected.values())) + 2 * len(places)
    if sum(place.size for place in places.values()) > 4 * numbers:
        raise CheckpointError(f"{path} holds more than the weights, averages and moments of a run.")
    _check_size(path)
    checkpoint = checkpoints.read(path.parent)
    if checkpoint is None:
        raise CheckpointError(f"{path.parent} is damaged.")
    tensors = {new: checkpoint.tensors[k] for new, k in names.items()}
    _check_finite(path, tensors)
    return tensors


def expected_shapes(config: RunConfig, path: Path) -> Shapes:
    """Return the shapes of the tensors that a configuration describes, without allocating them.

    Args:
        path: of the configuration, for messages.

    Raises:
        CheckpointError: the configuration does not describe a run that could be built.
    """
    classes = config.data.classes
    try:
        shape = build.field_shape(config.train, config.data)
        tensors, numbers = build.network_size(config.train.network, shape, classes)
        if tensors > build.MOST_TENSORS or math.isinf(numbers):
            raise ValueError(
                f"a network of {sizes.words(4 * numbers)} and {tensors:,} tensors or more; at most "
                f"{build.MOST_TENSORS:,} tensors are allowed."
            )
        network = build.outline(config.train.network, shape, classes)
    except ValueError as error:
        raise CheckpointError(f"{path} does not describe a run: {error}") from None
    channels, *rest = shape
    moments = (channels, *[1] * len(rest))
    shapes: Shapes = {f"network.{k}": tuple(v.shape) for k, v in network.state_dict().items()}
    if config.data.codec is not None:
        codec = build.codec_outline(config.data.codec).state_dict()
        shapes |= {f"codec.{k}": tuple(v.shape) for k, v in codec.items()}
    shapes |= {"transform.mean": moments, "transform.std": moments}
    return shapes | dict.fromkeys(("data.mean", "data.variance"), shape)


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
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite.")


def _check_shapes(path: Path, places: header.Places, expected: Shapes) -> None:
    if set(places) != set(expected):
        missing = sorted(set(expected) - set(places))
        extra = sorted(set(places) - set(expected))
        raise CheckpointError(
            f"{path} does not match {CONFIG}: missing tensors {missing[:4]}, unexpected "
            f"tensors {extra[:4]}."
        )
    for name, shape in expected.items():
        place = places[name]
        if place.shape != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {place.shape}, but {CONFIG} describes {shape}."
            )
        if place.dtype != "F32":
            raise CheckpointError(f"{path}: {name} has type {place.dtype}; weights must be F32.")
