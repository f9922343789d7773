"""What commands over the items of a file share: opening a run, checking the data, work in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from scorefield import __version__
from scorefield.cli.commands import check_class, say, track
from scorefield.data import read
from scorefield.data.rows import Rows, chunks, digest
from scorefield.data.transform import moments
from scorefield.errors import DataError, UsageError
from scorefield.jobs import Job, fingerprint
from scorefield.training.run import Run, load

Columns = dict[str, np.ndarray]

_WIDEST = 8.0  # how many times wider or narrower data may be than what was learned
_MOST = 1000  # parts


def open_run(folder: Path, y: int | None, tile: int, out: Path, overwrite: bool) -> Run:
    """Return a run, or refuse what would not fit it or lose a file."""
    if tile < 1:
        raise UsageError(f"--tile {tile}: give at least 1.")
    if out.is_dir():
        raise UsageError(f"{out} is a folder: give --out a file's name in it.")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already: give another --out, or --overwrite.")
    run = load(folder)
    check_class(run, y)
    return run


def read_items(run: Run, source: str, any_scale: bool = True) -> Rows:
    """Return the items of a source.

    Raises:
        DataError: another shape than the run's, not in its levels, or of another scale.
    """
    x = read(source, learn=False, like=run.config.data).x
    for chunk in chunks(x):
        run.check(chunk, source)
    if any_scale or len(x) < 16 or math.prod(x.shape) < 64:
        return x
    mean, variance = moments(x, run.encoding)
    center, spread = run.transform.forward(mean), variance / run.transform.std.double() ** 2
    wide = float((spread + (center - center.mean()) ** 2).mean().sqrt())
    if not 1 / _WIDEST <= wide <= _WIDEST:
        raise DataError(
            f"{source} spreads {wide:.3g} times as wide as what the run was trained on: bring it "
            "to the same units, or say --any-scale if that is the question."
        )
    return x


@contextmanager
def in_parts(
    console: Console,
    title: str,
    folder: Path,
    items: Rows,
    out: Path,
    work: Callable[[range], Mapping[str, np.ndarray]],
    tile: int,
    options: Mapping[str, Any],
) -> Iterator[Columns]:
    """Do work over items, and give the columns of all; what a cut run has left is not done again.

    The parts are removed at the end of the ``with`` block, when the result is written.

    Raises:
        UsageError: parts of another job lie beside ``out``.
    """
    made_from = {
        "command": title,
        "run": fingerprint(folder / "model.safetensors", folder / "config.toml"),
        "data": digest(items),
        "options": {"tile": tile, **options},
        "version": __version__,
    }
    job = Job(out, made_from, len(items), tile * -(-len(items) // (tile * _MOST)))
    missing = job.missing()
    if len(missing) < len(job):
        say(console, f"going on: {len(job) - len(missing)} of {len(job)} parts are there")
    for part in track(console, missing, len(missing), title):
        job.write(part, work(job.items(part)))
    yield job.joined()
    job.remove()
