"""`scorefield decode`: data from latent codes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.encode import plan_of_calls, report_round_trip
from scorefield.cli.options import CALLS, JobOptions, RunPath, option
from scorefield.cli.results import ResultKind, Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.cli.opening import GivenItems
    from scorefield.runs.jobs.engines import Task
    from scorefield.runs.jobs.parts import Columns
    from scorefield.runs.run import Run
    from scorefield.sampling import Codes, Plan


def decode(
    run: RunPath,
    codes: Path,
    /,
    *,
    job: JobOptions = JobOptions(),
    nfe: Annotated[
        int | None,
        option(CALLS, "80"),
        Parameter(help="Network calls per item, as many as encoded the codes."),
    ] = None,
) -> None:
    """Decode latent codes to data.

    Writes a table if the run was trained on a table, otherwise a .npy file; and a picture of
    images. The same command resumes work that was interrupted.

    Parameters
    ----------
    codes
        A .npy file written by `scorefield encode`, or any numbers of its shape.
    """
    from scorefield.cli.jobs import in_parts, parse_ids, target
    from scorefield.cli.opening import open_run
    from scorefield.sampling import ROUND_TRIP_CALLS

    opened = open_run(run, job)
    out = target(DECODED, opened, codes.with_name(f"{codes.stem}-decoded"), job.ids)
    z, shape = _read_codes(codes), opened.run.field.shape
    pairs = tuple(z.shape[1:]) == (2, *shape)
    if not pairs and tuple(z.shape[1:]) != shape:
        raise DataError(
            f"{codes} holds codes of shape {tuple(z.shape[1:])}: this run has codes of shape "
            f"{shape}, or {(2, *shape)} with --reversible."
        )
    if pairs and nfe is None:
        raise UsageError(
            f"{codes} holds pairs, which only the steps of their encoding can decode: give its "
            f"--nfe, by default {ROUND_TRIP_CALLS}."
        )
    plan = plan_of_calls(opened.run, nfe, pairs)
    work = partial(_data, plan=plan, pairs=pairs, given=opened.given)
    settings = {"nfe": nfe, "pairs": pairs, "given": opened.given.name}
    in_parts(opened, DECODED, out, work, settings, parse_ids(job.ids, len(z)), z)


def _data(
    run: Run, task: Task, *, plan: Plan, pairs: bool, given: GivenItems, batch_size: int
) -> Columns:
    import torch

    from scorefield.sampling import Codes

    assert task.x is not None
    codes: Tensor | Codes = task.x
    if pairs:
        codes = Codes(task.x[:, 0], torch.zeros(len(task.x)), 0, task.x[:, 1])
    values = given.of(task.ids)
    result = run.decode(codes, plan, given=values, ids=task.ids, batch_size=batch_size)
    columns = {"x": result.x.numpy(force=True), "error": result.error.numpy(force=True)}
    return columns | run.columns_of(values, len(result.x))


def _read_codes(source: Path) -> Tensor:
    """Return the numbers of a file of codes."""
    import numpy as np
    import torch

    from scorefield.data.contents import whole
    from scorefield.data.source import read_contents

    array = whole(read_contents(source).values)
    if array.dtype.kind != "f" or array.ndim < 2 or len(array) == 0:
        raise DataError(
            f"{source} has shape {array.shape} and type {array.dtype}: codes are floating-point "
            "numbers, one item or more."
        )
    values = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{source} holds values that are not finite.")
    return torch.from_numpy(values)


def _report(settings: Mapping[str, Any], statistics: Statistics) -> None:
    if not settings["pairs"]:  # which have no error, even if other steps encoded them
        report_round_trip(statistics["error"], "a code")


DECODED = ResultKind("decoding", "samples", _report, result="x", picture="x", tabular=True)
