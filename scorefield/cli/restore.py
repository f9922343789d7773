"""`scorefield restore`: samples of items from a measurement of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.console import say
from scorefield.cli.options import (
    CALLS,
    ITEMS,
    MEASUREMENT,
    SOLVER,
    Items,
    JobOptions,
    RestoreSolver,
    RunPath,
    Seed,
    SolverOptions,
    option,
)
from scorefield.cli.results import ResultKind, Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.cli.measurement import Measurement
    from scorefield.cli.opening import GivenItems
    from scorefield.cli.plan_options import NamedPlan
    from scorefield.data.rows import Rows
    from scorefield.field import ScoreField
    from scorefield.inverse import Method
    from scorefield.runs.jobs.engines import Task
    from scorefield.runs.jobs.parts import Columns
    from scorefield.runs.run import Run
    from scorefield.sampling import Plan

Draws = Literal["each", "mean", "mode"]
MethodName = Literal["mmps", "pigdm", "dps", "replacement", "repaint"]
_PLACING = ("replacement", "repaint")  # methods that put known values in place


def restore(
    run: RunPath,
    data: Items,
    /,
    *,
    n: Annotated[int, option(ITEMS)] = 1,
    draws: Annotated[Draws, option(ITEMS)] = "each",
    job: JobOptions = JobOptions(),
    seed: Seed = 0,
    mask: Annotated[str | None, option(MEASUREMENT, "empty cells and NaN")] = None,
    downsample: Annotated[int | None, option(MEASUREMENT)] = None,
    grey: Annotated[bool, option(MEASUREMENT)] = False,
    blur: Annotated[float | None, option(MEASUREMENT)] = None,
    noise: Annotated[float, option(MEASUREMENT)] = 0.0,
    corrupt: Annotated[bool, option(MEASUREMENT)] = False,
    nfe: Annotated[int | None, option(CALLS, "20")] = None,
    method: Annotated[MethodName, option(SOLVER)] = "mmps",
    solver: RestoreSolver = RestoreSolver(),
) -> None:
    """Restore items that were measured in part, at low resolution or with noise.

    Samples the items given the measurement; by default it fills in the missing values of a table.
    Writes a table if the run was trained on a table, otherwise a .npy file; and a picture of
    images with their measurements. Conditions are those of --given, or columns of the items. The
    same command resumes work that was interrupted.

    Parameters
    ----------
    n
        Samples of each item. A table then begins with the columns item and draw.
    draws
        Rows of each item: each of its samples; their mean, with the most frequent of categories;
        or the most frequent value of each entry.
    mask
        Unknown values: top, bottom, left or right, for that half of an image;
        box:top,left,height,width in pixels; random:0.7 for that share of the pixels of each item;
        or a .npy or .png file that is 0 or black where values are unknown.
    downsample
        The items are means over square blocks with this side.
    grey
        The items are grey versions of color images.
    blur
        The items were blurred by a Gaussian with this standard deviation in pixels, with periodic
        edges.
    noise
        Standard deviation of the noise in the items, in the data's units. dps does not use it.
    corrupt
        The items are complete: apply mask, operator and noise to them first, to try a method.
    nfe
        Network calls per sample, by the default solver. To choose solver and steps yourself, use
        the options of the solver.
    method
        Posterior approximation: mmps uses the field's covariance, pigdm a single variance, dps a
        gradient step of fixed length; replacement and repaint put known values in place (--mask).
    """
    from scorefield.cli.jobs import in_parts, parse_ids, target
    from scorefield.cli.measurement import Measurement
    from scorefield.cli.opening import open_run, with_columns

    if n < 1:
        raise UsageError(f"--n {n}: give at least 1.")
    opened = with_columns(open_run(run, job), data)
    name = run / f"restored-{Path(data).stem}-{method}"
    out = target(RESTORED, opened, name, job.ids)
    opened.run.check_restoring()
    options = {"mask": mask, "downsample": downsample, "grey": grey, "blur": blur}
    shape = opened.run.config.data.shape
    measurement = Measurement.of(options, shape, noise=noise, corrupt=corrupt, seed=seed)
    if method in _PLACING and measurement.operator is not None:
        raise UsageError(f"--method {method} puts known values in place: it needs --mask.")
    chosen = _plan(opened.run, method, nfe, solver)
    _check_method(opened.run.field, method, chosen.plan)
    items = _items(opened.run, data, measurement)
    settings = {
        **options,
        **measurement.settings,
        **chosen.settings,
        "method": method,
        "n": n,
        "draws": draws,
        "given": opened.given.name,
    }
    work = partial(
        _restored,
        measurement=measurement,
        method=method,
        n=n,
        draws=draws,
        plan=chosen.plan,
        given=opened.given,
    )
    ids = parse_ids(job.ids, len(items))
    results = n if draws == "each" else 1
    in_parts(opened, RESTORED, out, work, settings, ids, items, samples=n, results=results)


def _plan(run: Run, method: Method, nfe: int | None, options: SolverOptions) -> NamedPlan:
    """Return the plan that the options name; tuned plans are for unconditional samples only."""
    from scorefield.cli.plan_options import NamedPlan, solver_plan
    from scorefield.inverse.restore import restoration, restoration_order
    from scorefield.sampling import prepare, resolve

    default = restoration(method)
    if options == RestoreSolver():
        chosen = NamedPlan("", resolve(run.field, nfe=nfe, default=default))
    elif nfe is not None:
        raise UsageError(
            f"--nfe {nfe} cannot be combined with the options of a solver: it already selects "
            "solver and times."
        )
    else:
        unset = {"order": restoration_order(method), "eta": 1.0}
        chosen = solver_plan(run, options, default, unset)
    prepare(run.field, chosen.plan)  # raises before any work
    return chosen


def _check_method(field: ScoreField, method: Method, plan: Plan) -> None:
    """Reject a plan that a method cannot use, before any work.

    Raises:
        ValueError: a solver, or steps, that known values cannot be put in place between.
    """
    import torch

    from scorefield.inverse import Mask
    from scorefield.inverse.restore import pose
    from scorefield.sampling import prepare

    if method not in _PLACING:
        return
    nothing = Mask(torch.zeros(field.shape, dtype=torch.bool), checked=True)
    _, placed = pose(method, field, nothing, torch.zeros(1, *field.shape), 0.0, plan, {})
    prepare(field, placed)


def _items(run: Run, source: str, measurement: Measurement) -> Rows:
    """Return the items of a source.

    Raises:
        DataError: they do not fit the run or the measurement; nothing is unknown.
    """
    from scorefield.data.rows import chunks
    from scorefield.data.source import read

    x = read(source, learn=False, missing="keep", like=run.config.data).x
    operator, unknown, first = measurement.operator, 0, 0
    shape = run.config.data.shape if operator is None else operator.shape(run.config.data.shape)
    for chunk in chunks(x):
        if measurement.corrupt:
            run.check_data(chunk, source)
        elif tuple(chunk.shape[1:]) != shape:
            raise DataError(
                f"{source} has items of shape {tuple(chunk.shape[1:])}: a measurement of this "
                f"run's {run.config.data.shape} has shape {shape}."
            )
        y = measurement.measured(chunk, range(first, first + len(chunk)))
        first += len(chunk)
        unknown += int(y.isnan().sum())
        if operator is None:
            run.check_partial(y, source, exact=not measurement.noise)
        elif not bool(y.isfinite().all()):
            raise DataError(
                f"{source} has values that are not finite: only --mask allows unknown values."
            )
    if operator is None and not unknown and not measurement.noise:
        raise DataError(
            f"{source} has no missing values: describe the measurement by --mask, --downsample, "
            "--grey or --blur."
        )
    return x


def _restored(
    run: Run,
    task: Task,
    *,
    measurement: Measurement,
    method: Method,
    n: int,
    draws: Draws,
    plan: Plan,
    given: GivenItems,
    batch_size: int,
) -> Columns:
    import numpy as np
    import torch

    from scorefield.cli.jobs import nfe_column
    from scorefield.runs.restore import restore as restore_measured, summary
    from scorefield.sampling import count_calls

    assert task.x is not None
    measured, values = measurement.measured(task.x, task.ids), given.of(task.ids)
    with count_calls(run.field) as calls:
        x = restore_measured(
            run,
            run.toward(values),
            measured,
            measurement.operator,
            measurement.noise,
            method=method,
            n=n,
            solver=plan,
            ids=task.ids,
            seed=measurement.seed,
            batch_size=batch_size,
        )
    drawn = range(task.ids.start * n, task.ids.stop * n)
    nfe = nfe_column(calls.rows, [drawn], batch_size)[: len(x)]
    if draws != "each":
        x = summary(x, draws, run.config.data.columns)[:, None]
    columns = {"x": (x if x.shape[1] > 1 else x[:, 0]).numpy(force=True), "nfe": nfe}
    if x.shape[1] > 1 and x.ndim == 3:
        columns["item"] = np.repeat(np.arange(task.ids.start, task.ids.stop), n)
        columns["draw"] = np.tile(np.arange(n), len(x))
    of_items = run.columns_of(values, len(x))
    columns |= {name: np.repeat(column, x.shape[1], 0) for name, column in of_items.items()}
    if x.ndim == 5:
        rows = [_shown(measured, x), x, *([task.x[:, None].to(x)] if measurement.corrupt else [])]
        columns["row"] = torch.cat(rows, 1).numpy(force=True)
    return columns


def _shown(measured: Tensor, x: Tensor) -> Tensor:
    """Return the measurements as images of the size of the restored ones ``(N, n, C, H, W)``."""
    import torch
    from torch.nn import functional

    size, channels = x.shape[3:], x.shape[2]
    wide = functional.interpolate(measured.float(), size=size, mode="nearest")
    least = x.flatten(1).amin(1).reshape(-1, 1, 1, 1)
    return torch.where(wide.isnan(), least, wide).expand(-1, channels, -1, -1)[:, None].to(x)


def _report(settings: Mapping[str, Any], statistics: Statistics) -> None:
    from scorefield.cli.plan_options import describe_times

    nfe = statistics["nfe"]
    say(
        f"{nfe.count} items, {settings['n']} sample(s) each by {settings['method']}, "
        f"{settings['solver']}, {describe_times(settings)}: NFE {nfe.mean:g} per sample, and "
        "products with Jacobians"
    )


RESTORED = ResultKind("restoring", "restored", _report, result="x", picture="row", tabular=True)
