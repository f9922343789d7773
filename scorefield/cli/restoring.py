"""What `scorefield restore` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.commands import say
from scorefield.cli.measuring import Measurement
from scorefield.cli.options import JobOptions, PlanOptions, RestoreOptions
from scorefield.cli.parts import Kind, Opened, in_parts, open_run, parse_ids
from scorefield.cli.plans import DEFAULT, choose_plan
from scorefield.cli.tally import Tally
from scorefield.data import read
from scorefield.data.rows import Rows, chunks
from scorefield.field import ScoreField
from scorefield.inverse import Mask, Method
from scorefield.inverse.restore import pose
from scorefield.noise import PATHS
from scorefield.runs.jobs.engines import Task
from scorefield.runs.jobs.parts import Columns
from scorefield.runs.run import Run
from scorefield.sampling import Plan, batches, count_calls, prepare
from scorefield.solvers import RePaint


def restore(
    console: Console,
    folder: Path,
    source: str,
    how: RestoreOptions,
    plan_options: PlanOptions,
    options: JobOptions,
) -> None:
    """Write samples of what items may have been, ``(N, ...)``, or ``(N, n, ...)`` for more."""
    target = folder / f"restored-{Path(source).stem}-{how.method}"
    opened = open_run(folder, options, RESTORING, target, options.ids)
    opened.run.check_restoring()
    measurement = Measurement.of(how, opened.run.config.data.shape)
    plan = _plan(opened, folder, plan_options)
    if how.method in ("replacement", "repaint") and measurement.operator is not None:
        raise UsageError(f"--method {how.method} puts known values in place, so it is for --mask.")
    _check_method(opened.run.field, how.method, plan)
    items = _items(opened.run, source, measurement)
    settings = {
        **asdict(how),
        **measurement.settings,
        "y": opened.y,
        "solver": repr(plan.solver),
        "times": plan.times.tolist() if isinstance(plan.times, Tensor) else repr(plan.times),
        "finish": plan.finish,
    }
    work = partial(
        _restored,
        measurement=measurement,
        method=how.method,
        n=how.n,
        plan=plan,
        y=opened.y,
        batch_size=options.batch_size,
    )
    in_parts(console, opened, options, work, settings, parse_ids(options.ids, len(items)), items)


def _plan(opened: Opened, folder: Path, options: PlanOptions) -> Plan:
    """Return the plan that the options ask for, of those that are fitted to no field.

    Raises:
        UsageError: a plan that was tuned, or options that have no effect.
    """
    if options.plan not in (None, DEFAULT):
        raise UsageError(
            f"--plan {options.plan}: it was fitted to samples of nothing measured; leave it out, "
            "or choose --nfe or a --solver."
        )
    if options == PlanOptions(nfe=options.nfe) and options.nfe is not None:
        options = replace(options, plan=DEFAULT)
    elif (options.nfe, options.solver, options.plan) == (None, None, None):  # `restoration_plan`
        options = replace(options, solver="ddim", eta=1.0 if options.eta is None else options.eta)
    plan = choose_plan(options, folder).make(opened.run)
    prepare(opened.run.field, plan)  # refuses what does not fit before any work
    return plan


def _check_method(field: ScoreField, method: Method, plan: Plan) -> None:
    """Refuse a plan that a method cannot take, before any work.

    Raises:
        UsageError: more repeated steps than a sample has noise for.
        ValueError: a solver, or steps, that known values cannot be put in place between.
    """
    if method not in ("replacement", "repaint"):
        return
    if method == "repaint" and isinstance(plan.times, Tensor):
        most = (PATHS - 1) // RePaint.repeats
        if plan.solver.weak_order is not None and len(plan.times) - 1 > most:
            raise UsageError(
                f"--steps {len(plan.times) - 1}: repaint takes each {RePaint.repeats} times, and a "
                f"sample has noise for {most} steps: give at most that."
            )
    nothing = Mask(torch.zeros(field.shape, dtype=torch.bool), checked=True)
    _, placed = pose(method, field, nothing, torch.zeros(1, *field.shape), 0.0, plan, {})
    prepare(field, placed)


def _items(run: Run, source: str, measurement: Measurement) -> Rows:
    """Return the items of a source.

    Raises:
        DataError: they do not fit the run, or what measured them; nothing is unknown.
    """
    x = read(source, learn=False, missing="keep", like=run.config.data).x
    operator, unknown, first = measurement.operator, 0, 0
    shape = run.config.data.shape if operator is None else operator.shape(run.config.data.shape)
    for chunk in chunks(x):
        if measurement.corrupt:
            run.check_data(chunk, source)
        elif tuple(chunk.shape[1:]) != shape:
            raise DataError(
                f"{source} has items of shape {tuple(chunk.shape[1:])}: what was measured of this "
                f"run's {run.config.data.shape} has {shape}."
            )
        y = measurement.measured(chunk, range(first, first + len(chunk)))
        first += len(chunk)
        unknown += int(y.isnan().sum())
        if operator is None:
            run.check_partial(y, source, exact=not measurement.noise)
        elif not bool(y.isfinite().all()):
            raise DataError(f"{source} has values that are not finite: only --mask leaves any out.")
    if operator is None and not unknown and not measurement.noise:
        raise DataError(
            f"{source} has no gaps to fill: say what was measured by --mask, --downsample, --grey "
            "or --blur."
        )
    return x


def _restored(
    run: Run,
    task: Task,
    *,
    measurement: Measurement,
    method: Method,
    n: int,
    plan: Plan,
    y: int | None,
    batch_size: int,
) -> Columns:
    assert task.x is not None
    measured = measurement.measured(task.x, task.ids)
    with count_calls(run.field) as calls:
        x = run.restore(
            measured,
            measurement.operator,
            measurement.noise,
            method=method,
            n=n,
            solver=plan,
            y=y,
            ids=task.ids,
            seed=measurement.seed,
            batch_size=batch_size,
        )
    drawn = range(task.ids.start * n, task.ids.stop * n)
    each = calls.rows / (batch_size * sum(1 for _ in batches(drawn, batch_size)))
    columns = {"x": (x if n > 1 else x[:, 0]).numpy(), "nfe": np.full(len(x), each)}
    if x.ndim == 5:
        rows = [_shown(measured, x), x, *([task.x[:, None].to(x)] if measurement.corrupt else [])]
        columns["row"] = torch.cat(rows, 1).numpy()
    return columns


def _shown(measured: Tensor, x: Tensor) -> Tensor:
    """Return what was measured as images beside restored ones ``(N, n, C, H, W)``."""
    size, channels = x.shape[3:], x.shape[2]
    wide = functional.interpolate(measured.float(), size=size, mode="nearest")
    least = x.flatten(1).amin(1).reshape(-1, 1, 1, 1)
    return torch.where(wide.isnan(), least, wide).expand(-1, channels, -1, -1)[:, None].to(x)


def _tell(console: Console, settings: Mapping[str, Any], tallies: Mapping[str, Tally]) -> None:
    times, nfe = settings["times"], tallies["nfe"]
    how = times if isinstance(times, str) else f"{len(times) - 1} steps"
    say(
        console,
        f"{nfe.count} items, {settings['n']} sample(s) each by {settings['method']}, "
        f"{settings['solver']}, {how}: NFE {nfe.mean:g} per sample, and products with Jacobians",
    )


RESTORING = Kind("restoring", "restored", _tell, result="x", picture="row", tabular=True)
