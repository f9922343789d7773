"""Long jobs in parts: each part is written whole, and a job that was cut goes on where it stopped.

The parts lie in a folder beside the result, with what they were made from. They are joined and
removed when the last is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.errors import UsageError
from scorefield.files import write

_SETTINGS = "settings.json"


class Job:
    """The items ``0 .. count - 1`` in blocks, on their way to ``out``.

    Args:
        out: the file that the whole will be written to.
        settings: all that the result depends on, in JSON's types. A part belongs to a job with
            equal settings alone.
        count, block: how many items there are, and in each part.

    Raises:
        UsageError: parts of another job lie where this one's belong.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], count: int, block: int) -> None:
        self.folder = out.with_name(f".{out.name}.parts")
        self.count, self.block = count, block
        self.settings = json.dumps({**settings, "count": count, "block": block}, sort_keys=True)
        path = self.folder / _SETTINGS
        if path.exists() and path.read_text(encoding="utf-8") != self.settings:
            theirs, mine = json.loads(path.read_text(encoding="utf-8")), json.loads(self.settings)
            names = sorted(k for k in {*theirs, *mine} if theirs.get(k) != mine.get(k))
            raise UsageError(
                f"{self.folder} holds parts of a job that differs in {', '.join(names)}: go on "
                "with its settings, give another --out, or remove the folder."
            )

    def __len__(self) -> int:
        """Return how many parts there are in all."""
        return -(-self.count // self.block)

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are still to be made."""
        return [k for k in range(len(self)) if not self._path(k).exists()]

    def items(self, part: int) -> range:
        """Return the items of a part."""
        return range(part * self.block, min((part + 1) * self.block, self.count))

    def write(self, part: int, columns: Mapping[str, np.ndarray]) -> None:
        """Keep a part, at once or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _SETTINGS
        if not path.exists():
            write(path, lambda file: file.write(self.settings.encode()))
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **columns)
        data = buffer.getvalue()
        write(self._path(part), lambda file: file.write(data + hashlib.sha256(data).digest()))

    def joined(self) -> dict[str, np.ndarray]:
        """Return the columns of all parts, one after another.

        Raises:
            UsageError: a part is damaged; it is removed, so that the job makes it again.
        """
        parts = list(self._read())
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def remove(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> Iterator[dict[str, np.ndarray]]:
        for k in range(len(self)):
            path = self._path(k)
            data = path.read_bytes()
            if hashlib.sha256(data[:-32]).digest() != data[-32:]:
                path.unlink()
                raise UsageError(f"{path} was damaged and is removed: run the command again.")
            with np.load(io.BytesIO(data[:-32]), allow_pickle=False) as archive:
                yield dict(archive)

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.part"


def fingerprint(*sources: Path | np.ndarray) -> str:
    """Return a digest of files and arrays."""
    digest = hashlib.sha256()
    for source in sources:
        if isinstance(source, Path):
            digest.update(source.read_bytes())
        else:
            digest.update(f"{source.dtype}{source.shape}".encode())
            digest.update(np.ascontiguousarray(source).tobytes())
    return digest.hexdigest()
