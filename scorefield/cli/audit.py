"""`scorefield audit`: where the field of a run is wrong or inconsistent, by noise level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from scorefield._internal.errors import UsageError
from scorefield.cli.console import console, say, track
from scorefield.cli.options import ITEMS, ExamineOptions, RunPath, option

if TYPE_CHECKING:
    from scorefield.evaluate.audit import Audit

_FEWEST = 64


def audit(
    run: RunPath,
    data: str,
    /,
    *,
    n: Annotated[int, option(ITEMS)] = 2048,
    options: ExamineOptions = ExamineOptions(),
) -> None:
    """Test a run's field by noise level: a lower bound of its error, and its consistency.

    Prints, by noise level, by how much the estimated noise is wrong at least; the violation of the
    equation that noised densities satisfy, of the symmetry of a gradient, and of two identities of
    scores; and, below, the same for an exact field. A field without a violation may be wrong.

    Parameters
    ----------
    data
        A file of items that the run was not trained on, or a built-in set.
    n
        Number of items, at least 64.
    """
    from scorefield.cli.opening import examined

    if n < _FEWEST:
        raise UsageError(f"--n {n}: give at least {_FEWEST}.")
    opened, items = examined(run, options)
    result = opened.audit(
        data,
        given=items.of(range(items.rows)),
        conditions=options.conditions,
        n=n,
        seed=options.seed,
        progress=lambda work: track(work, len(work), "auditing"),
    )
    show(result)
    say(str(result))


def show(result: Audit) -> None:
    """Print the readings by noise level, each with that of an exact field."""
    say(f"{result.samples} items; in brackets: a Gaussian of the same moments, which is exact")
    table = Table(box=None, pad_edge=False)
    for name in ("sigma/alpha", "error \u2265", "residual", "curl", "mean score", "Fisher gap"):
        table.add_column(name, justify="right")
    for level, exact in zip(result.levels, result.exact, strict=True):
        table.add_row(
            f"{level.ratio:.3g}",
            f"{level.at_least:.2g} ({exact.at_least:.2g})",
            f"{level.residual:.2g} ({exact.residual:.2g})",
            f"{level.curl:.2g} ({exact.curl:.2g})",
            f"{level.mean:.2f} ({exact.mean:.2f})",
            f"{level.fisher:.2g} \u00b1 {level.stderr:.2g}",
        )
    console.print(table)
