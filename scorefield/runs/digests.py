"""Digests of the files of a run: ``SHA256SUMS``, in the format of ``sha256sum``.

It lists the files that the run was written with; tuning and comparing add theirs. `scorefield.load`
compares files up to 256 MiB, `changed` all of them, and so does ``sha256sum --check SHA256SUMS`` in
the folder. A folder without the list is not checked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scorefield._internal import files
from scorefield._internal.atomic_files import write as write_file
from scorefield._internal.errors import CheckpointError

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_LARGEST = 2**22  # bytes of the list
_CHEAP = 2**28  # bytes of a file that is read again when a run is loaded: a fifth of a second
_NOT_LISTED = (NAME, "README.md")  # a model card is edited


def write(folder: Path) -> None:
    """Write the list of all files of a folder, without hidden ones and the model card."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = (name for name in names if name not in _NOT_LISTED and f"/{name}".find("/.") < 0)
    _save(folder, {name: _digest(folder / name, folder) for name in sorted(listed)})


def read(folder: Path) -> dict[str, str]:
    """Return the digests by the names of the files; empty without a list.

    Raises:
        CheckpointError: the list cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    with files.reading(path, "", CheckpointError):
        lines = files.read(path, _LARGEST, folder).decode().splitlines()
        matches = [_LINE.fullmatch(line) for line in lines]
        if not all(matches):
            raise ValueError(f"line {matches.index(None) + 1} is not a digest and a name")
    return {match[2]: match[1] for match in matches if match}


def check(folder: Path, names: Iterable[str]) -> None:
    """Reject listed files of up to 256 MiB that have changed.

    Raises:
        CheckpointError: naming the file.
    """
    listed = read(folder)
    for name in names:
        path = folder / name
        small = name in listed and path.is_file() and path.stat().st_size <= _CHEAP
        if small and _differs(folder, name, listed):
            raise CheckpointError(
                f"{path} has changed since it was written, by its digest in {NAME}: copy it again; "
                "if you changed it yourself, remove its line there."
            )


def changed(folder: Path) -> tuple[int, list[str]]:
    """Return the number of listed files, and the names of the missing and the changed ones.

    Raises:
        CheckpointError: the folder has no list, or as `read`.
    """
    listed = read(folder)
    if not listed:
        raise CheckpointError(f"{folder} has no {NAME}: its files cannot be compared.")
    return len(listed), [name for name in listed if _differs(folder, name, listed)]


@contextmanager
def rewriting(path: Path, folder: Path) -> Iterator[None]:
    """Keep the list of a folder true while the block writes a file: unlisted, then listed anew."""
    own = Path(os.path.realpath(path.parent)) / path.name  # whichever way the path is spelled
    root = Path(os.path.realpath(folder))
    if not own.is_relative_to(root):
        yield
        return
    name = own.relative_to(root).as_posix()
    listed = read(folder)
    if listed.pop(name, None) is not None:
        _save(folder, listed)
    yield
    listed = read(folder)
    if listed:
        _save(folder, listed | {name: _digest(path, folder)})


def _differs(folder: Path, name: str, listed: dict[str, str]) -> bool:
    try:
        return _digest(folder / name, folder) != listed[name]
    except (OSError, ValueError):
        return True


def _digest(path: Path, folder: Path) -> str:
    with files.opened(path, 2**63, folder) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(folder: Path, listed: dict[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(listed.items())).encode()
    write_file(folder / NAME, lambda file: file.write(text), len(text))
