"""What `scorefield sample` does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.cli.commands import say
from scorefield.cli.options import JobOptions, PickOptions, PlanOptions
from scorefield.cli.parts import Kind, in_parts, open_run, parse_ids
from scorefield.cli.picking import choose_measured
from scorefield.cli.plans import choose_plan, of_scale, toward_none
from scorefield.cli.tally import Tally
from scorefield.runs.jobs.engines import Task
from scorefield.runs.jobs.parts import Columns
from scorefield.runs.run import Run
from scorefield.sampling import Plan, batches, count_calls, prepare
from scorefield.solvers import Fitted

_SAMPLES = 64  # unless told
_IDS = 2**63 - 1


def sample(
    console: Console,
    folder: Path,
    n: int | None,
    seed: int,
    guidance: float,
    plan_options: PlanOptions,
    pick_options: PickOptions,
    options: JobOptions,
) -> None:
    """Generate samples of a run and write them, ``(n, ...)``."""
    if n is not None and options.ids is not None:
        raise UsageError(f"--n {n} says --ids 0:{n}, and --ids {options.ids} is given: leave one.")
    if n is not None and not 1 <= n <= _IDS:
        raise UsageError(f"--n {n}: give at least 1.")
    ids = range(n or _SAMPLES) if options.ids is None else parse_ids(options.ids, _IDS)
    choice = choose_measured(console, folder, pick_options, plan_options, options)
    if guidance != 1 and options.y is None:
        raise toward_none(guidance)
    choice = choice or choose_plan(plan_options, folder, guidance)
    of_class = "" if options.y is None else f"-{options.y}"
    of_class += of_scale(guidance)
    target = folder / f"samples-{choice.name}-seed{seed}{of_class}"
    opened = open_run(folder, options, SAMPLING, target, options.ids)
    run = opened.run.guided(guidance)
    plan = choice.make(run)
    prepare(run.toward(opened.y), plan)  # refuses what does not fit before any work
    times = plan.times
    if note := choice.told(plan):
        say(console, note)
    settings = {
        "y": opened.y,
        "seed": seed,
        "guidance": guidance,
        "solver": repr(plan.solver),
        "times": times.tolist() if isinstance(times, Tensor) else repr(times),
        "finish": plan.finish,
    }
    work = partial(
        _samples, plan=plan, seed=seed, y=opened.y, guidance=guidance, batch_size=options.batch_size
    )
    in_parts(console, opened, options, work, settings, ids)


def _samples(
    run: Run, task: Task, *, plan: Plan, seed: int, y: int | None, guidance: float, batch_size: int
) -> Columns:
    with count_calls(run.field) as calls:
        x = run.guided(guidance).sample(task.ids, plan, seed=seed, y=y, batch_size=batch_size)
    each = calls.rows / (batch_size * sum(1 for _ in batches(task.ids, batch_size)))
    return {"x": x.numpy(), "nfe": np.full(len(x), each)}


def _tell(console: Console, settings: Mapping[str, Any], tallies: Mapping[str, Tally]) -> None:
    times, nfe = settings["times"], tallies["nfe"]
    how = times if isinstance(times, str) else f"{len(times) - 1} steps"
    fitted = settings["solver"].startswith(Fitted.__name__)
    solver = "fitted steps" if fitted else settings["solver"]
    say(console, f"{nfe.count} samples, {solver}, {how}: NFE {nfe.mean:g} per sample")


SAMPLING = Kind("sampling", "samples", _tell, result="x", picture="x", tabular=True)
