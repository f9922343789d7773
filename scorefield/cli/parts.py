"""What commands over items share: opening a run, checking the data, work in parts."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from scorefield import __version__
from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.commands import draw, find_class, say, track
from scorefield.cli.options import ItemOptions, JobOptions
from scorefield.cli.tally import Tally
from scorefield.data import Data, read
from scorefield.data.columns import as_table
from scorefield.data.config import DataConfig
from scorefield.data.rows import Rows, chunks, digest
from scorefield.data.transform import moments
from scorefield.runs.folder import RunFolder
from scorefield.runs.jobs.engines import Task, Work, find_engine
from scorefield.runs.jobs.parts import Columns, Job
from scorefield.runs.jobs.shards import Shard, find_shard
from scorefield.runs.jobs.tables import (
    ARRAY,
    TABLE,
    check_target,
    refuse_file,
    write_array,
    write_table,
)
from scorefield.runs.loading import load
from scorefield.runs.run import Run

_WIDEST = 8.0  # how many times wider or narrower data may be than what was learned
_MOST = 1000  # parts, unless they would be large
_LARGE = 1 << 24  # bytes of a part's items
DRAWN = 256  # items of a picture


@dataclass(frozen=True)
class Kind:
    """A kind of result, and how it is made of parts.

    Attributes:
        name: of the work, in messages and among the settings of its parts.
        noun: what the file holds.
        tell: prints what there is to know of all columns.
        result: the column that makes a ``.npy`` file; empty if all make a table.
        picture: the column that images are drawn of as well, ``(n, ...)``, or ``(n, k, ...)`` for
            rows of ``k``; empty for no picture.
        tabular: whether vectors of the run's data may be a table as well.
    """

    name: str
    noun: str
    tell: Callable[[Console, Mapping[str, Any], Mapping[str, Tally]], None]
    result: str = ""
    picture: str = ""
    tabular: bool = False

    def endings(self, like: DataConfig) -> tuple[str, ...]:
        """What a file's name may end in, the usual one first, for a run of such data."""
        if not self.result:
            return TABLE
        if not self.tabular or len(like.shape) > 1:
            return ARRAY
        return (*TABLE, *ARRAY) if like.columns.names else (*ARRAY, *TABLE)

    def check(self, out: Path, like: DataConfig, overwrite: bool) -> None:
        """Refuse what the file or the picture cannot be written to."""
        check_target(out, self.endings(like), overwrite)
        if self.picture and len(like.shape) == 3:
            refuse_file(out.with_suffix(".png"), overwrite)


@dataclass(frozen=True)
class Opened:
    """What a command works with.

    Attributes:
        run, folder: the run, and where it was read from.
        out, kind: the file to write, and of what kind.
        y: the class that is asked for, if one is.
    """

    run: Run
    folder: Path
    out: Path
    kind: Kind
    y: int | None


def parse_ids(text: str | None, count: int) -> range:
    """Return the ids that ``a:b`` names among ``0 .. count - 1``; all unless given."""
    if text is None:
        return range(count)
    begin, _, end = text.partition(":")
    if not (begin.isdecimal() and end.isdecimal() and int(begin) < int(end)):
        raise UsageError(f"--ids {text}: give a:b for a to b - 1, with a below b, such as 0:64.")
    if int(end) > count:
        raise UsageError(f"--ids {text}: the items are 0 to {count - 1}.")
    return range(int(begin), int(end))


def open_run(
    folder: Path, options: ItemOptions, kind: Kind, name: Path, ids: str | None = None
) -> Opened:
    """Open a run, or refuse what would not fit it or lose a file.

    Args:
        name: of the file unless one is asked for, without its ending.
        ids: those that are asked for, which belong to the name.
    """
    if options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size}: give at least 1.")
    run = load(folder)
    like, out = run.config.data, options.out
    if out is None:
        some = "" if ids is None else f"-{ids.replace(':', '-')}"
        out = name.with_name(f"{name.name}{some}{kind.endings(like)[0]}")
    kind.check(out, like, options.overwrite)
    return Opened(run, folder, out, kind, find_class(run, options.y))


def read_data(run: Run, source: str, labels: Path | None = None) -> Data:
    """Return the items of a source, and their classes.

    Raises:
        DataError: another shape than the run's, or not in its levels.
    """
    data = read(source, labels, learn=False, like=run.config.data)
    for chunk in chunks(data.x):
        run.check_data(chunk, source)
    return data


def read_items(run: Run, source: str, any_scale: bool = True) -> Rows:
    """Return the items of a source.

    Raises:
        DataError: another shape than the run's, not in its levels, or of another scale.
    """
    x = read_data(run, source).x
    if any_scale or len(x) < 16 or math.prod(x.shape) < 64:
        return x
    mean, variance = moments(x, run.encoding)
    seen = run.transform.forward(mean), variance / run.transform.std.double() ** 2
    wide = _width(*seen) / _width(run.field.mean, run.field.variance)
    if not 1 / _WIDEST <= wide <= _WIDEST:
        raise DataError(
            f"{source} spreads {wide:.3g} times as wide as what the run was trained on: bring it "
            "to the same units, or say --any-scale if that is the question."
        )
    return x


def _width(mean: float | Tensor, variance: float | Tensor) -> float:
    """Return how wide data of such moments spreads, over its coordinates and between them."""
    mean, variance = (torch.as_tensor(m, dtype=torch.float64) for m in (mean, variance))
    return float((variance + (mean - mean.mean()) ** 2).mean().sqrt())


def in_parts(
    console: Console,
    opened: Opened,
    options: JobOptions,
    work: Work,
    settings: Mapping[str, Any],
    ids: range,
    items: Rows | None = None,
) -> None:
    """Do work over ids in parts, and write the result if this process has all of them.

    What an earlier process has left is not done again. ``settings`` are what the result depends on
    besides the run, the items and the batch size.

    Raises:
        UsageError: parts of another job lie beside the file; no such shard or engine.
    """
    engine, shard = find_engine(options.engine), find_shard(options.shard, os.environ)
    job = _job(opened, options.batch_size, settings, ids, items, shard.count)
    missing = _missing(console, job, shard)
    began, made = time.monotonic(), 0
    tasks = (_task(job, part, items) for part in missing)
    parts = engine(opened.run, opened.folder, work, tasks)
    for part, columns in track(console, parts, len(missing), opened.kind.name):
        job.write(part, columns)
        made += len(job.items(part))
    seconds = time.monotonic() - began
    if made:
        say(console, f"{seconds:.2f} s, {1e3 * seconds / made:.2f} ms per item")
    if shard.count > 1:
        say(console, f"when all shards are done: scorefield merge {opened.out}")
    else:
        finish(console, job, opened.kind)


def _missing(console: Console, job: Job, shard: Shard) -> list[int]:
    """Return which parts of a shard are to be made, and tell of it what is not obvious."""
    mine = shard.share(len(job))
    if shard.count > 1:
        by = f", by {shard.origin} (--shard 0/1 does all)" if shard.origin else ""
        say(console, f"shard {shard}{by}: {len(mine)} of {len(job)} parts")
    missing = job.missing(mine)
    if len(missing) < len(mine):
        say(console, f"going on: {len(mine) - len(missing)} of {len(mine)} parts are there")
    return missing


def finish(console: Console, job: Job, kind: Kind) -> None:
    """Write the result of a job's parts, tell what there is to know of it, and remove the parts.

    Raises:
        StorageError: parts are missing or damaged; nothing is written.
    """
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    blocks = _counted(job.parts(), tallies)
    like = DataConfig.model_validate(job.settings["like"])
    if job.out.suffix in ARRAY:
        write_array(job.out, len(job.ids), (block[kind.result] for block in blocks))
    elif kind.result:
        rows = (block[kind.result].reshape(-1, *like.shape) for block in blocks)
        write_table(job.out, (as_table(x, like.columns) for x in rows))
    else:
        write_table(job.out, blocks)
    images = _pictured(job, kind) if kind.picture and len(like.shape) == 3 else None
    job.remove()
    kind.tell(console, job.settings, tallies)
    say(console, f"{kind.noun}: {job.out}")
    if images is not None:
        across = images.shape[1:-3]  # of rows, how many
        draw(console, images.flatten(0, len(across)), job.out.with_suffix(".png"), *across)


def _pictured(job: Job, kind: Kind) -> Tensor:
    """Return the first items of the column that a picture is made of."""
    found: list[np.ndarray] = []
    for columns in job.parts():
        found.append(columns[kind.picture])
        if sum(map(len, found)) >= DRAWN:
            break
    return torch.from_numpy(np.concatenate(found)[:DRAWN])


def _counted(parts: Iterator[Columns], tallies: Mapping[str, Tally]) -> Iterator[Columns]:
    for columns in parts:
        for name, column in columns.items():
            if column.ndim == 1:
                tallies[name].add(column)
        yield columns


def _job(
    opened: Opened,
    batch_size: int,
    settings: Mapping[str, Any],
    ids: range,
    items: Rows | None,
    shards: int,
) -> Job:
    like = opened.run.config.data
    block = batch_size * max(
        1,
        min(
            -(-len(ids) // (batch_size * _MOST)), _LARGE // (4 * batch_size * math.prod(like.shape))
        ),
    )
    made_from = {
        "command": opened.kind.name,
        "run": RunFolder(opened.folder).mark,
        "like": like.model_dump(mode="json"),
        "data": None if items is None else digest(items),
        "batch_size": batch_size,
        "version": __version__,
        "torch": torch.__version__,
        **settings,
    }
    return Job(opened.out, made_from, ids, block, shards)


def _task(job: Job, part: int, items: Rows | None) -> Task:
    ids = job.items(part)
    return Task(part, ids, None if items is None else _rows(items, ids))


def _rows(items: Rows, ids: range) -> Tensor:
    return items[torch.arange(ids.start, ids.stop)]
