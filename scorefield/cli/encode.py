"""`scorefield encode`: latent codes of data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from scorefield._internal.errors import UsageError
from scorefield.cli.console import say
from scorefield.cli.options import CALLS, AnyScale, Items, JobOptions, RunPath, option
from scorefield.cli.results import ResultKind, Statistics

if TYPE_CHECKING:
    from scorefield._internal.statistics import ColumnStatistics
    from scorefield.cli.opening import GivenItems
    from scorefield.runs.jobs.engines import Task
    from scorefield.runs.jobs.parts import Columns
    from scorefield.runs.run import Run
    from scorefield.sampling import Plan

_STEP_CALLS = 4  # of a reversible step

EachWay = Annotated[
    int | None, option(CALLS, "80"), Parameter(help="Network calls in each direction.")
]


def encode(
    run: RunPath,
    data: Items,
    /,
    *,
    job: JobOptions = JobOptions(),
    any_scale: AnyScale = False,
    nfe: EachWay = None,
    reversible: Annotated[bool, option(CALLS)] = False,
) -> None:
    """Encode data as latent codes, standard normal numbers in a .npy file.

    Also decodes the codes, and prints the change of the data in this round trip. The same command
    resumes work that was interrupted.

    Parameters
    ----------
    reversible
        Use steps that can be inverted up to rounding. Each code is a pair, and an item costs four
        calls a step.
    """
    from scorefield.cli.items import read_items
    from scorefield.cli.jobs import in_parts, parse_ids, target
    from scorefield.cli.opening import open_run

    opened = open_run(run, job)
    out = target(CODES, opened, run / f"codes-{Path(data).stem}", job.ids)
    plan, x = plan_of_calls(opened.run, nfe, reversible), read_items(opened.run, data, any_scale)
    work = partial(_codes, plan=plan, given=opened.given)
    settings = {"nfe": nfe, "reversible": reversible, "given": opened.given.name}
    in_parts(opened, CODES, out, work, settings, parse_ids(job.ids, len(x)), x)


def plan_of_calls(run: Run, nfe: int | None, reversible: bool) -> Plan:
    """Return the plan of an encoding, or of a decoding, with ``nfe`` calls.

    Raises:
        UsageError: calls that reversible steps cannot have.
    """
    from scorefield.sampling import ROUND_TRIP_CALLS, Plan, round_trip_plan
    from scorefield.solvers import Reversible, Singlestep

    calls = ROUND_TRIP_CALLS if nfe is None else nfe
    if not reversible:
        return round_trip_plan(run.field, calls)
    if calls < 2 * _STEP_CALLS or calls % _STEP_CALLS:
        raise UsageError(
            f"--nfe {calls}: reversible steps cost {_STEP_CALLS} calls each: give a multiple of "
            f"{_STEP_CALLS}, {2 * _STEP_CALLS} or more."
        )
    times = round_trip_plan(run.field, calls // _STEP_CALLS).times
    return Plan(Reversible(Singlestep(2)), times, finish=False)


def _codes(run: Run, task: Task, *, plan: Plan, given: GivenItems, batch_size: int) -> Columns:
    import torch

    assert task.x is not None
    result = run.encode(task.x, plan, given=given.of(task.ids), ids=task.ids, batch_size=batch_size)
    codes = result.z if result.partner is None else torch.stack([result.z, result.partner], 1)
    return {"codes": codes.numpy(force=True), "error": result.error.numpy(force=True)}


def report_round_trip(error: ColumnStatistics, noun: str) -> None:
    """Print the mean and the largest change in a round trip."""
    say(
        f"{error.count} items; a round trip changes {noun} by {error.mean:.1e} on average and "
        f"{error.largest:.1e} at most"
    )


def _report(settings: Mapping[str, Any], statistics: Statistics) -> None:
    report_round_trip(statistics["error"], "a sample")


CODES = ResultKind("encoding", "codes", _report, result="codes")
