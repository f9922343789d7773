"""The parts of a pipeline of diffusers, from its folder or from objects.

Folders are read without network access, and without running anything that lies in them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.interop.schedulers import made as made_scheduler
from scorefield.interop.settings import read_json
from scorefield.interop.weights import read_weights
from scorefield.networks.codec import CODECS
from scorefield.networks.diffusers import ARCHITECTURES, named

# what a pipeline may call its network, and what makes latents
_NETWORKS, _CODECS = ("unet", "transformer"), ("vae", "vqvae")
_WEIGHTS = "diffusion_pytorch_model"
# what attention was called once, and is now
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v."}
_RENAMED |= {".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Part:
    """A network: the name of its class, what that is made with, and its weights."""

    architecture: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def inner(self) -> dict[str, Tensor]:
        """The weights, by the names that they have in networks of ours around theirs."""
        return {f"inner.{name}": value for name, value in self.weights.items()}


@dataclass(frozen=True)
class Source:
    """What there is to import, and where it was found, in words."""

    where: str
    network: Part
    scheduler: Any
    codec: Part | None = None


def given(source: Any) -> Source:
    """Return the parts of a pipeline, or of a pair of network and scheduler.

    Raises:
        UsageError: another object, or a network of a kind that is not known.
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
            f"{where} is no pipeline with a network ({', '.join(_NETWORKS)}) and a scheduler: give "
            "a folder, such a pipeline, or (network, scheduler)."
        )
    return Source(
        where,
        _part(network, ARCHITECTURES, where),
        scheduler,
        None if codec is None else _part(codec, CODECS, where),
    )


def _first(source: Any, names: tuple[str, ...]) -> Any:
    found = (getattr(source, name, None) for name in names)
    return next((part for part in found if part is not None), None)


def _part(module: Any, known: tuple[str, ...], where: str) -> Part:
    architecture = _known(type(module).__name__, known, where)
    return Part(architecture, _settings(architecture, module.config), module.state_dict())


def _known(architecture: Any, known: tuple[str, ...], where: str) -> str:
    if architecture not in known:
        raise UsageError(
            f"{where}: a network of kind {architecture!r}; known are {', '.join(known)}."
        )
    return str(architecture)


def _settings(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a network's class is made with, as its configuration and defaults say."""
    takes = inspect.signature(named(architecture)).parameters
    return {name: values.get(name, parameter.default) for name, parameter in takes.items()}


def read(folder: Path, pickle: bool) -> Source:
    """Return the parts of a pipeline's folder; of older ones all lie in the folder itself.

    Args:
        pickle: read weights that are a pickle, where there are no others.

    Raises:
        CheckpointError: a file is missing or unreadable.
        UsageError: a network of a kind that is not known.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}.")
    network = _read_part(_folder(folder, _NETWORKS) or folder, ARCHITECTURES, pickle)
    path = (_folder(folder, ("scheduler",)) or folder) / "scheduler_config.json"
    codec = _folder(folder, _CODECS)
    return Source(
        str(folder),
        network,
        made_scheduler(read_json(path), str(path)),
        None if codec is None else _read_part(codec, CODECS, pickle),
    )


def _folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _read_part(folder: Path, known: tuple[str, ...], pickle: bool) -> Part:
    values = read_json(folder / "config.json")
    name = values.get("_class_name")
    if name == "Transformer2DModel" and values.get("norm_type") == "ada_norm_zero":
        name = "DiTTransformer2DModel"  # as it was called once
    architecture = _known(name, known, str(folder / "config.json"))
    weights = _renamed(read_weights(_weights(folder), pickle))
    return Part(architecture, _settings(architecture, values), weights)


def _weights(folder: Path) -> Path:
    """Return the file of weights in a folder."""
    for kind in ("safetensors", "bin"):
        if any(folder.glob(f"{_WEIGHTS}*.{kind}.index*.json")):
            raise CheckpointError(
                f"{folder} holds weights in several files: save them in one, by save_pretrained "
                "with max_shard_size."
            )
        found = sorted(folder.glob(f"{_WEIGHTS}*.{kind}"), key=lambda p: (len(p.name), p.name))
        if found:
            return found[0]  # the shortest name, which is of no variant if there is one
    return folder / f"{_WEIGHTS}.safetensors"


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by today's names."""
    found = {}
    for name, value in weights.items():
        new = name
        for old, now in _RENAMED.items() if "attentions." in name else ():
            new = new.replace(old, now)
        found[new] = value
    return found
