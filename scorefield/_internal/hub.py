"""The cache of the Hugging Face hub: a repository is a folder of snapshots, of links to blobs."""

from __future__ import annotations

from pathlib import Path

from scorefield._internal import files
from scorefield._internal.errors import CheckpointError

_LARGEST = 1 << 10  # bytes of the name of a revision


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
        with files.reading(main, "", CheckpointError):
            revision = files.read(main, _LARGEST, folder).decode(errors="replace").strip()
    if revision not in names:
        raise CheckpointError(
            f"{folder} has no snapshot of its main branch, refs/main: give the folder of a "
            f"snapshot; it has {', '.join(names[:8]) or 'none'}."
        )
    return snapshots / revision
