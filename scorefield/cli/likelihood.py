"""What `scorefield likelihood` does: a row for every item, and a summary."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from scorefield.adaptive import Adaptive
from scorefield.cli.commands import say
from scorefield.cli.parts import Columns, in_parts, open_run, read_items
from scorefield.data.table import check_table, write_table
from scorefield.errors import UsageError
from scorefield.training.run import Run


def likelihood(
    console: Console,
    folder: Path,
    source: str,
    *,
    settings: Mapping[str, Any],
    bound: bool,
    any_scale: bool,
    y: int | None,
    seed: int,
    tile: int,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Write the log-density of every item of a source under a run, and print the mean.

    ``settings`` are the options of how: nfe, rtol, probes, stderr, max_probes, draws, prior.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    _check_options(given, bound)
    out = folder / f"likelihood-{Path(source).stem}.csv" if out is None else out
    run = open_run(folder, y, tile, out, overwrite)
    check_table(out)
    x, began = read_items(run, source, any_scale), time.monotonic()
    options = {**given, "bound": bound, "y": y, "seed": seed}

    def work(items: range) -> Columns:
        where = {"y": y, "ids": list(items), "seed": seed, "tile": tile}
        return _columns(run, x[torch.tensor(items)], given, bound, where)

    with in_parts(console, "likelihood", folder, x, out, work, tile, options) as columns:
        columns = {"id": np.arange(len(x)), **columns}
        write_table(out, columns)
    _summary(console, columns, bound, time.monotonic() - began)
    say(console, f"table: {out}")


def _check_options(given: Mapping[str, Any], bound: bool) -> None:
    if "max_probes" in given and "stderr" not in given:
        raise UsageError("--max-probes has no effect without --stderr.")
    idle = [name for name in given if bound and name not in ("nfe", "prior")]
    if idle:
        raise UsageError(f"--{idle[0].replace('_', '-')} has no effect with --bound.")


def _columns(
    run: Run, x: Tensor, given: Mapping[str, Any], bound: bool, where: Mapping[str, Any]
) -> Columns:
    options = dict(given)
    rtol = options.pop("rtol", None)
    if rtol is not None:
        options["adaptive"] = Adaptive(rtol, rtol)
    found = run.elbo(x, **where, **options) if bound else run.log_prob(x, **where, **options)
    columns = {name: value.cpu().numpy() for name, value in vars(found).items()}
    columns = {("bound" if bound else "log_prob"): columns.pop("value"), **columns}
    for name in ("nfe", "products", "probes"):
        if name in columns:
            columns[name] = columns[name].astype(np.int64)
    if run.config.train.levels:
        nats = columns["bound" if bound else "log_prob"]
        columns["bits_per_dim"] = -nats / (x[0].numel() * math.log(2))
    return columns


def _summary(console: Console, columns: Columns, bound: bool, seconds: float) -> None:
    """Print means with the standard error over the items, and the parts of the error."""

    def line(name: str, unit: str) -> str:
        values = columns[name]
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return f"{values.mean():.4f} ± {error:.4f} {unit}"

    count = len(columns["id"])
    say(console, f"{count} items, NFE {columns['nfe'].mean():.0f} per item, {seconds:.1f} s")
    name = "bound" if bound else "log_prob"
    say(console, f"{name.replace('_', '-')}: {line(name, 'nats')} (mean ± standard error)")
    if "bits_per_dim" in columns:
        say(console, f"bits per dimension: {line('bits_per_dim', '')}".rstrip())
    parts = {"probes": float(np.sqrt((columns["stderr"] ** 2).mean()))}
    for part in ("solver_error", "truncation", "prior_mismatch"):
        if part in columns:
            parts[part] = float(np.abs(columns[part]).mean())
    told = ", ".join(f"{part.replace('_', ' ')} {value:.2g}" for part, value in parts.items())
    say(console, f"of an item, in nats: {told}")
