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
    if not snapshots.is_dir():
        return folder
    names = sorted(path.name for path in snapshots.iterdir())
    revision = main.read_text().strip() if main.is_file() else names[0] if len(names) == 1 else ""
    if revision not in names:
        raise CheckpointError(
            f"{folder} has no snapshot of its main branch, refs/main: give the folder of a "
            f"snapshot; it has {', '.join(names[:8]) or 'none'}."
        )
    return snapshots / revision


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path leads out of a folder, or of the blobs that its snapshot links to."""
    target, allowed = Path(os.path.realpath(path)), [folder]
    if folder.parent.name == "snapshots":
        allowed.append(folder.parent.parent / "blobs")
    return not any(target.is_relative_to(os.path.realpath(place)) for place in allowed)
