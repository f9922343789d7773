"""Checkpoints of a training run in progress, each whole or absent.

A checkpoint is a folder of weights and a manifest, with a digest of both. It is written under a
temporary name, synchronised with the disk and then renamed; only after that are others removed. A
damaged one is skipped for the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save as serialise
from torch import Tensor

from scorefield._internal import files
from scorefield._internal.atomic_files import differing, in_room, publish
from scorefield._internal.errors import StorageError, UsageError
from scorefield._internal.lock import NAME as LOCK
from scorefield.training.config import TrainConfig

STATE, MANIFEST = "state.safetensors", "manifest.json"
_RECENT = 2
# minutes become steps, and a training that diverged may continue at a lower rate
_CHANGES = ("lr", "steps", "minutes")
_LARGEST = 1 << 22  # bytes of a manifest; the longest table of times takes a twentieth


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a training run continues.

    Attributes:
        tensors: weights, their averages, and the optimizer's moments.
        facts: settings, data and progress of the run, in JSON's types.
        damaged: the names of later checkpoints that were skipped.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    damaged: tuple[str, ...] = ()

    def is_of(self, config: TrainConfig) -> bool:
        """Return whether it was written with some settings, apart from the rate and the length."""
        theirs, ours = self.facts.get("settings"), config.model_dump(mode="json")
        return isinstance(theirs, dict) and _lasting(theirs) == _lasting(ours)


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those of the optimizer that may change while a training goes on."""
    optim = dict(settings["optim"]) if isinstance(settings.get("optim"), dict) else {}
    return {**settings, "optim": {k: v for k, v in optim.items() if k not in _CHANGES}}


def folder_of(out: Path) -> Path:
    """Return the folder of an unfinished run's checkpoints, next to the run's own.

    It is the same whichever links lead to the run.
    """
    real = Path(os.path.realpath(out))
    return real.with_name(f".{real.name}.training")


def name(step: int) -> str:
    """Return the name of a step's checkpoint in its folder."""
    return f"{step:09d}"


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    stays: Callable[[int], bool] = lambda step: False,
) -> None:
    """Write the checkpoint of a step, then remove all but the last two and the steps that stay.

    Raises:
        StorageError: it does not fit on the disk.
    """
    data = serialise({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    manifest = {"sha256": _digest(data, step, facts), "step": step, "facts": dict(facts)}
    target = folder / name(step)
    with in_room(target, len(data)):
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        try:
            (aside / STATE).write_bytes(data)
            (aside / MANIFEST).write_text(_text(manifest), encoding="utf-8")
            if target.exists():
                shutil.rmtree(target)
            publish(aside, target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    _retire(folder, step, stays)


def _retire(folder: Path, last: int, stays: Callable[[int], bool]) -> None:
    """Remove all but the last two and the steps that stay; later ones are damaged."""
    every = steps(folder)
    recent = [step for step in every if step <= last][-_RECENT:]
    for step in every:
        if step > last or not (step in recent or stays(step)):
            shutil.rmtree(folder / name(step))


def newest(folder: Path) -> Checkpoint | None:
    """Return the last checkpoint that is intact, or None without any checkpoint.

    Raises:
        StorageError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for step in reversed(steps(folder)):
        checkpoint = read(folder / name(step))
        if checkpoint is not None:
            return replace(checkpoint, damaged=tuple(damaged))
        damaged.append(name(step))
    if damaged:
        raise StorageError(f"all checkpoints in {folder} are damaged: remove it to begin again.")
    return None


def check_same(folder: Path, checkpoint: Checkpoint, facts: Mapping[str, Any]) -> None:
    """Refuse to continue from a checkpoint of another run.

    One that diverged may continue at a lower rate.

    Raises:
        UsageError: naming what differs.
    """
    theirs, ours = (values.get("settings") for values in (checkpoint.facts, facts))
    if checkpoint.facts.get("diverged") and _is_lower(ours, theirs):
        facts = {**facts, "settings": theirs}
    names = differing({name: checkpoint.facts.get(name) for name in facts}, facts)
    if names:
        old, new = _flat(theirs), _flat(ours)
        if inner := differing({name: old.get(name) for name in new}, new):
            names += f" ({inner})"
        raise UsageError(
            f"{folder} holds an unfinished run that differs in {names}: use its settings and data, "
            "write to another folder, or remove it."
        )


def _flat(settings: Any) -> dict[str, Any]:
    """Return settings with those of the optimizer next to the others."""
    if not isinstance(settings, dict) or not isinstance(settings.get("optim"), dict):
        return {}
    return {**settings, **settings["optim"], "optim": None}


def _is_lower(ours: Any, theirs: Any) -> bool:
    """Return whether settings differ in the learning rate alone, which is lower."""
    try:
        return bool(
            {**ours, "optim": {**ours["optim"], "lr": theirs["optim"]["lr"]}} == theirs
            and ours["optim"]["lr"] < theirs["optim"]["lr"]
        )
    except (TypeError, KeyError):
        return False


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, in ascending order."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def clear(folder: Path, every: bool = True) -> None:
    """Remove the files of an unfinished run, or only parts that a kill left.

    The lock stays.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == LOCK or not (every or path.name.startswith(".")):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def read(path: Path) -> Checkpoint | None:
    """Return a checkpoint, or None for one that is missing or damaged."""
    try:
        text = files.read(path / MANIFEST, _LARGEST, path.parent).decode()
        manifest = json.loads(text)
        data = files.read(path / STATE, folder=path.parent)
        step, facts = manifest["step"], dict(manifest["facts"])
        as_written = _text(manifest) == text and path.name == name(step)
        if not as_written or manifest["sha256"] != _digest(data, step, facts):
            return None
        return Checkpoint(load(data), facts)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None


def _digest(data: bytes, step: int, facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text([step, facts]).encode() + data).hexdigest()


def _text(values: object) -> str:
    return json.dumps(values, separators=(",", ":"))
