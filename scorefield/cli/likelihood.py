"""`scorefield likelihood`: the log-density of each item, and a summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from scorefield._internal.errors import UsageError
from scorefield.cli.console import say
from scorefield.cli.options import (
    CALLS,
    PRECISION,
    AnyScale,
    Items,
    JobOptions,
    RunPath,
    Seed,
    option,
)
from scorefield.cli.results import ResultKind, Statistics

if TYPE_CHECKING:
    from scorefield.cli.opening import GivenItems
    from scorefield.runs.jobs.engines import Task
    from scorefield.runs.jobs.parts import Columns
    from scorefield.runs.run import Run


def likelihood(
    run: RunPath,
    data: Items,
    /,
    *,
    job: JobOptions = JobOptions(),
    any_scale: AnyScale = False,
    seed: Seed = 0,
    nfe: Annotated[int | None, option(CALLS, "40, with --bound 128")] = None,
    rtol: Annotated[float | None, option(CALLS)] = None,
    bound: Annotated[bool, option(PRECISION)] = False,
    probes: Annotated[int | None, option(PRECISION, "0 up to 128 dimensions, else 8")] = None,
    stderr: Annotated[float | None, option(PRECISION)] = None,
    max_probes: Annotated[int | None, option(PRECISION)] = None,
    draws: Annotated[int | None, option(PRECISION, "1")] = None,
    prior: Annotated[Literal["moments", "standard"] | None, option(PRECISION)] = None,
) -> None:
    """Compute the log-density of each item of data under a run, with error estimates.

    Writes a .csv or .parquet table with one row per item, in nats in the data's own units, and in
    bits per dimension for data in levels. Prints the mean. The same command resumes work that was
    interrupted.

    Parameters
    ----------
    nfe
        Network calls per item.
    rtol
        Relative tolerance. Each item chooses its own steps; replaces --nfe.
    bound
        Compute the lower bound of the reverse SDE, which needs no Jacobian.
    probes
        Random probes for the trace of the Jacobian; 0 computes it exactly.
    stderr
        Use as many probes as this standard error of each item needs, in nats; replaces --probes.
    max_probes
        The most probes for --stderr.
    draws
        Draws of the noise between levels. More draws give a tighter bound.
    prior
        The distribution at the largest noise level: a Gaussian with the moments of the data, or
        a standard normal one.
    """
    from scorefield.cli.items import read_items
    from scorefield.cli.jobs import in_parts, parse_ids, target
    from scorefield.cli.opening import open_run

    everything = {
        "nfe": nfe,
        "rtol": rtol,
        "probes": probes,
        "stderr": stderr,
        "max_probes": max_probes,
        "draws": draws,
        "prior": prior,
    }
    options = {name: value for name, value in everything.items() if value is not None}
    _check_options(options, bound)
    opened = open_run(run, job)
    out = target(LIKELIHOODS, opened, run / f"likelihood-{Path(data).stem}", job.ids)
    opened.run.check_density()
    x = read_items(opened.run, data, any_scale)
    work = partial(
        _rows,
        options=options,
        bound=bound,
        seed=seed,
        given=opened.given,
    )
    settings = {**options, "bound": bound, "seed": seed, "given": opened.given.name}
    in_parts(opened, LIKELIHOODS, out, work, settings, parse_ids(job.ids, len(x)), x)


def _check_options(options: Mapping[str, Any], bound: bool) -> None:
    if "max_probes" in options and "stderr" not in options:
        raise UsageError("--max-probes has no effect without --stderr.")
    if "nfe" in options and "rtol" in options:
        raise UsageError("--nfe and --rtol cannot be combined.")
    for name in options:
        if bound and name not in ("nfe", "prior"):
            raise UsageError(f"--{name.replace('_', '-')} has no effect with --bound.")


def _rows(
    run: Run,
    task: Task,
    *,
    options: Mapping[str, Any],
    bound: bool,
    batch_size: int,
    seed: int,
    given: GivenItems,
) -> Columns:
    import numpy as np

    from scorefield.sampling import Adaptive

    assert task.x is not None
    settings = {**options, "seed": seed, "batch_size": batch_size, "given": given.of(task.ids)}
    if "rtol" in settings:
        rtol = settings.pop("rtol")
        settings["times"] = Adaptive(rtol, rtol)
    estimate = run.elbo if bound else run.log_prob
    result = estimate(task.x, ids=task.ids, **settings)
    columns = {name: value.numpy(force=True) for name, value in vars(result).items()}
    name = "bound" if bound else "log_prob"
    ids = np.arange(task.ids.start, task.ids.stop)
    columns = {"id": ids, name: columns.pop("value"), **columns}
    for count in ("nfe", "products", "probes"):
        if count in columns:
            columns[count] = columns[count].astype(np.int64)
    if run.config.train.levels:
        columns["bits_per_dim"] = -columns[name] / (task.x[0].numel() * math.log(2))
    return columns


def _report(settings: Mapping[str, Any], statistics: Statistics) -> None:
    """Print means with their standard errors over the items, and the parts of the error."""

    def mean(name: str) -> str:
        return f"{statistics[name].mean:.4f} ± {statistics[name].stderr:.4f}"

    say(f"{statistics['id'].count} items, NFE {statistics['nfe'].mean:.0f} per item")
    name = "bound" if settings["bound"] else "log_prob"
    say(f"{name.replace('_', '-')}: {mean(name)} nats (mean ± standard error)")
    if "bits_per_dim" in statistics:
        say(f"bits per dimension: {mean('bits_per_dim')}")
    errors = {"probes": statistics["stderr"].rms}
    for part in ("solver_error", "truncation", "prior_mismatch"):
        if part in statistics:
            errors[part] = statistics[part].size / statistics[part].count
    text = ", ".join(f"{part.replace('_', ' ')} {value:.2g}" for part, value in errors.items())
    say(f"errors of an item, in nats: {text}")


LIKELIHOODS = ResultKind("likelihood", "table", _report)
