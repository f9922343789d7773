"""What `scorefield likelihood` does: a row for every item, and a summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from scorefield._internal.errors import UsageError
from scorefield.cli.commands import say
from scorefield.cli.options import JobOptions
from scorefield.cli.parts import Kind, in_parts, open_run, parse_ids, read_items
from scorefield.cli.tally import Tally
from scorefield.runs.jobs.engines import Task
from scorefield.runs.jobs.parts import Columns
from scorefield.runs.run import Run
from scorefield.sampling import Adaptive


def likelihood(
    console: Console,
    folder: Path,
    source: str,
    options: JobOptions,
    *,
    how: Mapping[str, Any],
    bound: bool,
    any_scale: bool,
    seed: int,
) -> None:
    """Write the log-density of every item of a source under a run, and print the mean.

    ``how`` are the options nfe, rtol, probes, stderr, max_probes, draws, prior.
    """
    given = {name: value for name, value in how.items() if value is not None}
    _check_options(given, bound)
    target = folder / f"likelihood-{Path(source).stem}"
    opened = open_run(folder, options, LIKELIHOOD, target, options.ids)
    opened.run.check_density()
    x = read_items(opened.run, source, any_scale)
    where = {"y": opened.y, "seed": seed, "batch_size": options.batch_size}
    work = partial(_rows, given=given, bound=bound, where=where)
    settings = {**given, "bound": bound, "y": opened.y, "seed": seed}
    in_parts(console, opened, options, work, settings, parse_ids(options.ids, len(x)), x)


def _check_options(given: Mapping[str, Any], bound: bool) -> None:
    if "max_probes" in given and "stderr" not in given:
        raise UsageError("--max-probes has no effect without --stderr.")
    idle = [name for name in given if bound and name not in ("nfe", "prior")]
    if idle:
        raise UsageError(f"--{idle[0].replace('_', '-')} has no effect with --bound.")


def _rows(
    run: Run, task: Task, *, given: Mapping[str, Any], bound: bool, where: Mapping[str, Any]
) -> Columns:
    assert task.x is not None
    options = dict(given)
    rtol = options.pop("rtol", None)
    if rtol is not None:
        options["adaptive"] = Adaptive(rtol, rtol)
    tell = run.elbo if bound else run.log_prob
    found = tell(task.x, ids=task.ids, **where, **options)
    columns = {name: value.cpu().numpy() for name, value in vars(found).items()}
    name = "bound" if bound else "log_prob"
    columns = {
        "id": np.arange(task.ids.start, task.ids.stop),
        name: columns.pop("value"),
        **columns,
    }
    for counted in ("nfe", "products", "probes"):
        if counted in columns:
            columns[counted] = columns[counted].astype(np.int64)
    if run.config.train.levels:
        columns["bits_per_dim"] = -columns[name] / (task.x[0].numel() * math.log(2))
    return columns


def _tell(console: Console, settings: Mapping[str, Any], tallies: Mapping[str, Tally]) -> None:
    """Print means with the standard error over the items, and the parts of the error."""

    def line(name: str, unit: str) -> str:
        return f"{tallies[name].mean:.4f} ± {tallies[name].stderr:.4f}{unit}"

    say(console, f"{tallies['id'].count} items, NFE {tallies['nfe'].mean:.0f} per item")
    name = "bound" if settings["bound"] else "log_prob"
    say(console, f"{name.replace('_', '-')}: {line(name, ' nats')} (mean ± standard error)")
    if "bits_per_dim" in tallies:
        say(console, f"bits per dimension: {line('bits_per_dim', '')}")
    parts = {"probes": tallies["stderr"].rms}
    for part in ("solver_error", "truncation", "prior_mismatch"):
        if part in tallies:
            parts[part] = tallies[part].size / tallies[part].count
    told = ", ".join(f"{part.replace('_', ' ')} {value:.2g}" for part, value in parts.items())
    say(console, f"of an item, in nats: {told}")


LIKELIHOOD = Kind("likelihood", "table", _tell)
