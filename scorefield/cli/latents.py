"""What `scorefield encode`, `decode` and `interpolate` do."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from scorefield import solvers
from scorefield.cli.commands import check_target, draw, say, write_array
from scorefield.cli.parts import Columns, in_parts, open_run, read_items
from scorefield.data.contents import whole
from scorefield.data.source import read_contents
from scorefield.errors import DataError, UsageError
from scorefield.latents import Codes
from scorefield.plan import ROUND_TRIP_CALLS, Plan, round_trip_plan
from scorefield.training.run import Run

_CALLS = 4  # of a reversible step


def encode(
    console: Console,
    folder: Path,
    source: str,
    *,
    nfe: int | None,
    reversible: bool,
    any_scale: bool,
    y: int | None,
    tile: int,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Write the codes of a source, ``(N, ...)``, or of reversible steps pairs, ``(N, 2, ...)``."""
    out = folder / f"codes-{Path(source).stem}.npy" if out is None else out
    run = open_run(folder, y, tile, out, overwrite)
    check_target(out)
    plan, x = _plan(run, nfe, reversible), read_items(run, source, any_scale)

    def work(items: range) -> Columns:
        found = run.encode(x[torch.tensor(items)], plan, y=y, ids=list(items), tile=tile)
        pair = found.z if found.partner is None else torch.stack([found.z, found.partner], 1)
        return {"codes": pair.numpy(), "error": found.error.numpy()}

    options = {"nfe": nfe, "reversible": reversible, "y": y}
    with in_parts(console, "encoding", folder, x, out, work, tile, options) as columns:
        write_array(out, columns["codes"])
    _tell(console, columns["error"], "the sample")
    say(console, f"codes: {out}")


def decode(
    console: Console,
    folder: Path,
    source: Path,
    *,
    nfe: int | None,
    y: int | None,
    tile: int,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Write the data of codes; pairs are taken back by the reversible steps that made them."""
    out = source.with_name(f"{source.stem}-decoded.npy") if out is None else out
    run = open_run(folder, y, tile, out, overwrite)
    check_target(out)
    codes, shape = _codes(source), run.field.shape
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
    plan = _plan(run, nfe, pairs)

    def work(items: range) -> Columns:
        some = codes[items.start : items.stop]
        given: Tensor | Codes = some
        if pairs:
            given = Codes(some[:, 0], torch.zeros(len(some)), 0, some[:, 1])
        found = run.decode(given, plan, y=y, ids=list(items), tile=tile)
        return {"x": found.x.numpy(), "error": found.error.numpy()}

    options = {"nfe": nfe, "y": y}
    with in_parts(console, "decoding", folder, codes, out, work, tile, options) as columns:
        write_array(out, columns["x"])
    if not pairs:  # which come back whatever they are, also where they were not made by these steps
        _tell(console, columns["error"], "the code")
    say(console, f"samples: {out}")
    _picture(console, out, columns["x"], overwrite)


def interpolate(
    console: Console,
    folder: Path,
    source: str,
    *,
    pairs: list[str],
    points: int,
    nfe: int | None,
    y: int | None,
    tile: int,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Write the strips between pairs of items of a source, ``(pairs, points, ...)``."""
    out = folder / f"strips-{Path(source).stem}.npy" if out is None else out
    run = open_run(folder, y, tile, out, overwrite)
    check_target(out)
    x = read_items(run, source)
    if not pairs:
        raise UsageError("--pairs: give numbers of items, such as 0:1.")
    ends = [_pair(text, len(x)) for text in pairs]
    first, last = (x[torch.tensor(side)] for side in zip(*ends, strict=True))
    began = time.monotonic()
    found = run.interpolate(first, last, _plan(run, nfe, False), y=y, points=points, tile=tile)
    write_array(out, found.x.numpy())
    say(
        console,
        f"{len(ends)} strips of {points} in {time.monotonic() - began:.1f} s, NFE {found.nfe} a "
        f"batch; a round trip of the ends changes at most {float(found.error.max()):.1e} of them",
    )
    say(console, f"strips: {out}")
    _picture(console, out, found.x.flatten(0, 1).numpy(), overwrite, columns=points)


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


def _tell(console: Console, error: np.ndarray, what: str) -> None:
    say(
        console,
        f"{len(error)} items; a round trip changes {np.median(error):.1e} of {what} in the median, "
        f"{error.max():.1e} at worst",
    )


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


def _picture(
    console: Console, out: Path, x: np.ndarray, overwrite: bool, columns: int | None = None
) -> None:
    """Draw images beside the array."""
    picture = out.with_suffix(".png")
    if x.ndim == 4 and (overwrite or not picture.exists()):
        draw(console, torch.from_numpy(x), picture, columns)
