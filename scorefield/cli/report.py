"""`scorefield report`: one HTML file about a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from scorefield.cli.console import say, track
from scorefield.cli.options import (
    ITEMS,
    WHERE,
    Conditions,
    Device,
    Length,
    Network,
    Overwrite,
    RunPath,
    Seed,
    option,
)


def report(
    run: RunPath,
    data: str | None = None,
    /,
    *,
    held_out: Annotated[bool, option(ITEMS)] = False,
    conditions: Conditions = None,
    n: Annotated[int | None, option(ITEMS, "by the size of the data")] = None,
    items: Annotated[int | None, option(ITEMS, "64, or fewer large ones")] = None,
    audit: Annotated[bool, option(ITEMS)] = False,
    seed: Seed = 0,
    out: Annotated[Path | None, option(WHERE, "report.html in the run folder")] = None,
    overwrite: Overwrite = False,
    length: Length = None,
    device: Device = "cpu",
    network: Network = None,
) -> None:
    """Write a report of a run: one HTML file that opens offline.

    It describes data and training, and shows samples, trajectories from noise to data by several
    solvers, samples with more and more network calls, and the log, the tuned plans and the
    comparison of plans in the run folder. Likelihoods and interpolations need data, and
    the calibration of a run of vectors with conditions needs those of the items, too.

    Parameters
    ----------
    data
        A file of items of the kind the run was trained on, or a built-in set.
    held_out
        Use only the items that training held out; DATA is the training data.
    n
        Samples in each panel of the sliders.
    items
        Items of the data whose likelihood is computed.
    audit
        Add the readings of `scorefield audit`, on data that the run was not trained on.
    out
        The file to write.
    """
    from scorefield._internal import sizes
    from scorefield.report.builder import ReportBuilder
    from scorefield.runs.jobs.engines import Source

    began = time.monotonic()
    builder = ReportBuilder(
        Source(run, network, device, length).load(),
        data,
        out,
        held_out=held_out,
        seed=seed,
        n=n,
        items=items,
        conditions=conditions,
        audit=audit,
        overwrite=overwrite,
    )
    for _ in track(builder, len(builder), "report"):
        pass
    say(f"{time.monotonic() - began:.1f} s, {sizes.words(builder.path.stat().st_size)}")
    say(f"report: {builder.path}")
