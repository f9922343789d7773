"""The parts of a pipeline of diffusers, from its folder.

Folders are read without network access and without running code from them. A folder is that of a
pipeline, with subfolders or without; of a network alone; of a training checkpoint, whose averaged
network is ``unet_ema``; or of a repository in the hub's cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.hub import snapshot
from scorefield.interop.contents import described, names_in
from scorefield.interop.pipelines import (
    CODECS_OF,
    COUPLING,
    NETWORKS_OF,
    Part,
    Source,
    checked,
    settings_of,
)
from scorefield.interop.scheduler_process import build_scheduler
from scorefield.interop.settings import read_json
from scorefield.interop.weight_files import read_weights
from scorefield.networks.codec import CODECS
from scorefield.networks.diffusers import ARCHITECTURES

_WEIGHTS = "diffusion_pytorch_model"
# name.variant.safetensors, or the index of several files, with the variant in either place
_FILE = re.compile(rf"{_WEIGHTS}(?:\.(\w+))?\.(?:safetensors|bin)(?:\.index(?:\.(\w+))?\.json)?")
# former and present names of the layers of attention
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v."}
_RENAMED |= {".proj_attn.": ".to_out.0."}


def read_folder(
    source: Path, scheduler: Any, pipeline: str | Path | None, variant: str | None, pickle: bool
) -> Source:
    """Return the parts of a folder.

    Args:
        source: the folder.
        scheduler: instead of that of the folder, if not None.
        pipeline: the folder of a pipeline, which gives the parts that are missing.
        variant: of the weights, such as ``fp16``; by default those without a variant.
        pickle: allow a pickle of weights if the folder contains nothing else.

    Raises:
        CheckpointError: a file is missing or unreadable.
        UsageError: an unsupported network; an unknown variant; a missing scheduler.
    """
    folder = resolve(source)
    folders = [folder] if pipeline is None else [folder, resolve(Path(pipeline))]
    averages = tuple(f"{name}_ema" for name in NETWORKS_OF)
    place = _subfolder(folder, averages + NETWORKS_OF) or folder
    if not (place / "config.json").is_file():
        raise CheckpointError(f"{place} has no config.json of a network: {_content(place)}.")
    if scheduler is None:
        scheduler = next(filter(None, map(read_scheduler, folders)), None)
    if scheduler is None:
        raise UsageError(
            f"pipeline=None: {source} has no scheduler: give the folder of the pipeline that its "
            "network was trained for."
        )
    network = _read_part(place, ARCHITECTURES, pickle, variant)
    codec = next(filter(None, (_subfolder(one, CODECS_OF) for one in folders)), None)
    if codec is None:
        return Source(str(source), network, scheduler)
    own = variant if variant in _variants(codec) else None
    return Source(str(source), network, scheduler, _read_part(codec, CODECS, pickle, own))


def read_codec(folder: Path) -> Part:
    """Return the autoencoder of a folder: of a pipeline, or of the autoencoder alone.

    Raises:
        CheckpointError: a file is missing or unreadable.
        UsageError: an unsupported autoencoder.
    """
    folder = resolve(folder)
    return _read_part(_subfolder(folder, CODECS_OF) or folder, CODECS, False, None)


def resolve(folder: Path) -> Path:
    """Return a folder, or its snapshot in the hub's cache."""
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist.")
    return snapshot(folder)


def read_scheduler(folder: Path) -> Any | None:
    """Return the scheduler of a folder, if it has one.

    Raises:
        CheckpointError: an unreadable configuration.
    """
    path = (_subfolder(folder, ("scheduler",)) or folder) / "scheduler_config.json"
    return build_scheduler(read_json(path, folder), str(path)) if path.is_file() else None


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _read_part(folder: Path, supported: tuple[str, ...], pickle: bool, variant: str | None) -> Part:
    values = read_json(folder / "config.json", folder)
    name = values.get("_class_name")
    if name == "Transformer2DModel" and values.get("norm_type") == "ada_norm_zero":
        name = "DiTTransformer2DModel"  # its former name
    architecture = checked(name, supported, str(folder / "config.json"))
    weights = _rename(_read(_weights(folder, variant), pickle))
    pairs = values.get(COUPLING, "independent")
    return Part(architecture, settings_of(architecture, values), weights, pairs)


def _content(folder: Path) -> str:
    """Return a clause on the first weights in a folder, for a message."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return "give the folder of a pipeline, of its network, or of a training checkpoint"
    return f"of {files[0].name}, {described(names_in(files[0]))}"


def _variants(folder: Path) -> dict[str, Path]:
    """Return the weights of each variant: a file, or the index of several; .bin only if alone."""
    files = sorted(folder.iterdir(), key=lambda path: (".safetensors" in path.name, path.name))
    matches = [(path, _FILE.fullmatch(path.name)) for path in files]
    return {match[1] or match[2] or "": path for path, match in matches if match}


def _weights(folder: Path, variant: str | None) -> Path:
    """Return the file or the index of the weights in a folder."""
    files = _variants(folder)
    names = ", ".join(sorted(filter(None, files)))
    if not files:
        raise CheckpointError(
            f"{folder} has no weights {_WEIGHTS}.safetensors: give a folder with them."
        )
    if variant is not None and variant not in files:
        raise UsageError(f"variant={variant!r}: {folder} has {names or 'no variants'}.")
    if variant is None and "" not in files and len(files) > 1:
        raise UsageError(f"variant=None: {folder} has several: give one of {names}.")
    return files[variant or ("" if "" in files else min(files))]


def _read(path: Path, pickle: bool) -> dict[str, Tensor]:
    """Return the tensors of a file, or of all files of an index."""
    folder = path.parent
    if path.suffix != ".json":
        return read_weights(path, pickle, folder)
    places = read_json(path, folder).get("weight_map")
    files = {str(name) for name in places.values()} if isinstance(places, dict) else {""}
    if not all(name and Path(name).name == name for name in files):
        raise CheckpointError(f"{path} is not an index: weight_map must name files next to it.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(files):
        tensors |= read_weights(path.with_name(name), pickle, folder)
    return tensors


def _rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by their present names."""
    result = {}
    for name, value in weights.items():
        new = name
        for old, now in _RENAMED.items() if "attentions." in name else ():
            new = new.replace(old, now)
        result[new] = value
    return result
