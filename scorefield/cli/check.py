"""`scorefield check`: whether a run's network matches its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.cli.console import console, say, track
from scorefield.cli.options import ITEMS, Labels, Network, RunPath, Seed, option

if TYPE_CHECKING:
    from scorefield.evaluate.check import Check

_ROWS = 6  # of the table of interpretations
_ITEMS = 2048  # at least, for the variances of the data


def check(
    run: RunPath,
    data: Annotated[str | None, option(ITEMS)] = None,
    /,
    *,
    n: Annotated[int, option(ITEMS)] = 64,
    y: Annotated[str | None, option(ITEMS, "all classes")] = None,
    labels: Labels = None,
    seed: Seed = 0,
    network: Network = None,
) -> None:
    """Check that a run's network matches its configuration: its prediction, its noise levels, and
    their scale.

    Measures the error of the declared interpretation of the network's output and of others, such as
    v-prediction instead of eps-prediction, or another table of noise levels. Exits with 4, and
    prints the interpretation that fits, if another one is better.

    Parameters
    ----------
    data
        A file of items of the kind the run was trained on, or a built-in set. Without data, each
        interpretation is tested on the samples that it generates.
    n
        Number of items.
    y
        Class of all items, by name or by number.
    """
    import torch

    from scorefield.cli.opening import class_number, read_data
    from scorefield.evaluate.check import check as check_field
    from scorefield.runs.jobs.engines import load_run

    if n < 2:
        raise UsageError(f"--n {n}: give at least 2.")
    if labels is not None and data is None:
        raise UsageError("--labels has no effect without data.")
    opened = load_run(run, network)
    condition: dict[str, Any] = {}
    if (number := class_number(opened, y)) is not None:
        condition["y"] = torch.tensor(number)
    x = None
    if data is not None:
        items = read_data(opened, data, labels)
        count = min(len(items.x), max(n, _ITEMS))
        rows = torch.linspace(0, len(items.x) - 1, count).long()
        x = opened.to_field(items.x[rows])
        if items.y is not None and opened.config.data.classes and y is None:
            condition["y"] = items.y[rows]
    result = check_field(
        opened.field,
        x,
        n=n,
        seed=seed,
        progress=lambda work: track(work, len(work), "checking"),
        **condition,
    )
    show(result)
    if not result.right:
        raise CheckpointError(f"{run}: {result}.")
    say(str(result))


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
