"""Plans that `scorefield compare` has measured, picked by what is asked of them."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.text import one_line
from scorefield.cli.commands import find_class, say
from scorefield.cli.options import JobOptions, PickOptions, PlanOptions
from scorefield.cli.plans import Choice, asking, of_scale
from scorefield.runs.folder import FRONTIER
from scorefield.runs.run import Run
from scorefield.sampling import Plan, template
from scorefield.tuning.frontier import Frontier
from scorefield.tuning.frontier.measure import machine


def file_of(folder: Path, y: int | None, guidance: float) -> Path:
    """Return where a run's frontier is, of all classes or of one and under a guidance."""
    return folder / (FRONTIER if y is None else f"frontier-y{y}{of_scale(guidance)}.json")


def choose_measured(
    console: Console, folder: Path, how: PickOptions, others: PlanOptions, options: JobOptions
) -> Choice | None:
    """Return the plan that is to be picked of a run's frontier, if one is.

    Raises:
        UsageError: as `_name`.
    """
    name = _name(how, others)

    def make(run: Run) -> Plan:
        y = find_class(run, options.y)
        return _pick(console, run, folder, y, options.batch_size, how)

    return Choice(name, make) if name else None


def _name(how: PickOptions, others: PlanOptions) -> str:
    """Return what names the files of the samples; empty if no pick is asked for.

    Raises:
        UsageError: two are, or options that choose a plan otherwise.
    """
    given = {name: value for name, value in asdict(how).items() if value is not None}
    if not given:
        return ""
    beside = [k for k, v in (*asdict(how).items(), *asdict(others).items()) if v is not None][1:]
    (first, value), *_ = given.items()
    if beside:
        raise UsageError(
            f"--{_flag(first)} picks a plan, and {', '.join(f'--{_flag(k)}' for k in beside)} "
            "another: leave one of them out."
        )
    if not 0 < value < math.inf:
        raise UsageError(f"--{_flag(first)} {value:g}: give a positive number.")
    return f"{_flag(first)}-{value:g}"


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _measured(run: Run, folder: Path, y: int | None) -> Frontier:
    """Return the frontier of a run.

    Raises:
        CheckpointError: there is none, or it is of another field.
    """
    path = file_of(folder, y, run.guidance)
    if not path.is_file():
        of_class = "" if y is None else f" --y {y}"
        of_class += asking(run.guidance)
        raise CheckpointError(
            f"there is no {path}: run scorefield compare {folder}{of_class} first."
        )
    try:
        found = Frontier.load(path)
        found.check(run.conditional)
    except ValueError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise CheckpointError(f"{where}{error}") from None
    return found


def _pick(
    console: Console, run: Run, folder: Path, y: int | None, batch_size: int, how: PickOptions
) -> Plan:
    """Return the plan of a run's frontier that is asked for, and say which it is.

    Raises:
        CheckpointError: as `_measured`.
        UsageError: times were measured with another batch size.
        ValueError: no plan is so near or so fast.
    """
    path, found = file_of(folder, y, run.guidance), _measured(run, folder, y)
    if how.tolerance is not None:
        point = found.within(how.tolerance)
    else:
        assert how.time_per_sample is not None
        if batch_size != found.batch_size:
            raise UsageError(
                f"--batch-size {batch_size}: the times in {path} are of batches of "
                f"{found.batch_size}; give that, or compare again."
            )
        point = found.for_time(how.time_per_sample)
        here = machine(template(run.field).device)
        if here != found.machine:
            say(console, f"times were measured on {one_line(found.machine)}; this is {here}")
    most = None if point.error is None else point.error.high + (found.teacher or 0.0)
    worth = "" if most is None else f", error at most {most:.3g}"
    say(
        console,
        f"picked from {path.name}: {one_line(point.name)} of {round(point.nfe, 1):g} calls{worth}, "
        f"{point.milliseconds:.3g} ms per sample",
    )
    return point.plan
