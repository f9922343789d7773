"""Checkpoints of a training run in progress: whole or not there.

A checkpoint is a folder of weights and a manifest with their digest. It is written aside, brought
to the disk, and only then takes its name; only after that are older ones removed. One that was
damaged since is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save as serialise
from torch import Tensor

from scorefield.errors import StorageError, UsageError
from scorefield.files import differing, publish

_STATE, _MANIFEST = "state.safetensors", "manifest.json"
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a training run goes on from.

    Attributes:
        tensors: weights, their average, and the optimizer's moments.
        facts: what the run is of, and how far it is, in JSON's types.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def folder_of(out: Path) -> Path:
    """Return where the checkpoints of a run lie until it is finished: beside its folder."""
    return out.with_name(f".{out.name}.training")


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step, then remove all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    data = serialise({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    manifest = {"sha256": hashlib.sha256(data).hexdigest(), "step": step, "facts": dict(facts)}
    aside = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        (aside / _STATE).write_bytes(data)
        (aside / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        target = folder / f"{step:09d}"
        if target.exists():
            shutil.rmtree(target)
        publish(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for old in _steps(folder)[:-_KEPT]:
        shutil.rmtree(old)


def newest(folder: Path) -> Checkpoint | None:
    """Return the last checkpoint that is as it was written, or None if there is none at all.

    Raises:
        StorageError: there are checkpoints, and all are damaged.
    """
    found = _steps(folder)
    for path in reversed(found):
        kept = _read(path)
        if kept is not None:
            return kept
    if found:
        raise StorageError(f"all checkpoints in {folder} are damaged: remove it to begin again.")
    return None


def check_same(folder: Path, kept: Checkpoint, facts: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        UsageError: naming what differs.
    """
    names = differing({name: kept.facts.get(name) for name in facts}, facts)
    if names:
        raise UsageError(
            f"{folder} holds an unfinished run that differs in {names}: go on with its "
            "settings and data, give another --out, or remove it."
        )


def _steps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdigit())


def _read(path: Path) -> Checkpoint | None:
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        data = (path / _STATE).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            return None
        return Checkpoint(load(data), dict(manifest["facts"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
