"""`scorefield compare`: plans on a run, by their cost and by the quality of their samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from scorefield._internal.errors import UsageError
from scorefield._internal.text import one_line
from scorefield.cli.console import say, track
from scorefield.cli.options import (
    CALLS,
    ITEMS,
    PRECISION,
    Conditions,
    Guidance,
    ItemOptions,
    RunPath,
    Seed,
    SolverName,
    option,
    whole_numbers,
)

if TYPE_CHECKING:
    from scorefield.cli.opening import Opened
    from scorefield.evaluate.metrics import Metric
    from scorefield.field import ScoreField
    from scorefield.sampling import Plan
    from scorefield.tuning.frontier import Frontier

ComparedName = Literal["default", "tuned"] | SolverName
MetricName = Literal["sliced", "energy", "mmd", "frechet", "c2st", "prdc"]
USUAL: tuple[ComparedName, ...] = (
    "default",
    "tuned",
    "ddim",
    "heun",
    "dpm-solver++",
    "unipc",
    "dopri5",
    "ddpm",
    "euler-maruyama",
)
CLASSES: dict[MetricName, str] = {
    "sliced": "SlicedWasserstein",
    "energy": "EnergyDistance",
    "mmd": "MMD",
    "frechet": "FrechetDistance",
    "c2st": "C2ST",
    "prdc": "PRDC",
}
_MOST_MOMENTS = 1024  # coordinates of a Fréchet distance


def compare(
    run: RunPath,
    data: str | None = None,
    /,
    *,
    held_out: Annotated[bool, option(ITEMS)] = False,
    conditions: Conditions = None,
    n: Annotated[int | None, option(ITEMS, "512, or as many as the data allows")] = None,
    item: ItemOptions = ItemOptions(),
    guidance: Guidance = 1.0,
    seed: Seed = 0,
    nfe: Annotated[tuple[str, ...], option(CALLS, "5,10,20")] = ("5,10,20",),
    solvers: Annotated[tuple[ComparedName, ...] | None, option(CALLS, " ".join(USUAL))] = None,
    metrics: Annotated[
        tuple[MetricName, ...] | None, option(PRECISION, "sliced energy c2st")
    ] = None,
) -> None:
    """Compare plans on a run: network calls and time, error of the path, distance to data.

    Each measurement has a confidence interval. The last row is the distance of data to data, which
    no plan can improve on. Prints a table, and writes frontier.json and a picture to the run
    folder; `scorefield sample` with --tolerance or --time-per-sample picks from it. For a run of
    vectors with conditions, it also prints the calibration of draws given those of the items.

    Parameters
    ----------
    data
        Held-out data: a file of items of the kind the run was trained on, or a built-in set.
        Without data, only errors and times are measured.
    held_out
        Use only the items that training held out; DATA is the training data.
    n
        Number of samples of each plan.
    nfe
        Network calls per sample; each solver takes as many steps as fit.
    solvers
        Plans to compare: the default plan, the tuned plans in the run folder, and solvers. bosh3,
        dopri5 and tsit5 choose their own steps, with tolerances 0.01 and 0.001.
    metrics
        Distances to the data.
    """
    from scorefield.cli.opening import open_run
    from scorefield.runs.calibrate import measured_columns
    from scorefield.runs.jobs.tables import check_target, refuse_file
    from scorefield.sampling import MOST_ROWS

    budgets = whole_numbers("nfe", nfe)
    _check_options(
        data, n, budgets, {"metrics": metrics, "conditions": conditions, "held-out": held_out}
    )
    opened = open_run(run, item, guidance)
    out = opened.folder.frontier_path(opened.given.name, guidance) if item.out is None else item.out
    check_target(out, (".json",), item.overwrite)
    refuse_file(out.with_suffix(".png"), item.overwrite)
    chosen = _metrics(opened.run.field, metrics)
    plans = _plans(opened, budgets, solvers)
    _check_deterministic(data, plans)
    if data is None:
        say("no data to compare with: measuring errors and times only")
    if guidance != 1:
        say(f"guidance {guidance:g}: each call evaluates the network twice")
    result = replace(opened.run, folder=None).compare(  # which `out` takes the place of
        data,
        plans,
        given=opened.given.of(range(1)),
        conditions=conditions,
        held_out=held_out,
        n=n,
        seed=seed,
        metrics=chosen,
        batch_size=opened.batch_size(MOST_ROWS),
        progress=lambda work: track(work, len(work), "comparing"),
    )
    opened.folder.save_frontier(result, out)
    say(str(result))
    say(f"frontier: {out}")
    _draw(result, out.with_suffix(".png"))
    if data is not None and not opened.given.values and measured_columns(opened.run):
        _calibrate(opened, data, conditions, held_out=held_out, seed=seed)


def _calibrate(opened: Opened, data: str, conditions: Any, **settings: Any) -> None:
    """Print the calibration of the run's plan on pairs of items and conditions, if there are some.

    Data without the conditions of its items is compared all the same.
    """
    from scorefield.runs.calibrate import DRAWS, LEAST, calibrate

    run = opened.run
    items = run.read(data, conditions)
    if len(items.conditions.channels) < len(run.config.data.conditions) or len(items.x) < LEAST:
        say("no calibration: it needs 20 items with all conditions, as by --conditions")
        return
    say(f"calibration of {DRAWS} draws given the conditions of each item:")
    say(str(calibrate(run, items, **settings)))


def _check_options(
    data: str | None, n: int | None, budgets: Sequence[int], data_options: Mapping[str, object]
) -> None:
    from scorefield.tuning.frontier.measure import SMALLEST

    if n is not None and n < SMALLEST:
        raise UsageError(f"--n {n}: give at least {SMALLEST}.")
    if min(budgets, default=0) < 2:
        raise UsageError("--nfe: a plan makes at least 2 network calls.")
    for name, value in data_options.items():
        if data is None and value:
            raise UsageError(f"--{name} has no effect without data to compare with.")


def _check_deterministic(data: str | None, plans: Mapping[str, Sequence[Plan]]) -> None:
    """Reject a comparison of times alone."""
    every = [plan for several in plans.values() for plan in several]
    if data is None and all(plan.solver.weak_order is not None for plan in every):
        raise UsageError(
            f"--solvers {' '.join(plans)}: these solvers add noise, so they follow no path whose "
            "error can be measured. Give data to compare with, or solvers of the ODE."
        )


def _metrics(field: ScoreField, names: Sequence[MetricName] | None) -> Sequence[Metric] | None:
    from scorefield.evaluate import metrics

    if not names:
        return None
    dim = math.prod(field.shape)
    if "frechet" in names and dim > _MOST_MOMENTS:
        raise UsageError(
            f"--metrics frechet: the covariance of {dim} coordinates is too large. In Python, "
            "scorefield.frontier measures it on features."
        )
    return [getattr(metrics, CLASSES[name])() for name in names]


def _plans(
    opened: Opened, budgets: Sequence[int], names: Sequence[ComparedName] | None
) -> dict[str, list[Plan]]:
    """Return the plans to compare, by the names of their lines."""
    from scorefield.cli.plan_options import guidance_option, plans_within

    result: dict[str, list[Plan]] = {}
    for name in dict.fromkeys(names or USUAL):
        plans = _tuned(opened) if name == "tuned" else plans_within(name, opened.run.field, budgets)
        if plans:
            result[name] = plans
        elif names:
            raise UsageError(
                f"{opened.folder.path} has no tuned plan for this run: run scorefield tune "
                f"{opened.folder.path}{guidance_option(opened.run.guidance)} first."
                if name == "tuned"
                else f"--nfe {budgets[-1]}: a single step of {name} and the end need more calls."
            )
    return result


def _tuned(opened: Opened) -> list[Plan]:
    """Return the tuned plans of the run, and print which files are for another field."""

    def skip(message: str) -> None:
        say(one_line(f"left out: {message}"))

    of = opened.run.conditional, opened.run.guidance, skip
    return [*opened.folder.plans(*of).values(), *opened.folder.parallel_plans(*of).values()]


def _draw(frontier: Frontier, path: Path) -> None:
    from scorefield.report import frontier_chart

    try:
        frontier_chart(frontier).save(path)
        say(f"picture: {path}")
    except ImportError as error:
        say(f"no picture: {error}")
