"""`scorefield tune`: plans fitted to a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.cli.console import meter, say
from scorefield.cli.options import (
    CALLS,
    ITEMS,
    PRECISION,
    WHERE,
    Device,
    Embeddings,
    Network,
    Overwrite,
    RunPath,
    Seed,
    option,
    whole_numbers,
)

if TYPE_CHECKING:
    from scorefield.interop.pipeline_tuning import PipelineTuner
    from scorefield.runs.tune import RunTuner
    from scorefield.sampling import Plan


def tune(
    run: RunPath,
    /,
    *,
    nfe: Annotated[list[str], option(CALLS)],
    rounds: Annotated[int | None, option(CALLS, "one for each call")] = None,
    guidance: Annotated[float, option(ITEMS)] = 1.0,
    embeddings: Embeddings = None,
    seed: Seed = 0,
    noises: Annotated[int | None, option(PRECISION, "32 to 512, by the dimension")] = None,
    tries: Annotated[int | None, option(PRECISION, "400 / rounds, at least 40")] = None,
    polish: Annotated[int | None, option(PRECISION, "32, fewer above 7 calls")] = None,
    batch_size: Annotated[int | None, option(WHERE, "64 to 512, by the dimension")] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    network: Network = None,
) -> None:
    """Tune plans to a run: the noise levels and steps that make the best use of a number of calls.

    Writes the plans into the run folder, where `scorefield sample --nfe` finds them. A plan is
    compared with the default plan on fresh noises, and replaced by it if it is not better. The same
    command resumes work that was interrupted.

    Parameters
    ----------
    nfe
        Network calls per sample, with one plan for each: --nfe 4,5,6,8,10,15,20.
    rounds
        Rounds of calls that are made at once, as one batch: --nfe 10 --rounds 5 makes 5 calls of
        twice the batch size. `scorefield sample --plan` takes the file of the plan.
    guidance
        Scale of classifier-free guidance that the plans are for (conditional runs).
    noises
        Noises that the steps are fitted to. As many others choose the levels, and up to four times
        as many measure the error.
    tries
        Choices of noise levels to try for each plan.
    polish
        Iterations at the end that move levels and steps together. 0 makes none.
    batch_size
        Samples per network call.
    overwrite
        Tune again if a plan exists.
    """
    from scorefield.cli.plan_options import describe_tuning
    from scorefield.data.embeddings import CONDITION, read_embeddings
    from scorefield.runs.folder import RunFolder
    from scorefield.runs.jobs.engines import Source
    from scorefield.runs.tune import RunTuner
    from scorefield.sampling import default_plan
    from scorefield.tuning.tuner import check_rounds, longest_below

    budgets = whole_numbers("nfe", nfe)
    for calls in budgets:
        check_rounds(calls, rounds)
    if tries is not None and tries < 1:
        raise UsageError(f"--tries {tries}: give at least 1.")
    if polish is not None and polish < 0:
        raise UsageError(f"--polish {polish}: give a number of iterations, or 0.")
    texts = None if embeddings is None else {CONDITION: read_embeddings(embeddings)}
    opened, folder = Source(run, network, device).load().guided(guidance), RunFolder(run)
    for calls in budgets:
        default_plan(opened.field, rounds or calls)  # raises for a number without a plan
    stored = partial(folder.plan, opened.conditional, guidance=opened.guidance, rounds=rounds)
    plans = {} if overwrite else existing(stored, budgets)
    if len(plans) == len(budgets):
        return
    tuner = RunTuner(opened, conditions=texts, noises=noises, seed=seed, batch_size=batch_size)
    for calls in budgets:
        if calls in plans:
            continue
        plans[calls] = show_tuning(tuner, calls, tries, polish, longest_below(plans, calls), rounds)
        say(describe_tuning(plans[calls]))
        say(f"plan: {folder.plan_path(calls, guidance, rounds)}")


def show_tuning(
    tuner: RunTuner | PipelineTuner,
    calls: int,
    tries: int | None,
    polish: int | None,
    shorter: Plan | None,
    rounds: int | None = None,
) -> Plan:
    """Print the cost of a plan, then show the progress of its search, and return the plan."""
    effort, error = tuner.tuner.effort(calls, tries, polish, rounds), math.inf
    settings: dict[str, Any] = {"tries": tries, "polish": polish, "shorter": shorter}
    if rounds is not None:  # as pipelines do not have them
        settings["rounds"] = rounds
    say(f"{calls} calls: {tuner.tuner.cost(calls, **settings)}")
    with meter(sum(effort), f"{calls} calls", lambda: f"error {error:.3g}") as advance:

        def progress(latest: float) -> None:
            nonlocal error
            error = latest
            advance()

        return tuner.tune(calls, **settings, progress=progress)


def existing(read: Callable[[int], Plan | None], budgets: Sequence[int]) -> dict[int, Plan]:
    """Return the plans that exist already, and print which."""
    from scorefield.cli.plan_options import describe_tuning

    plans = {}
    for calls in budgets:
        try:
            plan = read(calls)
        except CheckpointError as error:
            raise CheckpointError(f"{error} Or tune it again, with --overwrite.") from None
        if plan is not None:
            say(f"{describe_tuning(plan)}; exists already (--overwrite tunes it again)")
            plans[calls] = plan
    return plans
