"""Runs from their folders, and from denoisers of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from scorefield._internal.devices import find_device
from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield.data import Standardize
from scorefield.data.config import DataConfig, PointsConfig
from scorefield.data.lengths import moments, shares_of
from scorefield.field import Denoiser, Label, Parametrization, check_starts_at_noise
from scorefield.process import Process
from scorefield.runs import build
from scorefield.runs.folder import RunFolder
from scorefield.runs.run import Run
from scorefield.runs.weights import CONFIG
from scorefield.training.config import CouplingKind, RunConfig, TrainConfig

if TYPE_CHECKING:
    from scorefield.data import Data

Network = nn.Module | Callable[[], nn.Module]

OBJECTS = ("network", "process", "parametrization", "label")
_SHOWN = 100  # characters of a name that a folder gives


def load(
    folder: str | PathLike[str],
    *,
    network: Network | None = None,
    process: Process | None = None,
    parametrization: Parametrization | None = None,
    label: Label | None = None,
    ema: float | None = None,
    checkpoint: int | None = None,
    device: str | torch.device = "cpu",
) -> Run:
    """Rebuild a run from its folder: field, process, parametrization and data transform.

    Objects of your own are not in the folder, only their weights: pass them again. Nothing that a
    folder names is imported.

    Args:
        network: your own network, with weights of any values: a module, a function without
            arguments that returns one, or a `scorefield.Denoiser` with its own process,
            parametrization and label.
        process, parametrization, label: your own, if the run has them.
        ema: the decay of the average of the weights, one of ``optim.ema``; by default the first.
        checkpoint: the step of a checkpoint that was kept; by default the last step.
        device: where the network runs: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        CheckpointError: a file is missing, unreadable or changed, or the weights do not match the
            configuration or the network; before memory is allocated.
        UsageError: the run has no such average or checkpoint; an object of your own is missing, or
            does not match the configuration; a device that is not available here.
    """
    where = find_device(device)
    others = {"process": process, "parametrization": parametrization, "label": label}
    passed = {name: value for name, value in others.items() if value is not None}
    files, objects = RunFolder(folder), build.Objects.of(_module(network), **passed)
    _check_objects(files, objects)
    if objects.network is not None:
        space = build.process(files.config.train.process, objects.process).space
        objects = objects if space is None else build.objects_on(space, objects)
    tensors = files.tensors(ema, checkpoint, objects.network)
    config = _with_average(files.config, ema)
    try:
        denoiser = new_denoiser(config.train, config.data, objects=objects)
    except ValueError as error:
        raise CheckpointError(f"{files.path / CONFIG} does not describe a run: {error}") from None
    files.check_unchanged()
    if objects.network is not None:
        build.check_network(denoiser, config.data, config.train.dropout > 0)
    state = denoiser.network.state_dict()
    denoiser.network.load_state_dict({k: tensors[f"network.{k}"] for k in state})
    denoiser.mean, denoiser.variance = tensors["data.mean"], tensors["data.variance"]
    denoiser.to(where).eval()
    maps = None
    if "quantiles.data" in tensors:
        from scorefield.data.monotone import Quantiles

        maps = Quantiles(tensors["quantiles.data"], tensors["quantiles.field"])
    transform = Standardize(tensors["transform.mean"], tensors["transform.std"], maps)
    codec = None
    if config.data.codec is not None:
        codec = build.codec_of(config.data.codec, config.data.shape, tensors).to(where).eval()
    classes = {c.key for c in config.data.conditions if c.kind == "class"}
    examples = {key: tensors[f"examples.{key}"] for key in config.data.examples}
    examples = {key: v.long() if key in classes else v for key, v in examples.items()}
    return Run(denoiser, transform, config, codec=codec, folder=files, examples=examples)


def _with_average(config: RunConfig, ema: float | None) -> RunConfig:
    """Return a configuration that lists the one average that was loaded."""
    optim = config.train.optim
    optim = optim.model_copy(update={"ema": optim.ema[:1] if ema is None else (ema,)})
    return config.model_copy(update={"train": config.train.model_copy(update={"optim": optim})})


def _module(network: Network | None) -> nn.Module | None:
    """Return a module, or the module that a factory makes."""
    if network is None or isinstance(network, nn.Module):
        return network
    try:
        module = network() if callable(network) else network
    except TypeError as error:
        if not isinstance(network, type):
            raise
        name = network.__name__
        raise UsageError(f"network={name}: {error}; pass an instance, {name}(...).") from None
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"network={network!r}: pass a module, a function without arguments that returns one, "
            "or a Denoiser."
        )
    return module


def _check_objects(files: RunFolder, objects: build.Objects) -> None:
    """Reject objects that are missing, and objects that are not those of the configuration."""
    config, described = files.config.train, objects.described(files.config.train)
    for name in OBJECTS:
        saved, passed = getattr(config, name), getattr(objects, name)
        if saved.kind == "custom" and passed is None:
            raise UsageError(
                f"{name}=None: the {name} of this run is your own ({saved.name[:_SHOWN]!r}). Pass "
                f"it again, as in scorefield.load({str(files.path)!r}, {name}=...), or pass a "
                "whole Denoiser as network; at the command line, --network package.module:factory."
            )
        now = getattr(described, name)
        same = now == saved or now.kind == saved.kind == "custom" or name == "network"
        if passed is not None and not same:
            raise UsageError(f"{name}={passed!r}: the run has another one, of kind {saved.kind}.")


def with_coupling(run: Run, coupling: str) -> Run:
    """Return a run whose network was trained with a coupling of data and noise.

    Raises:
        UsageError: another coupling than those of `TrainConfig`.
    """
    try:
        train = TrainConfig.model_validate({**dict(run.config.train), "coupling": coupling})
    except ValidationError:
        raise UsageError(
            f"coupling={coupling!r}: must be one of {', '.join(get_args(CouplingKind))}."
        ) from None
    field = run.field.around(run.field.network, coupled=coupling != "independent")
    config = run.config.model_copy(update={"train": train})
    return replace(run, field=field.train(run.field.training), config=config)


def run_of(
    denoiser: Denoiser,
    data: Any,
    name: str,
    transform: Standardize | None,
    settings: dict[str, Any],
) -> Run:
    """Return a run of any denoiser; see `Run.of`."""
    from scorefield.data.source import as_data, as_points

    check_starts_at_noise(denoiser)
    if denoiser.coupled:
        settings = {**settings, "coupling": "other"}
    train = build.Objects.of(denoiser).described(TrainConfig(**settings))
    items = None if data is None else as_data(data)
    if train.conditional and (items is None or not items.conditions):
        raise UsageError(
            "conditional=True: pass data with conditions, scorefield.Data(x, conditions)."
        )
    points, space = PointsConfig(), build.space_of(train)
    if space is not None:
        from scorefield.data.points import declared

        points = declared(denoiser.process.space, math.prod(denoiser.shape), None, name)
        items = None if items is None else as_points(items, denoiser.process.space, None)
    if items is None:
        about = DataConfig(name=name, shape=denoiser.shape, points=points)
    else:
        about = describe_data(items, train)
    encoding = build.encoding(train, about)
    shape = encoding.shape(about.shape)
    if shape != denoiser.shape:
        raise ValueError(
            f"denoiser: its samples have shape {denoiser.shape}, but data of shape {about.shape} "
            f"is encoded as vectors of shape {shape}."
        )
    if transform is None:
        sides = (shape[0], *[1] * (len(shape) - 1))
        transform = Standardize(torch.zeros(sides), torch.ones(sides))
    mean, variance = denoiser.mean, denoiser.variance
    if items is not None:
        mean, variance = moments(about, *encoding.moments(items.x), len(items.x))
        mean = transform.forward(mean).float()
        variance = (variance / transform.std.double() ** 2).float()
    parts = denoiser.network, denoiser.process, denoiser.parametrization
    field = Denoiser(*parts, shape, mean, variance, denoiser.label, denoiser.coupled)
    build.check_network(field, about, train.dropout > 0)
    examples = {} if items is None else examples_of(items, about, torch.arange(len(items.x)))
    return Run(field.eval(), transform, RunConfig(data=about, train=train), examples=examples)


def examples_of(data: Data, about: DataConfig, items: Tensor) -> dict[str, Tensor]:
    """Return the conditions of some of the items, by their numbers, spread over them."""
    return {
        key: data.conditions.values[key][items[torch.linspace(0, len(items) - 1, count).long()]]
        for key, (count, *_) in about.examples.items()
    }


def describe_data(data: Data, config: TrainConfig) -> DataConfig:
    """Return the configuration of the data that a run learns."""
    columns = data.columns
    if config.levels:
        columns = columns.model_copy(update={"kinds": (), "quantiles": 0})
    return DataConfig(
        name=data.name,
        shape=data.shape,
        count=len(data.x),
        conditions=data.conditions.channels if config.conditional else (),
        lengths=_lengths(data, config),
        columns=columns,
        points=data.points,
        reading=data.reading,
    )


def _lengths(data: Data, config: TrainConfig) -> tuple[tuple[int, float], ...]:
    """Return the lengths of signals with their shares, if there are several."""
    if len(data.shape) != 2:
        return ()
    shares = shares_of(data.x, data.name)
    if shares and config.levels:
        raise DataError(f"levels={config.levels}: not for signals of several lengths; use 0.")
    return tuple(shares.items())


def new_denoiser(
    config: TrainConfig,
    data: DataConfig,
    mean: float | Tensor = 0.0,
    variance: float | Tensor = 1.0,
    objects: build.Objects = build.NONE,
) -> Denoiser:
    """Return an untrained denoiser: of the user's objects, or weights that the seed decides."""
    shape, network = build.field_shape(config, data), objects.network
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = build.network(build.Design.of(config, data))
    parametrization = build.parametrization(config.parametrization, objects.parametrization)
    process = build.process(config.process, objects.process)
    label = build.label(config.label, objects.label)
    coupled = config.coupling != "independent"
    ends = coupled, data.source is not None, config.bridge
    return Denoiser(network, process, parametrization, shape, mean, variance, label, *ends)
