"""Work on items in parts: it resumes, can be shared by workers, and is merged into one file."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield import __version__
from scorefield._internal import sizes
from scorefield._internal.errors import StorageError, UsageError
from scorefield._internal.statistics import ColumnStatistics
from scorefield.cli.console import draw, say, track
from scorefield.cli.opening import Opened
from scorefield.cli.options import JobOptions
from scorefield.cli.results import ResultKind, Statistics
from scorefield.data.config import DataConfig
from scorefield.data.rows import Rows, digest
from scorefield.runs.jobs.engines import Task, find_engine
from scorefield.runs.jobs.parts import Columns, Job
from scorefield.runs.jobs.shards import Shard, find_shard
from scorefield.runs.jobs.tables import (
    ARRAY,
    CELLS,
    TABLE,
    check_target,
    from_arrays,
    refuse_file,
    write_array,
    write_table,
)
from scorefield.sampling import batches

if TYPE_CHECKING:
    from scorefield.data.cells_written import CellBlock
    from scorefield.data.contents import Coded

_PARTS = 1000  # at most, of small items
_LARGE = 1 << 24  # bytes of the items in a part
PICTURE_ITEMS = 256


def endings(kind: ResultKind, like: DataConfig) -> tuple[str, ...]:
    """Return the possible endings of a file's name, the usual one first, for such data."""
    if not kind.result:
        return TABLE
    if not kind.tabular or len(like.shape) > 1:
        return ARRAY
    if like.columns.kinds:
        return (*TABLE, *ARRAY)
    counts = getattr(like.codec, "kind", None) == "nb"
    if like.columns.names and counts and find_spec("h5py"):
        return (*CELLS, *TABLE, *ARRAY)
    return (*TABLE, *ARRAY, *CELLS) if like.columns.names else (*ARRAY, *TABLE, *CELLS)


def target(
    kind: ResultKind,
    opened: Opened,
    name: Path,
    ids: str | None = None,
    like: DataConfig | None = None,
) -> Path:
    """Return the file to write: that of ``--out``, or ``name`` with ids and ending.

    Args:
        like: the data that the results are of, if it is not that of the run.

    Raises:
        UsageError: as `check_files`.
    """
    like, out = like or opened.run.config.data, opened.options.out
    if out is None:
        some = "" if ids is None else f"-{ids.replace(':', '-')}"
        out = name.with_name(f"{name.name}{some}{endings(kind, like)[0]}")
    check_files(kind, out, like, opened.options.overwrite)
    return out


def check_files(kind: ResultKind, out: Path, like: DataConfig, overwrite: bool) -> None:
    """Raise `UsageError` if the file or the picture cannot be written."""
    check_target(out, endings(kind, like), overwrite)
    if kind.picture and len(like.shape) == 3:
        refuse_file(out.with_suffix(".png"), overwrite)


def parse_ids(text: str | None, count: int) -> range:
    """Return the ids that ``a:b`` names among ``0 .. count - 1``; all of them by default."""
    if text is None:
        return range(count)
    begin, _, end = text.partition(":")
    if not (begin.isdecimal() and end.isdecimal() and int(begin) < int(end)):
        raise UsageError(f"--ids {text}: give a:b for a to b - 1, with a below b, such as 0:64.")
    if int(end) > count:
        raise UsageError(f"--ids {text}: the items are 0 to {count - 1}.")
    return range(int(begin), int(end))


def nfe_column(calls: int, groups: Sequence[Sequence[int]], batch_size: int) -> np.ndarray:
    """Return the network calls of each sample, from those of all rows of their batches.

    Args:
        groups: the ids that share batches.
    """
    rows = batch_size * sum(1 for ids in groups for _ in batches(ids, batch_size))
    return np.full(sum(map(len, groups)), calls / rows)


def in_parts(
    opened: Opened,
    kind: ResultKind,
    out: Path,
    work: Callable[..., Columns],
    settings: Mapping[str, Any],
    ids: range,
    items: Rows | None = None,
    *,
    samples: int = 1,
    results: int = 1,
    like: DataConfig | None = None,
) -> None:
    """Do work over ids in parts, and write the result if this process has all of them.

    Parts of an earlier process are used. ``settings`` are everything that the result depends on
    besides the run, the items and the batch size, which ``work`` gets as ``batch_size``.

    Args:
        samples, results: of each item: how many are computed, and how many of them are written.
        like: the data that the results are of, if it is not that of the run.

    Raises:
        UsageError: parts of another job lie next to the file; the shard or engine does not exist.
    """
    options = opened.options
    assert isinstance(options, JobOptions)
    opened.given.check(ids, None if items is None else len(items))
    engine, shard = find_engine(options.engine), find_shard(options.shard, os.environ)
    if kind.result:  # a table of numbers is small
        shape = (results, *opened.run.config.data.shape)
        _check_room(out, len(ids) // shard.count, shape)
    batch_size = opened.batch_size(samples * len(ids))
    about = like or opened.run.config.data
    job = _job(opened, kind, out, settings, ids, items, shard.count, batch_size, about)
    work = partial(work, batch_size=batch_size)
    missing = _missing(job, shard)
    began, count = time.monotonic(), 0
    tasks = (_task(job, part, items) for part in missing)
    parts = engine(opened.run, opened.source, work, tasks)
    for part, columns in track(parts, len(missing), kind.name):
        job.write(part, columns)
        count += len(job.items(part))
    seconds = time.monotonic() - began
    if count:
        say(f"{seconds:.2f} s, {1e3 * seconds / count:.2f} ms per item")
    if shard.count > 1:
        say(f"when all shards are done: scorefield merge {out}")
    else:
        finish(job, kind)


def _check_room(out: Path, count: int, shape: tuple[int, ...]) -> None:
    """Refuse, before any work, a result that the disk cannot hold.

    Raises:
        StorageError: with the sizes.
    """
    needs, room = 4 * count * math.prod(shape), sizes.room(out.parent)
    if needs > room:
        raise StorageError(
            f"{out} takes {sizes.words(needs)}, and there is room for {sizes.words(room)}: ask for "
            "fewer items, or write elsewhere."
        )


def _missing(job: Job, shard: Shard) -> list[int]:
    """Return the parts of a shard that are missing, and print where the shard comes from."""
    mine = shard.share(len(job))
    if shard.count > 1:
        by = f", by {shard.origin} (--shard 0/1 does all)" if shard.origin else ""
        say(f"shard {shard}{by}: {len(mine)} of {len(job)} parts")
    missing = job.missing(mine)
    if len(missing) < len(mine):
        say(f"resuming: {len(mine) - len(missing)} of {len(mine)} parts are there")
    return missing


def finish(job: Job, kind: ResultKind) -> None:
    """Write the result of a job's parts, print its summary, and remove the parts.

    Raises:
        StorageError: parts are missing or damaged; nothing is written.
    """
    statistics: defaultdict[str, ColumnStatistics] = defaultdict(ColumnStatistics)
    blocks = _counted(job.parts(), statistics)
    like = DataConfig.model_validate(job.settings["like"])
    if job.out.suffix in ARRAY:
        write_array(job.out, len(job.ids), (block[kind.result] for block in blocks))
    elif job.out.suffix in CELLS:
        from scorefield.data.cells_written import write_cells

        write_cells(job.out, (_cells(block, kind, like) for block in blocks), like.columns.names)
    elif kind.result:
        write_table(job.out, (_rows(block, kind, like) for block in blocks))
    else:
        write_table(job.out, map(from_arrays, blocks))
    images = _pictured(job, kind) if kind.picture and len(like.shape) == 3 else None
    job.remove()
    kind.report(job.settings, statistics)
    say(f"{kind.noun}: {job.out}")
    if images is not None:
        across = images.shape[1:-3]  # the length of a row, if images come in rows
        draw(images.flatten(0, len(across)), job.out.with_suffix(".png"), *across)


def _rows(block: Columns, kind: ResultKind, like: DataConfig) -> Any:
    """Return the rows of a part as a table: items, conditions, and which draws they are."""
    from scorefield.data.tabular import as_table, others_of

    rows = block[kind.result].reshape(-1, *like.shape)
    table = as_table(rows, like.columns, others_of(like, block))
    for place, name in enumerate(name for name in ("item", "draw") if name in block):
        unique = str(name)
        while unique in table.column_names:
            unique += "_"
        table = table.add_column(place, unique, [block[name]])
    return table


def _cells(block: Columns, kind: ResultKind, like: DataConfig) -> CellBlock:
    """Return the cells of a part with their conditions, and the items and draws that they are."""
    from scorefield.data.cells_written import CellBlock
    from scorefield.data.channels import labelled

    x = block[kind.result].reshape(-1, *like.shape)
    given = {channel.name: channel for channel in like.conditions}
    obs: dict[str, Coded | np.ndarray] = {
        name: labelled(channel, block[f"given {name}"])
        for name, channel in given.items()
        if f"given {name}" in block
    }
    for name in (name for name in ("item", "draw") if name in block):
        unique = str(name)
        while unique in obs:
            unique += "_"
        obs[unique] = block[name]
    return CellBlock(x, obs)


def _pictured(job: Job, kind: ResultKind) -> Tensor:
    """Return the first items of the column that the picture shows."""
    blocks: list[np.ndarray] = []
    for columns in job.parts():
        blocks.append(columns[kind.picture])
        if sum(map(len, blocks)) >= PICTURE_ITEMS:
            break
    return torch.from_numpy(np.concatenate(blocks)[:PICTURE_ITEMS])


def _counted(parts: Iterator[Columns], statistics: Statistics) -> Iterator[Columns]:
    for columns in parts:
        for name, column in columns.items():
            if column.ndim == 1:
                statistics[name].add(column)
        yield columns


def _job(
    opened: Opened,
    kind: ResultKind,
    out: Path,
    settings: Mapping[str, Any],
    ids: range,
    items: Rows | None,
    shards: int,
    batch_size: int,
    like: DataConfig,
) -> Job:
    few = -(-len(ids) // (batch_size * _PARTS))  # batches in a part
    block = batch_size * max(1, min(few, _LARGE // (4 * batch_size * math.prod(like.shape))))
    everything = {
        "command": kind.name,
        "run": opened.folder.mark,
        "network": opened.options.network,
        "device": opened.options.device,
        "like": like.model_dump(mode="json"),
        "data": None if items is None else digest(items),
        "batch_size": batch_size,
        "version": __version__,
        "torch": torch.__version__,
        **settings,
    }
    return Job(out, everything, ids, block, shards)


def _task(job: Job, part: int, items: Rows | None) -> Task:
    ids = job.items(part)
    x = None if items is None else items[torch.arange(ids.start, ids.stop)]
    return Task(part, ids, x)
