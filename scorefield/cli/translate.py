"""`scorefield translate`: data of one set in another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from scorefield.cli.encode import report_round_trip
from scorefield.cli.options import CALLS, AnyScale, Items, JobOptions, RunPath, Seed, option
from scorefield.cli.results import ResultKind, Statistics

if TYPE_CHECKING:
    from scorefield.cli.opening import GivenItems
    from scorefield.runs.jobs.engines import Task
    from scorefield.runs.jobs.parts import Columns
    from scorefield.runs.run import Run


def translate(
    run: RunPath,
    data: Items,
    /,
    *,
    job: JobOptions = JobOptions(),
    any_scale: AnyScale = False,
    back: Annotated[bool, option(CALLS)] = False,
    target: Annotated[Path | None, option(CALLS)] = None,
    steps: Annotated[int, option(CALLS)] = 20,
    eta: Annotated[float, option(CALLS)] = 0.0,
    seed: Seed = 0,
) -> None:
    """Translate data of one set to another, and print the change in a round trip.

    The run is that of `scorefield train A --to B`, or one of each set, with --target. The same
    command resumes work that was interrupted.

    Parameters
    ----------
    back
        From the second set of the run to the first.
    target
        The run of the second set, if each set has its own: the data is encoded by the first run
        and decoded by this one.
    steps
        Steps of two network calls each, and as many again for the round trip; with --target,
        network calls of each run in each direction.
    eta
        Noise on the way, relative to that of the bridges, for a run trained with --bridge: 0 is the
        ODE, and 1 the bridge itself. The round trip is measured with 0 only.
    """
    from scorefield._internal.errors import UsageError
    from scorefield.cli.items import read_items
    from scorefield.cli.jobs import in_parts, parse_ids, target as folder_of
    from scorefield.cli.opening import open_run
    from scorefield.runs.folder import RunFolder

    if back and target is not None:
        raise UsageError("--back has no effect with --target: exchange the two runs.")
    if eta and target is not None:
        raise UsageError("--eta has no effect with --target: codes are translated by the ODE.")
    chosen = {"--given": job.given, "--given-from": job.given_from, "--network": job.network}
    for flag, value in chosen.items():
        if value and target is not None:
            raise UsageError(f"{flag} has no effect with --target: leave it out.")
    opened = open_run(run, job)
    settings: dict[str, Any] = {"back": back, "steps": steps, "eta": eta, "seed": seed}
    settings |= {"given": opened.given.name}
    like = opened.run.config.data
    if target is not None:
        settings |= {"target": RunFolder(target).mark}
        like = _target(target, job.device).config.data
    out = folder_of(TRANSLATED, opened, run / f"translated-{Path(data).stem}", job.ids, like)
    x = read_items(opened.run, data, any_scale)
    work = partial(_translated, back=back, target=target, steps=steps, eta=eta, seed=seed)
    work = partial(work, given=opened.given)
    in_parts(opened, TRANSLATED, out, work, settings, parse_ids(job.ids, len(x)), x, like=like)


@lru_cache(maxsize=1)
def _target(folder: Path, device: str) -> Run:
    import scorefield as sf

    return sf.load(folder, device=device)


def _translated(
    run: Run,
    task: Task,
    *,
    back: bool,
    target: Path | None,
    steps: int,
    eta: float,
    seed: int,
    given: GivenItems,
    batch_size: int,
) -> Columns:
    assert task.x is not None
    settings: dict[str, Any] = {"ids": task.ids, "batch_size": batch_size}
    if target is None:
        settings |= {"times": steps, "back": back, "eta": eta, "seed": seed}
        settings |= {"given": given.of(task.ids)}
    else:
        settings |= {"nfe": steps, "target": _target(target, str(run.device))}
    result = run.translate(task.x, **settings)
    x, error = result.x.numpy(force=True), result.error.numpy(force=True)
    return {"x": x} if eta else {"x": x, "error": error}


def _report(settings: Mapping[str, Any], statistics: Statistics) -> None:
    if not settings["eta"]:
        report_round_trip(statistics["error"], "a sample")


TRANSLATED = ResultKind("translating", "samples", _report, result="x", picture="x", tabular=True)
