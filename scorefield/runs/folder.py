"""What a run folder holds, checked before a byte of it is believed.

What the weights' file declares in its header is compared with its size and with the configuration
before anything is allocated, so that a folder from anywhere costs no more than its files do.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scorefield._internal import sizes, toml
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.runs import build, header
from scorefield.training import checkpoint as checkpoints
from scorefield.training.config import RunConfig

WEIGHTS, CONFIG = "model.safetensors", "config.toml"
CHECKPOINTS, PLANS, FRONTIER = "checkpoints", "plans", "frontier.json"

# what is said of training in the configuration of a run that was imported says nothing
_TRAINING = {"train": {"weighting", "times", "optim", "held_out", "seed"}}

Shapes = dict[str, tuple[int, ...]]


def read(
    folder: Path, ema: float | None = None, checkpoint: int | None = None
) -> tuple[RunConfig, dict[str, Tensor]]:
    """Return a run folder's configuration, and tensors that match it.

    Args:
        ema: the decay of the average of the weights; the run's first unless given.
        checkpoint: the step that a kept checkpoint is of; the last step unless given.

    Raises:
        CheckpointError: a file is missing, unreadable, no part of the folder or larger than memory;
            or the weights do not match the configuration.
        UsageError: an average or a checkpoint that the run does not have.
    """
    config = _read_config(folder)
    decays = config.train.optim.ema
    if ema is not None and ema not in decays:
        known = ", ".join(map(str, decays))
        raise UsageError(f"{folder} has no average of decay {ema:g}: it has {known}.")
    number = 0 if ema is None else decays.index(ema)
    expected = _expected(config, folder / CONFIG)
    tensors = _read_tensors(_inside(folder, WEIGHTS), expected)
    network = {name: shape for name, shape in expected.items() if name.startswith("network.")}
    if checkpoint is not None:
        tensors |= _read_checkpoint(folder, checkpoint, number, len(decays), network)
    elif number:
        tensors |= _read_tensors(_inside(folder, average_name(decays[number])), network)
    _check_moments(folder / WEIGHTS, tensors)
    return config, tensors


def _read_checkpoint(
    folder: Path, step: int, average: int, averages: int, expected: Shapes
) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint that was kept."""
    known = checkpoints.steps(folder / CHECKPOINTS)
    if step not in known:
        raise UsageError(f"{folder} has no checkpoint of step {step}: it has {known or 'none'}.")
    name, prefix = f"{CHECKPOINTS}/{checkpoints.name(step)}", f"average.{average}.module."
    _inside(folder, f"{name}/{checkpoints.MANIFEST}")
    path = _inside(folder, f"{name}/{checkpoints.STATE}")
    copies = 3 + averages  # of the weights: themselves, the averages and two moments
    # a configuration may claim any number of averages, and that is no reason to read as many
    places = header.read(path, min(copies, 16))
    names = {f"network.{k.removeprefix(prefix)}": k for k in places if k.startswith(prefix)}
    _check_shapes(path, {new: places[k] for new, k in names.items()}, expected)
    numbers = copies * sum(map(math.prod, expected.values())) + 2 * len(places)
    if sum(place.size for place in places.values()) > 4 * numbers:
        raise CheckpointError(f"{path} holds more than the weights, averages and moments of a run.")
    _check_size(path)
    found = checkpoints.read(path.parent)
    if found is None:
        raise CheckpointError(f"{path.parent} is damaged.")
    weights = {new: found.tensors[k] for new, k in names.items()}
    _check_finite(path, weights)
    return weights


def settings(config: RunConfig) -> dict[str, Any]:
    """Return what there is to say of a configuration."""
    idle = None if config.source is None else _TRAINING
    found = config.model_dump(exclude_none=True, exclude=idle)
    return found | {"data": config.data.model_dump(exclude_defaults=True)}


def text(config: RunConfig) -> str:
    """Return a configuration as the folder's file holds it."""
    return tomli_w.dumps(settings(config))


def check_kept(config: RunConfig) -> None:
    """Refuse a configuration that a folder could not hold, or that could not be read from it.

    Raises:
        UsageError: with what to change.
    """
    try:
        RunConfig.model_validate(toml.parse(text(config).encode()))
    except UnicodeEncodeError as error:
        before, after = error.object[: error.start], error.object[error.start :]
        near = before.rpartition("\n")[2][-60:] + after.partition("\n")[0][:60]
        raise UsageError(
            f"{near!r}: {CONFIG} can hold no name that is not UTF-8: rename the file, its columns "
            "or classes."
        ) from None
    except ValueError as error:
        raise UsageError(
            f"{config.data.name}: {CONFIG} would be refused when the run is loaded: {error}; take "
            "fewer columns and categories, or shorter names."
        ) from None


def average_name(decay: float) -> str:
    """Return the name of the file of weights averaged with another decay than the first."""
    return f"ema-{decay}.safetensors"


def _read_tensors(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """Return finite tensors of the expected names and shapes."""
    _check_shapes(path, header.read(path), expected)
    _check_size(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    _check_finite(path, tensors)
    return tensors


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > sizes.memory():
        raise CheckpointError(
            f"{path} holds {sizes.words(size)}, and there are {sizes.words(sizes.memory())} of "
            "memory: take a machine with more."
        )


def _check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite.")


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a plain file of the folder itself."""
    path = folder / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise CheckpointError(f"{path} leads out of its folder, to {real}: put the file there.")
    if not real.is_file():
        raise CheckpointError(f"{path} cannot be read: there is no such file.")
    return path


def _read_config(folder: Path) -> RunConfig:
    if not folder.is_dir():
        raise CheckpointError(f"there is no run folder {folder}: train one first.")
    path = _inside(folder, CONFIG)
    try:
        return RunConfig.model_validate(toml.read(path))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{path} is no run's configuration: {place}: {first['msg']}."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _expected(config: RunConfig, path: Path) -> Shapes:
    """Return the shapes of the tensors that a configuration describes, without making them."""
    classes = config.data.classes
    try:
        shape = build.field_shape(config.train, config.data)
        tensors, numbers = build.network_size(config.train.network, shape, classes)
        if tensors > build.MOST_TENSORS or math.isinf(numbers):
            raise ValueError(
                f"a network of {sizes.words(4 * numbers)} and {tensors:,} tensors or more, where "
                f"{build.MOST_TENSORS:,} are the most."
            )
        network = build.outline(config.train.network, shape, classes)
    except ValueError as error:
        raise CheckpointError(f"{path} describes no run: {error}") from None
    channels, *rest = shape
    moments = (channels, *[1] * len(rest))
    shapes: Shapes = {f"network.{k}": tuple(v.shape) for k, v in network.state_dict().items()}
    if config.data.codec is not None:
        codec = build.codec_outline(config.data.codec).state_dict()
        shapes |= {f"codec.{k}": tuple(v.shape) for k, v in codec.items()}
    shapes |= {"transform.mean": moments, "transform.std": moments}
    return shapes | dict.fromkeys(("data.mean", "data.variance"), shape)


def _check_shapes(path: Path, held: header.Places, expected: Shapes) -> None:
    if set(held) != set(expected):
        missing = sorted(set(expected) - set(held))
        extra = sorted(set(held) - set(expected))
        raise CheckpointError(
            f"{path} does not match {CONFIG}: it lacks {missing[:4]} and has {extra[:4]} besides."
        )
    for name, shape in expected.items():
        found = held[name].shape
        if found != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {found}, but {CONFIG} describes {shape}."
            )
        if held[name].dtype != "F32":
            raise CheckpointError(
                f"{path}: {name} holds {held[name].dtype}, where weights are F32."
            )


def _check_moments(path: Path, tensors: dict[str, Tensor]) -> None:
    if not bool((tensors["transform.std"] > 0).all()):
        raise CheckpointError(f"{path}: transform.std holds a deviation that is not positive.")
    variance = tensors["data.variance"]
    if not bool((variance >= 0).all() and (variance > 0).any()):
        raise CheckpointError(f"{path}: data.variance holds one that is negative, or none above 0.")
