"""Long jobs in parts: each part is written at once, and an interrupted job resumes.

The parts are in a folder next to the result, together with all settings they depend on. Independent
processes may compute them, each its shard. The result is written when all parts exist.
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

from scorefield._internal import files
from scorefield._internal.atomic_files import differing, publish, write
from scorefield._internal.errors import StorageError, UsageError
from scorefield._internal.json_values import parse
from scorefield.runs.jobs.shards import owner

Columns = dict[str, np.ndarray]

_SETTINGS, _SHARDS = "settings.json", "shards"
_LARGEST = 2**23  # bytes of the settings
_DIGEST = 32  # bytes
_LISTED = 6  # ranges of ids in a message


class Job:
    """A range of ids in parts, whose result is written to ``out``.

    Args:
        out: the file of the result.
        settings: everything that the result depends on, in JSON's types. Only jobs with equal
            settings share parts.
        ids: of the items, with step 1.
        block: number of ids in a part; parts begin at its multiples.
        shards: number of processes that share the job; the parts do not depend on it.

    Raises:
        UsageError: the folder holds parts of another job.
        StorageError: the folder does not hold a job.
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
        """Return the number of parts."""
        return -(-self.ids.stop // self.block) - self.ids.start // self.block

    def missing(self, parts: Iterable[int]) -> list[int]:
        """Return the parts that do not exist yet, or are damaged."""
        return [k for k in parts if self._read(k) is None]

    def items(self, part: int) -> range:
        """Return the ids of a part."""
        begin = (self.ids.start // self.block + part) * self.block
        return range(max(begin, self.ids.start), min(begin + self.block, self.ids.stop))

    def write(self, part: int, columns: Columns) -> None:
        """Write a part, at once or not at all.

        Raises:
            UsageError, StorageError: as `Job`, if another job has started here meanwhile.
        """
        if not self._begun:
            self._begin()
        buffer = io.BytesIO()
        np.savez(buffer, **columns)  # type: ignore[arg-type]
        data = buffer.getvalue()
        content = data + self._digest(part, data)
        write(self._path(part), lambda file: file.write(content), len(content), self.out.parent)

    def parts(self) -> Iterator[Columns]:
        """Yield the columns of all parts, one after another.

        Raises:
            StorageError: a part is missing or damaged; the message names all of them.
        """
        for k in range(len(self)):
            columns = self._read(k)
            if columns is None:
                raise StorageError(
                    f"{self.out} is not complete. Missing or damaged are the ids "
                    f"{self._ranges(self.missing(range(len(self))))}: run the command again for "
                    "them, and then merge."
                )
            yield columns

    def remove(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        """Create the folder with its settings at once, which rejects the second of two jobs."""
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
        write(self.folder / _SHARDS, lambda file: file.write(shards), len(shards), self.out.parent)
        self._begun = True

    def _check_same(self) -> None:
        theirs = _read_settings(self.folder)
        names = differing(theirs, self.settings)
        if names:
            raise UsageError(
                f"{self.folder} holds parts of a job that differs in {names}: use the settings of "
                "that job, pass another out, or remove the folder."
            )

    def _read(self, part: int) -> Columns | None:
        """Return the columns of a part, or None if it is missing or damaged."""
        path = self._path(part)
        if not path.exists():
            return None
        try:
            with files.reading(path, "a part", StorageError):
                content = files.read(path, folder=self.out.parent)
                data, digest = content[:-_DIGEST], content[-_DIGEST:]
                if self._digest(part, data) != digest:
                    return None
                with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                    return dict(archive)
        except StorageError:
            return None

    def _ranges(self, parts: list[int]) -> str:
        """Return the ids of parts, and their shards, as text."""
        spans: list[tuple[int, int, str]] = []
        for k in parts:
            ids = self.items(k)
            whose = f" of shard {owner(k, len(self), self.shards)}" if self.shards > 1 else ""
            if spans and spans[-1][1:] == (ids.start, whose):
                spans[-1] = (spans[-1][0], ids.stop, whose)
            else:
                spans.append((ids.start, ids.stop, whose))
        texts = [f"{begin}:{end}{whose}" for begin, end, whose in spans[:_LISTED]]
        if len(spans) > _LISTED:
            texts.append(f"and {len(spans) - _LISTED} more")
        return ", ".join(texts)

    def _digest(self, part: int, data: bytes) -> bytes:
        return hashlib.sha256(self._text + f"{part}:".encode() + data).digest()

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.part"


def find_job(out: Path) -> Job:
    """Return the job with parts next to ``out``.

    Raises:
        StorageError: the folder of the parts does not exist, or does not hold a job.
    """
    folder = _folder(out)
    if not folder.exists():
        raise StorageError(f"{out} has no parts: {folder} does not exist.")
    settings = _read_settings(folder)
    try:
        begin, end, block = map(int, (*settings["ids"], settings["block"]))
        shards = int(files.read(folder / _SHARDS, _LARGEST, out.parent))
        if not (0 <= begin < end and block > 0 and shards > 0):
            raise ValueError
    except (OSError, LookupError, TypeError, ValueError):
        raise _no_jobs(folder) from None
    return Job(out, settings, range(begin, end), block, shards)


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        settings = parse(files.read(folder / _SETTINGS, _LARGEST, folder.parent))
        return dict(settings.items())
    except (OSError, ValueError, AttributeError):
        raise _no_jobs(folder) from None


def _no_jobs(folder: Path) -> StorageError:
    return StorageError(
        f"{folder} does not hold a job: {_SETTINGS} cannot be read. Remove the folder."
    )
