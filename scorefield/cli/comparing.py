"""What `scorefield compare` does: plans on a run, by what they cost and what their samples are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scorefield._internal.errors import UsageError
from scorefield._internal.text import one_line
from scorefield.cli.commands import find_class, say, track
from scorefield.cli.options import CompareOptions, ItemOptions
from scorefield.cli.picking import file_of
from scorefield.cli.plans import asking, plan_files, plans_within, toward_none
from scorefield.cli.real import SAMPLES, as_data, real_data
from scorefield.cli.text import numbers
from scorefield.evaluate.metrics import (
    C2ST,
    MMD,
    PRDC,
    EnergyDistance,
    FrechetDistance,
    Measurement,
    Metric,
    SlicedWasserstein,
)
from scorefield.field import ScoreField
from scorefield.runs.folder import PLANS
from scorefield.runs.jobs.tables import check_target, refuse_file
from scorefield.runs.loading import load
from scorefield.sampling import Plan
from scorefield.tuning.frontier import METRICS as USUAL_METRICS, Frontier, frontier
from scorefield.tuning.frontier.measure import SMALLEST

METRICS: dict[str, Callable[[], Metric]] = {
    "sliced": SlicedWasserstein,
    "energy": EnergyDistance,
    "mmd": MMD,
    "frechet": FrechetDistance,
    "c2st": C2ST,
    "prdc": PRDC,
}
USUAL = (
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
_MOST_MOMENTS = 1024  # coordinates that a Fréchet distance is taken of
_WIDEST = 10_000  # columns of characters


def compare(
    console: Console, folder: Path, source: str | None, how: CompareOptions, options: ItemOptions
) -> None:
    """Measure plans on a run, print a table of them, and write and draw it."""
    _check_options(source, how, options.batch_size)
    if how.guidance != 1 and options.y is None:
        raise toward_none(how.guidance)
    run = load(folder).guided(how.guidance)
    y = find_class(run, options.y)
    field = run.toward(y)
    out = file_of(folder, y, run.guidance) if options.out is None else options.out
    check_target(out, (".json",), options.overwrite)
    refuse_file(out.with_suffix(".png"), options.overwrite)
    metrics = _metrics(field, how)
    plans = _plans(console, folder, field, how)
    _check_followed(source, plans)
    data = None if source is None else real_data(run, source, y, how)
    count = (how.n or SAMPLES) if data is None else len(data.other)
    if data is None:
        say(console, "no data to compare with: errors and times alone")
    if run.guidance != 1:
        say(console, f"guidance {run.guidance:g}: each call is two evaluations of the network")
    found = frontier(
        field,
        plans,
        real=None if data is None else data.real,
        other=None if data is None else data.other,
        n=count,
        seed=how.seed,
        metrics=metrics,
        features=partial(as_data, run),
        batch_size=options.batch_size,
        progress=lambda work: track(console, work, len(work), "comparing"),
    )
    found.save(out)
    show(console, found)
    say(console, f"frontier: {out}")
    _draw(console, found, out.with_suffix(".png"))


def _check_options(source: str | None, how: CompareOptions, batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: give at least 1.")
    if how.n is not None and how.n < SMALLEST:
        raise UsageError(f"--n {how.n}: give at least {SMALLEST}.")
    if min(numbers("nfe", how.nfe), default=0) < 2:
        raise UsageError("--nfe: a plan makes at least 2 calls of the network.")
    idle = {"metrics": how.metrics, "labels": how.labels, "held-out": how.held_out}
    for option, given in idle.items():
        if source is None and given:
            raise UsageError(f"--{option} has no effect without data to compare with.")


def _check_followed(source: str | None, plans: Mapping[str, Sequence[Plan]]) -> None:
    """Refuse to compare nothing but times."""
    every = [plan for several in plans.values() for plan in several]
    if source is None and all(plan.solver.weak_order is not None for plan in every):
        raise UsageError(
            f"--solvers {' '.join(plans)}: they add noise, and so have no exact path to be "
            "measured by. Give data to compare with, or solvers of the ODE."
        )


def _metrics(field: ScoreField, how: CompareOptions) -> Sequence[Metric]:
    dim = math.prod(field.shape)
    if "frechet" in (how.metrics or ()) and dim > _MOST_MOMENTS:
        raise UsageError(
            f"--metrics frechet: {dim} coordinates have too many covariances. In Python, "
            "scorefield.frontier takes it of features."
        )
    return [METRICS[name]() for name in how.metrics] if how.metrics else USUAL_METRICS


def _plans(
    console: Console, folder: Path, field: ScoreField, how: CompareOptions
) -> dict[str, list[Plan]]:
    """Return the plans to compare, by the names of their lines."""
    budgets, names = numbers("nfe", how.nfe), tuple(dict.fromkeys(how.solvers or USUAL))
    plans = {}
    for name in names:
        if name == "tuned":
            made = _tuned(console, folder, field, how.guidance)
        else:
            made = plans_within(name, field, budgets)
        if made:
            plans[name] = made
        elif how.solvers:
            raise UsageError(
                f"{folder / PLANS} has no plan for this run: scorefield tune {folder}"
                f"{asking(how.guidance)} first."
                if name == "tuned"
                else f"--nfe {budgets[-1]}: a single step of {name} and the end make more calls."
            )
    return plans


def _tuned(console: Console, folder: Path, field: ScoreField, guidance: float) -> list[Plan]:
    """Return the plans in a run folder that are for its field, and say which are not."""
    plans = []
    for path in plan_files(folder, guidance):
        try:
            plan = Plan.load(path)
            plan.check(field)
        except ValueError as error:
            say(console, one_line(f"{path.name} is left out: {error}"))
        else:
            plans.append(plan)
    return sorted(plans, key=lambda plan: 0 if plan.tuning is None else plan.tuning.nfe)


def show(console: Console, found: Frontier) -> None:
    """Print a table of what was measured."""
    names = list(found.points[0].values)
    table = Table(box=None, pad_edge=False)
    table.add_column("plan", no_wrap=True)
    for name in ("NFE", "ms", "error", *(name.replace("_", " ") for name in names)):
        table.add_column(name, justify="right")
    for point in found.points:
        cost = f"{round(point.nfe, 1):g}", f"{point.milliseconds:.2f}"
        table.add_row(point.name, *cost, _told(point.error), *_all(point.values, names))
    if found.floors:
        table.add_row("data itself", "", "", "", *_all(found.floors, names))
    # a file has no width that a table could be too wide for
    wide = None if console.is_terminal else Console(file=console.file, width=_WIDEST)
    (wide or console).print(table)
    of_data = f", against {found.m} real ones" if found.m else ""
    paths = f", to paths that are known to {found.teacher:.1g}" if found.teacher else ""
    say(
        console,
        f"{found.n} samples of each from the same noises{of_data}; ± half the {found.level:.0%} "
        f"interval. Errors in the data's deviations{paths}; ms per sample in batches "
        f"of {found.batch_size} on {found.machine}",
    )


def _all(estimates: Mapping[str, Measurement], names: Iterable[str]) -> list[str]:
    return [_told(estimates[name]) for name in names]


def _told(estimate: Measurement | None) -> str:
    """Return value and half the interval, to two digits of the latter."""
    if estimate is None:
        return "-"
    half = (estimate.high - estimate.low) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half else 4
    return f"{estimate.value:.{digits}f} ± {half:.{digits}f}"


def _draw(console: Console, found: Frontier, path: Path) -> None:
    from scorefield.report import frontier_chart

    try:
        frontier_chart(found).save(path)
        say(console, f"picture: {path}")
    except ImportError as error:
        say(console, f"no picture: {error}")
