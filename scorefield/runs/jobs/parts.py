"""Long jobs in parts: each part is written whole, and a job that was cut goes on where it stopped.

The parts lie in a folder beside the result, with what they were made from. Processes that know
nothing of each other may make them, each its shard. They are put together when the last is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scorefield._internal.atomic_files import differing, publish, write
from scorefield._internal.errors import StorageError, UsageError
from scorefield.runs.jobs.shards import owner

Columns = dict[str, np.ndarray]

_SETTINGS, _SHARDS = "settings.json", "shards"
_DIGEST = 32  # bytes
_TOLD = 6  # spans of ids in a message


class Job:
    """Neighbouring ids in parts, on their way to ``out``.

    Args:
        out: the file that the whole will be written to.
        settings: all that the result depends on, in JSON's types. A part belongs to a job with
            equal settings alone.
        ids: what the job is over, of step 1.
        block: how many ids a part has; where they begin at a multiple of it, so do the parts.
        shards: how many processes share it, which does not change the parts.

    Raises:
        UsageError: parts of another job lie where this one's belong.
        StorageError: what lies there is no job's.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], ids: range, block: int, shards: int = 1
    ) -> None:
        self.out, self.ids, self.block, self.shards = out, ids, block, shards
        self.folder = _folder(out)
        self.settings = {**settings, "ids": [ids.start, ids.stop], "block": block}
        self._text = json.dumps(self.settings, sort_keys=True).encode()
        self._begun = False
        if self.folder.exists():
            self._check_same()

    def __len__(self) -> int:
        """Return how many parts there are in all."""
        return -(-self.ids.stop // self.block) - self.ids.start // self.block

    def missing(self, parts: Iterable[int]) -> list[int]:
        """Return which of the parts are still to be made, damaged ones among them."""
        return [k for k in parts if self._read(k) is None]

    def items(self, part: int) -> range:
        """Return the ids of a part."""
        begin = (self.ids.start // self.block + part) * self.block
        return range(max(begin, self.ids.start), min(begin + self.block, self.ids.stop))

    def write(self, part: int, columns: Columns) -> None:
        """Keep a part, at once or not at all.

        Raises:
            UsageError, StorageError: as at the start, if another job was quicker.
        """
        if not self._begun:
            self._begin()
        buffer = io.BytesIO()
        np.savez(buffer, **columns)  # type: ignore[arg-type]
        data = buffer.getvalue()
        kept = data + self._digest(part, data)
        write(self._path(part), lambda file: file.write(kept), len(kept))

    def parts(self) -> Iterator[Columns]:
        """Yield the columns of all parts, one after another.

        Raises:
            StorageError: a part is not there, or damaged; the message names all of them.
        """
        for k in range(len(self)):
            columns = self._read(k)
            if columns is None:
                raise StorageError(
                    f"{self.out} is not complete. Missing or damaged are the ids "
                    f"{self._told(self.missing(range(len(self))))}: run the command again for "
                    "them, and then merge."
                )
            yield columns

    def remove(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        """Make the folder with its settings at once, so that of two jobs one is refused."""
        if not self.folder.exists():
            written = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}-", dir=self.out.parent))
            try:
                (written / _SETTINGS).write_bytes(self._text)
                publish(written, self.folder)
            except OSError:
                shutil.rmtree(written, ignore_errors=True)
                if not self.folder.exists():
                    raise
        self._check_same()
        shards = str(self.shards).encode()
        write(self.folder / _SHARDS, lambda file: file.write(shards), len(shards))
        self._begun = True

    def _check_same(self) -> None:
        theirs = _read_settings(self.folder)
        names = differing(theirs, self.settings)
        if names:
            raise UsageError(
                f"{self.folder} holds parts of a job that differs in {names}: go on "
                "with its settings, give another --out, or remove the folder."
            )

    def _read(self, part: int) -> Columns | None:
        """Return a part's columns, or None if it is not there or not as it was written."""
        path = self._path(part)
        if not path.exists():
            return None
        content = path.read_bytes()
        data, digest = content[:-_DIGEST], content[-_DIGEST:]
        if self._digest(part, data) != digest:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)

    def _told(self, parts: list[int]) -> str:
        """Return the ids of parts and the shards they belong to, as a list to read."""
        spans: list[tuple[int, int, str]] = []
        for k in parts:
            ids = self.items(k)
            whose = f" of shard {owner(k, len(self), self.shards)}" if self.shards > 1 else ""
            if spans and spans[-1][1:] == (ids.start, whose):
                spans[-1] = (spans[-1][0], ids.stop, whose)
            else:
                spans.append((ids.start, ids.stop, whose))
        told = [f"{begin}:{end}{whose}" for begin, end, whose in spans[:_TOLD]]
        if len(spans) > _TOLD:
            told.append(f"and {len(spans) - _TOLD} more")
        return ", ".join(told)

    def _digest(self, part: int, data: bytes) -> bytes:
        return hashlib.sha256(self._text + f"{part}:".encode() + data).digest()

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.part"


def find_job(out: Path) -> Job:
    """Return the job whose parts lie beside ``out``.

    Raises:
        StorageError: there is none, or what lies there is no job's.
    """
    folder = _folder(out)
    if not folder.exists():
        raise StorageError(f"there are no parts of {out}: {folder} does not exist.")
    settings = _read_settings(folder)
    try:
        begin, end, block = map(int, (*settings["ids"], settings["block"]))
        shards = int((folder / _SHARDS).read_text(encoding="utf-8"))
        if not (0 <= begin < end and block > 0 and shards > 0):
            raise ValueError
    except (OSError, LookupError, TypeError, ValueError):
        raise _no_jobs(folder) from None
    return Job(out, settings, range(begin, end), block, shards)


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        return dict(settings.items())
    except (OSError, ValueError, AttributeError):
        raise _no_jobs(folder) from None


def _no_jobs(folder: Path) -> StorageError:
    return StorageError(
        f"{folder} has no {_SETTINGS} that can be read, so it is no job's: remove it."
    )
