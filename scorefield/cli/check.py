"""`scorefield check`: whether a run's network matches its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.cli.console import console, say, track
from scorefield.cli.options import ITEMS, ExamineOptions, RunPath, option

if TYPE_CHECKING:
    from scorefield.evaluate.check import Check

_FEW = 8  # names in a message
_ROWS = 6  # of the table of interpretations


def check(
    run: RunPath,
    data: str | None = None,
    /,
    *,
    n: Annotated[int, option(ITEMS)] = 64,
    options: ExamineOptions = ExamineOptions(),
    files: Annotated[bool, option(ITEMS)] = False,
) -> None:
    """Check that a run's network matches its configuration: its prediction, its noise levels, and
    their scale.

    Measures the error of the declared interpretation of the network's output and of others, such as
    v-prediction instead of eps-prediction, or another table of noise levels. If another one is
    better, prints it and exits with 4. Exits with 4 also if none is better than a Gaussian.

    Parameters
    ----------
    data
        A file of items of the kind the run was trained on, or a built-in set. Without data, each
        interpretation is tested on the samples that it generates.
    n
        Number of items, or of generated samples.
    files
        Instead, compare the files of the run with their digests, in SHA256SUMS.
    """
    if files:
        _check_files(run)
        return
    from scorefield.cli.opening import examined
    from scorefield.evaluate.check.advice import advice

    if n < 2:
        raise UsageError(f"--n {n}: give at least 2.")
    if options.conditions is not None and data is None:
        raise UsageError("--condition has no effect without data.")
    opened, items = examined(run, options)
    result = opened.check(
        data,
        given=items.of(range(n)) if data is None else items.of(range(items.rows)),
        conditions=options.conditions,
        n=n,
        seed=options.seed,
        progress=lambda work: track(work, len(work), "checking"),
    )
    show(result)
    if warning := advice(result):
        say(f"warning: {warning}")
    if not result.right:
        raise CheckpointError(f"{run}: {result}.")
    say(str(result))


def _check_files(run: Path) -> None:
    from scorefield.runs import digests
    from scorefield.runs.folder import RunFolder

    count, changed = digests.changed(RunFolder(run).path)
    if changed:
        names = ", ".join(changed[:_FEW]) + (" …" if len(changed) > _FEW else "")
        raise CheckpointError(f"{run}: {len(changed)} of {count} files have changed: {names}.")
    say(f"{count} files are as they were written")


def show(result: Check) -> None:
    """Print tables of the interpretations, and of the declared one by noise level."""
    say(f"{result.samples} samples, {result.nfe} network calls for each")
    table = Table("interpretation", box=None, pad_edge=False)
    table.add_column("error", justify="right")
    best, declared = result.interpretations[:_ROWS], result.declared
    for interpretation in (*best, *(() if declared in best else (declared,))):
        note = " (as declared)" if interpretation is declared else ""
        table.add_row(f"{interpretation.name}{note}", f"{interpretation.error:.3g}")
    console.print(table)
    say("as declared, by noise level:")
    table = Table(box=None, pad_edge=False)
    for name in ("sigma/alpha", "error", "mean score", "slope"):
        table.add_column(name, justify="right")
    for level in result.levels:
        slope = f"{level.slope:.3f} \u00b1 {level.stderr:.3f}"
        table.add_row(f"{level.ratio:.3g}", f"{level.error:.3g}", f"{level.bias:.2f}", slope)
    console.print(table)
    say(
        "error: relative to a Gaussian, below 1 if something was learned; mean score: in its "
        "standard errors, about 1; slope of the data on its estimate: 1"
    )
