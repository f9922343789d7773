"""What `scorefield check` does: whether a run's network is what its configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.cli.commands import find_class, say, track
from scorefield.cli.parts import read_data
from scorefield.evaluate.check import Check, check as find
from scorefield.runs.loading import load

_SHOWN = 6  # interpretations


def check(
    console: Console,
    folder: Path,
    source: str | None,
    *,
    y: str | None,
    labels: Path | None,
    n: int,
    seed: int,
) -> None:
    """Print what a run's network looks like.

    Raises:
        CheckpointError: it is not what the run folder says.
    """
    if n < 2:
        raise UsageError(f"--n {n}: give at least 2.")
    if labels is not None and source is None:
        raise UsageError("--labels has no effect without data to check with.")
    run = load(folder)
    condition: dict[str, Any] = {}
    if (of_class := find_class(run, y)) is not None:
        condition["y"] = torch.tensor(of_class)
    x = None
    if source is not None:
        data = read_data(run, source, labels)
        rows = torch.linspace(0, len(data.x) - 1, min(len(data.x), _most(n))).long()
        x = run.to_field(data.x[rows])
        if data.y is not None and run.config.data.classes and y is None:
            condition["y"] = data.y[rows]
    found = find(
        run.field,
        x,
        n=n,
        seed=seed,
        progress=lambda work: track(console, work, len(work), "checking"),
        **condition,
    )
    show(console, found)
    if not found.right:
        raise CheckpointError(f"{folder}: {found}.")
    say(console, str(found))


def _most(n: int) -> int:
    """Return how many data tell the variances well enough."""
    return max(n, 2048)


def show(console: Console, found: Check) -> None:
    """Print tables of the interpretations, and of the declared one by noise level."""
    say(console, f"{found.samples} samples, {found.nfe} calls of the network for each")
    table = Table("interpretation", box=None, pad_edge=False)
    table.add_column("error", justify="right")
    best = found.interpretations[:_SHOWN]
    for interpretation in (*best, *(() if found.declared in best else (found.declared,))):
        declared = " (as declared)" if interpretation is found.declared else ""
        table.add_row(f"{interpretation.name}{declared}", f"{interpretation.error:.3g}")
    console.print(table)
    say(console, "as declared, by noise level:")
    table = Table(box=None, pad_edge=False)
    for name in ("sigma/alpha", "error", "mean score", "slope"):
        table.add_column(name, justify="right")
    for level in found.levels:
        slope = f"{level.slope:.3f} \u00b1 {level.stderr:.3f}"
        table.add_row(f"{level.ratio:.3g}", f"{level.error:.3g}", f"{level.bias:.2f}", slope)
    console.print(table)
    say(
        console,
        "error: of that of a Gaussian, below 1 where something was learned; mean score: in its "
        "standard errors, about 1; slope of the data on its estimate: 1",
    )
