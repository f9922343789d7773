"""The parts of a pipeline of diffusers, from its folder or from objects.

Folders are read without network access and without running code from them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.interop.scheduler_process import build_scheduler
from scorefield.interop.settings import read_json
from scorefield.interop.weight_files import read_weights
from scorefield.networks.codec import CODECS
from scorefield.networks.diffusers import ARCHITECTURES, network_class

# names of the network and of the autoencoder in a pipeline
_NETWORKS, _CODECS = ("unet", "transformer"), ("vae", "vqvae")
_WEIGHTS = "diffusion_pytorch_model"
# former and present names of the layers of attention
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v."}
_RENAMED |= {".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Part:
    """A network: the name of its class, its arguments, and its weights."""

    architecture: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]

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


def source_of(source: Any) -> Source:
    """Return the parts of a pipeline, or of a pair of network and scheduler.

    Raises:
        UsageError: another object, or an unsupported network.
    """
    if isinstance(source, tuple) and len(source) == 2:
        where = type(source[0]).__name__
        return Source(where, _part(source[0], ARCHITECTURES, where), source[1])
    where = type(source).__name__
    network, scheduler, codec = (
        _first(source, names) for names in (_NETWORKS, ("scheduler",), _CODECS)
    )
    if network is None or scheduler is None:
        raise UsageError(
            f"{where} is not a pipeline with a network ({', '.join(_NETWORKS)}) and a scheduler: "
            "give a folder, such a pipeline, or (network, scheduler)."
        )
    return Source(
        where,
        _part(network, ARCHITECTURES, where),
        scheduler,
        None if codec is None else _part(codec, CODECS, where),
    )


def _first(source: Any, names: tuple[str, ...]) -> Any:
    parts = (getattr(source, name, None) for name in names)
    return next((part for part in parts if part is not None), None)


def _part(module: Any, supported: tuple[str, ...], where: str) -> Part:
    architecture = _checked(type(module).__name__, supported, where)
    return Part(architecture, _settings(architecture, module.config), module.state_dict())


def _checked(architecture: Any, supported: tuple[str, ...], where: str) -> str:
    if architecture not in supported:
        raise UsageError(
            f"{where}: the network is {architecture!r}: must be one of {', '.join(supported)}."
        )
    return str(architecture)


def _settings(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a network's class, from its configuration or the defaults."""
    parameters = inspect.signature(network_class(architecture)).parameters
    return {name: values.get(name, parameter.default) for name, parameter in parameters.items()}


def read_folder(folder: Path, pickle: bool) -> Source:
    """Return the parts of a pipeline's folder; older ones have no subfolders.

    Args:
        folder: written by ``save_pretrained``.
        pickle: allow a pickle of weights if the folder contains nothing else.

    Raises:
        CheckpointError: a file is missing or unreadable.
        UsageError: an unsupported network.
    """
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist.")
    network = _read_part(_folder(folder, _NETWORKS) or folder, ARCHITECTURES, pickle)
    path = (_folder(folder, ("scheduler",)) or folder) / "scheduler_config.json"
    codec = _folder(folder, _CODECS)
    return Source(
        str(folder),
        network,
        build_scheduler(read_json(path), str(path)),
        None if codec is None else _read_part(codec, CODECS, pickle),
    )


def _folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _read_part(folder: Path, supported: tuple[str, ...], pickle: bool) -> Part:
    values = read_json(folder / "config.json")
    name = values.get("_class_name")
    if name == "Transformer2DModel" and values.get("norm_type") == "ada_norm_zero":
        name = "DiTTransformer2DModel"  # its former name
    architecture = _checked(name, supported, str(folder / "config.json"))
    weights = _rename(read_weights(_weights(folder), pickle))
    return Part(architecture, _settings(architecture, values), weights)


def _weights(folder: Path) -> Path:
    """Return the file of weights in a folder."""
    for kind in ("safetensors", "bin"):
        if any(folder.glob(f"{_WEIGHTS}*.{kind}.index*.json")):
            raise CheckpointError(
                f"{folder} has weights in several files: save them in one, with max_shard_size."
            )
        files = sorted(folder.glob(f"{_WEIGHTS}*.{kind}"), key=lambda p: (len(p.name), p.name))
        if files:
            return files[0]  # the shortest name belongs to no variant
    return folder / f"{_WEIGHTS}.safetensors"


def _rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by their present names."""
    result = {}
    for name, value in weights.items():
        new = name
        for old, now in _RENAMED.items() if "attentions." in name else ():
            new = new.replace(old, now)
        result[new] = value
    return result
