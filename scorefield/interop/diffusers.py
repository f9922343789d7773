"""Networks trained with diffusers: a folder saved by it, a pipeline, or a network and a scheduler.

Folders are read without network access, and without running anything that lies in them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield.config import DiffusersConfig
from scorefield.data.rows import Rows
from scorefield.errors import CheckpointError, UsageError
from scorefield.interop.imported import Found, Known
from scorefield.interop.schedulers import made as made_scheduler, noising
from scorefield.interop.weights import read_weights
from scorefield.networks.diffusers import ARCHITECTURES, named
from scorefield.training.run import Run

_NETWORKS = ("unet",)  # what a pipeline may call it
_LARGEST = 2**20  # bytes of a configuration
_WEIGHTS = "diffusion_pytorch_model"
# what attention was called once, and is now
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v."}
_RENAMED |= {".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Part:
    """A network of a source: the name of its class, what that is made with, and its weights."""

    architecture: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]


def load(
    source: str | Path | tuple[Any, Any] | Any,
    *,
    shape: tuple[int, ...] | None = None,
    unconditional: int | None = None,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
    pickle: bool = False,
) -> Run:
    """Return the run of a network that was trained with diffusers.

    Args:
        source: a folder that ``save_pretrained`` wrote, a pipeline, or ``(network, scheduler)``.
        shape: of a sample ``(C, H, W)``; as the network's configuration says unless given.
        unconditional: the class that stands for none, if the network has learned one.
        data_std, levels, data: as in `scorefield.interop.imported.Known`.
        pickle: read weights that are a pickle, where the folder has no others.

    Raises:
        UsageError: a kind of network, scheduler or prediction that is not known; no shape.
        CheckpointError: a folder that is incomplete, or contradicts itself.
        DataError: data of another shape, or not in the levels.
        ImportError: diffusers is not installed.
    """
    known = Known(data_std, levels, data)
    if isinstance(source, str | Path):
        network, scheduler, where = _read(Path(source), pickle)
    else:
        network, scheduler, where = _given(source)
    return _found(network, scheduler, where, shape, unconditional).run(known)


def _found(
    network: Part, scheduler: Any, where: str, shape: tuple[int, ...] | None, none: int | None
) -> Found:
    process, parametrization, label = noising(scheduler)
    settings = network.settings
    held = settings.get("num_class_embeds") or 0
    if none is not None and not 0 <= none < held:
        raise UsageError(
            f"unconditional = {none}: {network.architecture} of {where} has {held} classes."
        )
    return Found(
        source=f"{where}: {network.architecture} with {type(scheduler).__name__}",
        name=Path(where).name,
        shape=_shape(network, shape),
        process=process,
        parametrization=parametrization,
        label=label,
        network=DiffusersConfig(
            architecture=network.architecture,  # type: ignore[arg-type]
            arguments=json.dumps(settings),
            unconditional=none,
        ),
        weights={f"inner.{name}": value for name, value in network.weights.items()},
        classes=held - (none is not None),
        unconditional=none is not None,
    )


def _shape(network: Part, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is not None:
        if len(shape) != 3:
            raise UsageError(f"shape = {shape}: this network takes images, so give (C, H, W).")
        return shape
    side = network.settings.get("sample_size")
    if side is None:
        raise UsageError(
            f"{network.architecture} has no sample_size: say with shape what a sample is, as "
            "(3, 32, 32)."
        )
    sides = side if isinstance(side, list | tuple) else (side, side)
    return (network.settings.get("in_channels", 3), *sides)


def _given(source: Any) -> tuple[Part, Any, str]:
    """Return network and scheduler of a pipeline, or of a pair."""
    if isinstance(source, tuple) and len(source) == 2:
        network, scheduler = source
        where = type(network).__name__
    else:
        where, parts = type(source).__name__, getattr(source, "components", {})
        networks = [parts[name] for name in _NETWORKS if parts.get(name) is not None]
        if not networks or parts.get("scheduler") is None:
            raise UsageError(
                f"{where} is no pipeline with a network ({', '.join(_NETWORKS)}) and a scheduler: "
                "give a folder, such a pipeline, or (network, scheduler)."
            )
        network, scheduler = networks[0], parts["scheduler"]
    architecture = type(network).__name__
    _check_known(architecture, where)
    return (
        Part(architecture, _settings(architecture, network.config), network.state_dict()),
        (scheduler),
        where,
    )


def _check_known(architecture: Any, where: str) -> None:
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"{where}: a network of kind {architecture!r}; known are {', '.join(ARCHITECTURES)}."
        )


def _settings(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a network's class is made with, of its configuration."""
    takes = inspect.signature(named(architecture)).parameters
    return {name: value for name, value in values.items() if name in takes}


def _read(folder: Path, pickle: bool) -> tuple[Part, Any, str]:
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}.")
    held = [name for name in _NETWORKS if (folder / name).is_dir()]
    network = folder / held[0] if held else folder
    values = _json(network / "config.json")
    architecture = values.get("_class_name")
    _check_known(architecture, str(network / "config.json"))
    settings = _settings(str(architecture), values)
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    path = scheduler / "scheduler_config.json"
    made = made_scheduler(_json(path), str(path))
    weights = read_weights(_weights(network, pickle), pickle)
    return Part(str(architecture), settings, _renamed(weights)), made, str(folder)


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        values = json.loads(text[:_LARGEST]) if len(text) <= _LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is no configuration: it holds no JSON object.")
    return values


def _weights(folder: Path, pickle: bool) -> Path:
    """Return the file of weights in a folder."""
    found = sorted(folder.glob(f"{_WEIGHTS}*.safetensors"), key=lambda path: len(path.name))
    if (folder / f"{_WEIGHTS}.safetensors.index.json").exists():
        raise CheckpointError(
            f"{folder} holds weights in several files: save them in one, by save_pretrained with "
            "max_shard_size."
        )
    if found:
        return found[0]
    pickled = folder / f"{_WEIGHTS}.bin"
    return pickled if pickled.exists() else folder / f"{_WEIGHTS}.safetensors"


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by today's names."""
    found = {}
    for name, value in weights.items():
        for old, new in _RENAMED.items():
            name = name.replace(old, new) if "attentions." in name else name
        found[name] = value
    return found
