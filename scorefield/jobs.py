"""Long jobs in parts: each part is written whole, and a job that was cut goes on where it stopped.

The parts lie in a folder beside the result, with what they were made from. They are joined and
removed when the last is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.errors import StorageError, UsageError
from scorefield.files import differing, write

_SETTINGS = "settings.json"
_DIGEST = 32  # bytes


class Job:
    """The items ``0 .. count - 1`` in blocks, on their way to ``out``.

    Args:
        out: the file that the whole will be written to.
        settings: all that the result depends on, in JSON's types. A part belongs to a job with
            equal settings alone.
        count, block: how many items there are, and in each part.

    Raises:
        UsageError: parts of another job lie where this one's belong.
        StorageError: what lies there is no job's.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], count: int, block: int) -> None:
        self.folder = out.with_name(f".{out.name}.parts")
        self.count, self.block = count, block
        self.settings = json.dumps({**settings, "count": count, "block": block}, sort_keys=True)
        if self.folder.exists():
            self._check_same()

    def __len__(self) -> int:
        """Return how many parts there are in all."""
        return -(-self.count // self.block)

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are still to be made, damaged ones among them."""
        return [k for k in range(len(self)) if self._read(k) is None]

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
        np.savez(buffer, **columns)  # type: ignore[arg-type]
        data = buffer.getvalue()
        write(self._path(part), lambda file: file.write(data + self._digest(data)))

    def joined(self) -> dict[str, np.ndarray]:
        """Return the columns of all parts, one after another.

        Raises:
            StorageError: a part is gone or damaged.
        """
        parts = [self._read(k) for k in range(len(self))]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            raise StorageError(
                f"{self._path(parts.index(None))} is gone or damaged: run the command again."
            )
        return {name: np.concatenate([part[name] for part in whole]) for name in whole[0]}

    def remove(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_same(self) -> None:
        path = self.folder / _SETTINGS
        try:
            text = path.read_text(encoding="utf-8")
            theirs, mine = dict(json.loads(text).items()), json.loads(self.settings)
        except (OSError, ValueError, AttributeError):
            raise StorageError(
                f"{self.folder} has no {_SETTINGS} that can be read, so it is no job's: remove it."
            ) from None
        names = differing(theirs, mine)
        if names:
            raise UsageError(
                f"{self.folder} holds parts of a job that differs in {names}: go on "
                "with its settings, give another --out, or remove the folder."
            )

    def _read(self, part: int) -> dict[str, np.ndarray] | None:
        """Return a part's columns, or None if it is not there or not as it was written."""
        path = self._path(part)
        if not path.exists():
            return None
        content = path.read_bytes()
        data, digest = content[:-_DIGEST], content[-_DIGEST:]
        if self._digest(data) != digest:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)

    def _digest(self, data: bytes) -> bytes:
        return hashlib.sha256(self.settings.encode() + data).digest()

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
