"""The parts of a pipeline of diffusers."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.config import CodecConfig
from scorefield.interop.contents import FIELD
from scorefield.networks.codec import CODECS, DiffusersCodec
from scorefield.networks.diffusers import ARCHITECTURES, network_class
from scorefield.runs import build

# names of the network and of the autoencoder in a pipeline
NETWORKS_OF, CODECS_OF = ("unet", "transformer"), ("vae", "vqvae")


# the entry of a network's configuration with the coupling of data and noise that it was trained on
COUPLING = "scorefield_coupling"


@dataclass(frozen=True)
class Part:
    """A network: the name of its class, its arguments, its weights, and `COUPLING`."""

    architecture: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    coupling: str = "independent"

    @property
    def inner(self) -> dict[str, Tensor]:
        """The weights by their names in our wrapper, which calls the network ``inner``."""
        return {f"inner.{name}": value for name, value in self.weights.items()}


@dataclass(frozen=True)
class Source:
    """The parts to import, and a description of their place."""

    where: str
    network: Part
    scheduler: Any
    codec: Part | None = None


def source_of(pipeline: Any) -> Source:
    """Return the parts of a pipeline.

    Raises:
        UsageError: another object, or an unsupported network.
    """
    where = type(pipeline).__name__
    network, scheduler, codec = (
        _first(pipeline, names) for names in (NETWORKS_OF, ("scheduler",), CODECS_OF)
    )
    if network is None or scheduler is None:
        raise UsageError(
            f"{where} is not a pipeline with a network ({', '.join(NETWORKS_OF)}) and a scheduler: "
            "give a folder, such a pipeline, or (network, scheduler)."
        )
    return Source(
        where,
        part_of(network, ARCHITECTURES, where),
        scheduler,
        None if codec is None else part_of(codec, CODECS, where),
    )


def _first(source: Any, names: tuple[str, ...]) -> Any:
    parts = (getattr(source, name, None) for name in names)
    return next((part for part in parts if part is not None), None)


def part_of(module: Any, supported: tuple[str, ...] = ARCHITECTURES, where: str = "") -> Part:
    """Return the part that a module of diffusers is, with its adapters merged.

    Raises:
        UsageError: an unsupported network.
    """
    name = type(module).__name__
    architecture = checked(name, supported, where or name)
    pairs = dict(module.config).get(COUPLING, "independent")
    return Part(architecture, settings_of(architecture, module.config), _merged(module), pairs)


def _merged(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module; those of layers with LoRA include their active adapters."""
    adapted: Any = {n: layer for n, layer in module.named_modules() if hasattr(layer, "base_layer")}
    weights = {
        name: value
        for name, value in module.state_dict().items()
        if not any(name.startswith(f"{layer}.") for layer in adapted)
    }
    for name, layer in adapted.items():
        if not (layer.merged or layer.disable_adapters):
            layer = copy.deepcopy(layer)
            layer.merge()
        base = layer.base_layer.state_dict()
        weights |= {f"{name}.{key}": value for key, value in base.items()}
    return weights


def checked(architecture: Any, supported: tuple[str, ...], where: str) -> str:
    """Return the name of a supported class.

    Raises:
        UsageError: another name.
    """
    if architecture not in supported:
        raise UsageError(
            f"{where}: the network is {architecture!r}: must be one of {', '.join(supported)}; "
            f"{FIELD}."
        )
    return str(architecture)


def settings_of(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a network's class, from its configuration or the defaults."""
    parameters = inspect.signature(network_class(architecture)).parameters
    return {name: values.get(name, parameter.default) for name, parameter in parameters.items()}


def codec_config(part: Part, where: str) -> CodecConfig:
    """Return the configuration of an autoencoder.

    Raises:
        UsageError: latents that are scaled by channel.
        CheckpointError: a scale that is not a number.
    """
    settings = part.settings
    if settings.get("latents_mean") is not None or settings.get("latents_std") is not None:
        raise UsageError(
            f"{where}: autoencoders with latents_mean or latents_std are not supported; {FIELD}."
        )
    scale, shift = settings.get("scaling_factor", 0.18215), settings.get("shift_factor") or 0.0
    if not all(isinstance(v, int | float) for v in (scale, shift)) or not 0 < scale < float("inf"):
        raise CheckpointError(
            f"{where}: scaling_factor={scale!r}, shift_factor={shift!r}: must be finite numbers."
        )
    return CodecConfig(
        architecture=part.architecture,  # type: ignore[arg-type]
        arguments=json.dumps(settings),
        scale=scale,
        shift=shift,
    )


def image_shape(latents: tuple[int, ...], codec: CodecConfig, where: str) -> tuple[int, ...]:
    """Return the shape of the pictures that have latents of a shape.

    Raises:
        CheckpointError: latents with other channels than those of the autoencoder.
    """
    try:
        outline = build.codec_outline(codec)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None
    assert isinstance(outline, DiffusersCodec)
    channels, *sides = latents
    if outline.latents != channels:
        raise CheckpointError(
            f"{where} has {channels} channels, and the latents of {codec.architecture} have "
            f"{outline.latents}."
        )
    return (outline.channels, *(outline.factor * side for side in sides))
