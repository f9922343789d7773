"""`scorefield sample`: samples of a run in the data's units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from scorefield._internal.errors import UsageError
from scorefield.cli.console import say
from scorefield.cli.options import (
    ITEMS,
    SOLVER,
    Embeddings,
    JobOptions,
    PlanOptions,
    Prompt,
    RunPath,
    Scales,
    Seed,
    SolverOptions,
    option,
)
from scorefield.cli.results import ResultKind, Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.cli.opening import GivenItems
    from scorefield.runs.jobs.engines import Task
    from scorefield.runs.jobs.parts import Columns
    from scorefield.runs.run import Run
    from scorefield.sampling import Plan

_SAMPLES = 64
_IDS = 2**63 - 1


def sample(
    run: RunPath,
    /,
    *,
    n: Annotated[int | None, option(ITEMS, str(_SAMPLES))] = None,
    job: JobOptions = JobOptions(),
    together: Annotated[bool, option(ITEMS)] = False,
    guidance: Scales = "1",
    embeddings: Embeddings = None,
    prompt: Prompt = None,
    seed: Seed = 0,
    plan: PlanOptions = PlanOptions(),
    solver: SolverOptions = SolverOptions(),
    show_plan: Annotated[bool, option(SOLVER)] = False,
) -> None:
    """Generate samples of a run, in the units of the data.

    Writes a table if the run was trained on a table, .h5ad for a run of counts, otherwise a .npy
    file; and a picture of images. The same command resumes work that was interrupted.

    Parameters
    ----------
    n
        Number of samples: those with ids 0 to n - 1. Sample k is a function of the seed and k.
    together
        The conditions of --given-from, or those of --given, are independent observations of every
        sample: its distribution is that given all of them.
    show_plan
        Print the solver and the times of the plan in full.
    """
    from scorefield.cli.jobs import in_parts, parse_ids, target
    from scorefield.cli.opening import embedding, file_part, open_run, parse_guidance
    from scorefield.cli.plan_options import choose_plan
    from scorefield.data.rows import digest
    from scorefield.runs.folder import guidance_suffix
    from scorefield.sampling import prepare

    if n is not None and job.ids is not None:
        raise UsageError(f"--n {n} and --ids {job.ids} cannot be combined: --n is --ids 0:{n}.")
    if n is not None and not 1 <= n <= _IDS:
        raise UsageError(f"--n {n}: give at least 1.")
    ids = range(_SAMPLES if n is None else n) if job.ids is None else parse_ids(job.ids, _IDS)
    condition = embedding(embeddings, prompt)
    scale = parse_guidance(guidance)
    opened = open_run(run, job, scale)
    chosen = choose_plan(opened, plan, solver)
    one = opened.run.condition_on(**condition)
    if together:
        from scorefield.runs.together import check_together

        if not opened.given.values:
            raise UsageError("--together: give the observations by --given-from, a row for each.")
        opened = replace(opened, given=replace(opened.given, together=True))
        check_together(one, opened.given.of(()))
    if one.config.data.lengths:
        one = one.of_length(one.config.data.shape[1])
    first = None if together else opened.given.of(ids[:1])
    prepare(one.toward(first), chosen.plan)  # raises before any work
    of_class = file_part(job) + "-together" * together
    if embeddings is not None:
        of_class += f"-{embeddings.stem}-{prompt or 0}"
    guided = guidance_suffix(scale) if isinstance(scale, float) else f"-guidance-{guidance}"
    guided = re.sub(r"[^\w.=,-]", "_", guided)
    name = f"samples-{chosen.name}-seed{seed}{of_class}{guided}"
    out = target(SAMPLES, opened, run / name, job.ids)
    if chosen.note:
        say(chosen.note)
    if show_plan:
        say(f"solver: {chosen.settings['solver']}")
        say(f"times: {chosen.settings['times']}")
    arguments: dict[str, Any] = {"seed": seed}
    work = partial(
        _samples,
        plan=chosen.plan,
        condition=condition,
        given=opened.given,
        guidance=scale,
        **arguments,
    )
    settings = arguments | {"guidance": scale if isinstance(scale, float) else guidance}
    settings |= {"given": opened.given.name, "length": job.length} | chosen.settings
    settings |= {"together": True} if together else {}
    settings |= {name: digest(value) for name, value in condition.items()}
    in_parts(opened, SAMPLES, out, work, settings, ids)


def _samples(
    run: Run,
    task: Task,
    *,
    plan: Plan,
    seed: int,
    given: GivenItems,
    guidance: float | Mapping[str, float],
    batch_size: int,
    condition: Mapping[str, Tensor],
) -> Columns:
    from scorefield.cli.jobs import nfe_column
    from scorefield.data.lengths import by_length
    from scorefield.sampling import count_calls

    opened, together = run.guided(guidance).condition_on(**condition), given.together
    values = opened.drawn(list(task.ids), given.of(task.ids), seed)
    if together:
        from scorefield.runs.together import posterior_of_all

        posterior_of_all(opened, values)  # whose moments are drawn once
    settings: dict[str, Any] = {
        "seed": seed,
        "given": values,
        "together": together,
        "batch_size": batch_size,
    }
    with count_calls(run.field) as calls:
        x = opened.sample(task.ids, plan, **settings)
    groups = [list(task.ids)]
    if run.config.data.lengths:
        each = by_length(opened.drawn_lengths(groups[0], seed))
        groups = [[task.ids[k] for k in places] for _, places in each]
    columns = {"x": x.numpy(force=True), "nfe": nfe_column(calls.rows, groups, batch_size)}
    about = run.config.data
    every = len(about.shape) == 1 and not about.columns.kinds  # for the annotations of cells
    return columns if together else columns | opened.columns_of(values, len(x), every)


def _report(settings: Mapping[str, Any], statistics: Statistics) -> None:
    nfe = statistics["nfe"]
    say(f"{nfe.count} samples by {settings['phrase']}: NFE {nfe.mean:g} per sample")


SAMPLES = ResultKind("sampling", "samples", _report, result="x", picture="x", tabular=True)
