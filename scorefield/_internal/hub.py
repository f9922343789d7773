"""The cache of the Hugging Face hub: a repository is a folder of snapshots, of links to blobs."""

from __future__ import annotations

import os
from pathlib import Path

from scorefield._internal.errors import CheckpointError


def snapshot(folder: Path) -> Path:
    """Return a folder; of a repository in the hub's cache, the snapshot of its main branch.

    Raises:
        CheckpointError: a repository without that snapshot.
    """
    snapshots, main = folder / "snapshots", folder / "refs" / "main"
    if not snapshots.is_dir() or (folder / "config.toml").is_file():
        return folder
    names = sorted(path.name for path in snapshots.iterdir() if not path.is_symlink())
    revision = names[0] if len(names) == 1 else ""
    if main.is_file():
        revision = main.read_text(encoding="utf-8", errors="replace").strip()
    if revision not in names:
        raise CheckpointError(
            f"{folder} has no snapshot of its main branch, refs/main: give the folder of a "
            f"snapshot; it has {', '.join(names[:8]) or 'none'}."
        )
    return snapshots / revision


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path leads out of a folder, or of the blobs that its snapshot links to."""
    target, allowed = Path(os.path.realpath(path)), [Path(os.path.realpath(folder))]
    if folder.parent.name == "snapshots":
        repository = Path(os.path.realpath(folder.parent.parent))
        allowed = [repository / "snapshots" / folder.name, repository / "blobs"]  # not if links
    return not any(target.is_relative_to(place) for place in allowed)
