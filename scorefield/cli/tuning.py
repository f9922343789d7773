"""What `scorefield tune` does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from scorefield import __version__
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.cli.commands import check_device, meter, say
from scorefield.cli.options import TuneOptions
from scorefield.cli.plans import kept_plan, plan_file, told
from scorefield.field import digest
from scorefield.runs.loading import load
from scorefield.runs.run import Run
from scorefield.sampling import Plan, default_plan
from scorefield.tuning import Tuner
from scorefield.tuning.tried import Tried
from scorefield.tuning.tuner import usual_tries


def tune(
    console: Console, folder: Path, budgets: Sequence[int], device: str, options: TuneOptions
) -> None:
    """Fit the plans of several numbers of calls to a run and write them into its folder.

    Plans that are there already stay, and one that was broken off goes on from what it tried.
    """
    if options.tries is not None and options.tries < 1:
        raise UsageError(f"--tries {options.tries}: give at least 1.")
    if options.polish < 0:
        raise UsageError(f"--polish {options.polish}: give a number of rounds, or 0.")
    run = load(folder).guided(options.guidance)
    for nfe in budgets:
        default_plan(run.field, nfe)  # refuses what there is no plan of
    waiting = [nfe for nfe in budgets if options.overwrite or not _there(console, run, folder, nfe)]
    if not waiting:
        return
    check_device(device)
    run.field.to(device)
    classes = run.config.data.classes
    # -1 is no class, if that was learned and is no matter of guidance
    first = -1 if run.config.train.dropout and run.guidance == 1 else 0
    given = {"y": torch.arange(first, classes)} if classes else {}
    tuner = Tuner(
        run.conditional,
        noises=options.noises,
        conditions=given,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    facts = {
        "version": __version__,
        "torch": torch.__version__,
        "device": device,
        "field": digest(run.conditional),
        "noises": tuner.count,
        "seed": options.seed,
        "batch_size": tuner.batch_size,
    }
    for nfe in waiting:
        path = plan_file(folder, nfe, run.guidance)
        tried = Tried(path.with_name(f".{path.stem}.tried"), {"nfe": nfe, **facts})
        plan = _tuned(console, tuner, nfe, options, tried)
        path.parent.mkdir(exist_ok=True)  # after what may fail
        plan.save(path)
        tried.remove()
        say(console, told(plan))
        say(console, f"plan: {path}")


def _tuned(console: Console, tuner: Tuner, nfe: int, options: TuneOptions, tried: Tried) -> Plan:
    tries, least = options.tries or usual_tries(nfe), math.inf
    with meter(console, tries, f"{nfe} calls", lambda: f"error {least:.3g}") as advance:

        def progress(error: float) -> None:
            nonlocal least
            least = error
            advance()

        return tuner.tune(nfe, tries=tries, polish=options.polish, tried=tried, progress=progress)


def _there(console: Console, run: Run, folder: Path, nfe: int) -> bool:
    path = plan_file(folder, nfe, run.guidance)
    if not path.exists():
        return False
    try:
        plan = kept_plan(run, path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Or fit it again, with --overwrite.") from None
    say(console, f"{told(plan)}; there already (--overwrite fits it again)")
    return True
