"""What `scorefield encode`, `decode` and `interpolate` do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from scorefield import solvers
from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.commands import draw, say
from scorefield.cli.options import ItemOptions, JobOptions
from scorefield.cli.parts import DRAWN, Kind, in_parts, open_run, parse_ids, read_items
from scorefield.cli.tally import Tally
from scorefield.data.contents import whole
from scorefield.data.source import read_contents
from scorefield.runs.jobs.engines import Task
from scorefield.runs.jobs.parts import Columns
from scorefield.runs.jobs.tables import write_array
from scorefield.runs.run import Run
from scorefield.sampling import ROUND_TRIP_CALLS, Codes, Plan, round_trip_plan

_CALLS = 4  # of a reversible step


def encode(
    console: Console,
    folder: Path,
    source: str,
    options: JobOptions,
    *,
    nfe: int | None,
    reversible: bool,
    any_scale: bool,
) -> None:
    """Write the codes of a source, ``(N, ...)``, or of reversible steps pairs, ``(N, 2, ...)``."""
    target = folder / f"codes-{Path(source).stem}"
    opened = open_run(folder, options, ENCODING, target, options.ids)
    plan, x = _plan(opened.run, nfe, reversible), read_items(opened.run, source, any_scale)
    work = partial(_codes_of, plan=plan, y=opened.y, batch_size=options.batch_size)
    settings = {"nfe": nfe, "reversible": reversible, "y": opened.y}
    in_parts(console, opened, options, work, settings, parse_ids(options.ids, len(x)), x)


def decode(
    console: Console, folder: Path, source: Path, options: JobOptions, *, nfe: int | None
) -> None:
    """Write the data of codes; pairs are taken back by the reversible steps that made them."""
    target = source.with_name(f"{source.stem}-decoded")
    opened = open_run(folder, options, DECODING, target, options.ids)
    codes, shape = _codes(source), opened.run.field.shape
    pairs = tuple(codes.shape[1:]) == (2, *shape)
    if not pairs and tuple(codes.shape[1:]) != shape:
        raise DataError(
            f"{source} holds codes of shape {tuple(codes.shape[1:])}: this run's are {shape}, or "
            f"{(2, *shape)} of reversible steps."
        )
    if pairs and nfe is None:
        raise UsageError(
            f"{source} holds pairs, which come back by the steps that made them and no others: "
            f"give the --nfe of their encoding, {ROUND_TRIP_CALLS} unless it was given there."
        )
    plan = _plan(opened.run, nfe, pairs)
    work = partial(_data_of, plan=plan, pairs=pairs, y=opened.y, batch_size=options.batch_size)
    settings = {"nfe": nfe, "pairs": pairs, "y": opened.y}
    in_parts(console, opened, options, work, settings, parse_ids(options.ids, len(codes)), codes)


def _codes_of(run: Run, task: Task, *, plan: Plan, y: int | None, batch_size: int) -> Columns:
    assert task.x is not None
    found = run.encode(task.x, plan, y=y, ids=task.ids, batch_size=batch_size)
    pair = found.z if found.partner is None else torch.stack([found.z, found.partner], 1)
    return {"codes": pair.numpy(), "error": found.error.numpy()}


def _data_of(
    run: Run, task: Task, *, plan: Plan, pairs: bool, y: int | None, batch_size: int
) -> Columns:
    assert task.x is not None
    given: Tensor | Codes = task.x
    if pairs:
        given = Codes(task.x[:, 0], torch.zeros(len(task.x)), 0, task.x[:, 1])
    found = run.decode(given, plan, y=y, ids=task.ids, batch_size=batch_size)
    return {"x": found.x.numpy(), "error": found.error.numpy()}


def _tell_codes(
    console: Console, settings: Mapping[str, Any], tallies: Mapping[str, Tally]
) -> None:
    _tell(console, tallies["error"], "the sample")


def _tell_data(console: Console, settings: Mapping[str, Any], tallies: Mapping[str, Tally]) -> None:
    if not settings["pairs"]:  # which come back also where they were not made by these steps
        _tell(console, tallies["error"], "the code")


def _tell(console: Console, error: Tally, what: str) -> None:
    say(
        console,
        f"{error.count} items; a round trip changes {error.mean:.1e} of {what} on average, "
        f"{error.largest:.1e} at worst",
    )


ENCODING = Kind("encoding", "codes", _tell_codes, result="codes")
DECODING = Kind("decoding", "samples", _tell_data, result="x", picture="x", tabular=True)
INTERPOLATION = Kind("interpolation", "strips", _tell_codes, result="x", picture="x")


def interpolate(
    console: Console,
    folder: Path,
    source: str,
    options: ItemOptions,
    *,
    pairs: list[str],
    points: int,
    nfe: int | None,
) -> None:
    """Write the strips between pairs of items of a source, ``(pairs, points, ...)``."""
    opened = open_run(folder, options, INTERPOLATION, folder / f"strips-{Path(source).stem}")
    run, out = opened.run, opened.out
    x = read_items(run, source)
    if not pairs:
        raise UsageError("--pairs: give numbers of items, such as 0:1.")
    ends = [_pair(text, len(x)) for text in pairs]
    first, last = (x[torch.tensor(side)] for side in zip(*ends, strict=True))
    began = time.monotonic()
    found = run.interpolate(
        first,
        last,
        _plan(run, nfe, False),
        y=opened.y,
        points=points,
        batch_size=options.batch_size,
    )
    write_array(out, len(found.x), [found.x.numpy()])
    say(
        console,
        f"{len(ends)} strips of {points} in {time.monotonic() - began:.1f} s, NFE {found.nfe} a "
        f"batch; a round trip of the ends changes at most {float(found.error.max()):.1e} of them",
    )
    say(console, f"strips: {out}")
    if len(run.field.shape) == 3:
        draw(console, found.x.flatten(0, 1)[:DRAWN], out.with_suffix(".png"), points)


def _plan(run: Run, nfe: int | None, reversible: bool) -> Plan:
    calls = ROUND_TRIP_CALLS if nfe is None else nfe
    if not reversible:
        return round_trip_plan(run.field, calls)
    if calls < 2 * _CALLS or calls % _CALLS:
        raise UsageError(
            f"--nfe {calls}: reversible steps cost {_CALLS} calls each, so give a multiple of "
            f"{_CALLS}, {2 * _CALLS} or more."
        )
    times = round_trip_plan(run.field, calls // _CALLS).times
    return Plan(solvers.Reversible(solvers.Singlestep(2)), times, finish=False)


def _codes(source: Path) -> Tensor:
    """Return the numbers of a file of codes."""
    array = whole(read_contents(source).values)
    if array.dtype.kind != "f" or array.ndim < 2 or len(array) == 0:
        raise DataError(
            f"{source} has shape {array.shape} and type {array.dtype}: codes are floating numbers, "
            "an item or more."
        )
    values = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{source} holds values that are not finite: no codes.")
    return torch.from_numpy(values)


def _pair(text: str, count: int) -> tuple[int, int]:
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"--pairs {text}: give two numbers of items, such as 0:1.") from None
    if not (0 <= first < count and 0 <= last < count):
        raise UsageError(f"--pairs {text}: the items are 0 to {count - 1}.")
    return first, last
