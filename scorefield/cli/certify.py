"""`scorefield certify`: solvers tested against exact solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from scorefield._internal.errors import NumericalError, UsageError
from scorefield.cli.console import say
from scorefield.cli.options import WHERE, Overwrite, option


def certify(
    solver: str = "all",
    /,
    *,
    out: Annotated[Path | None, option(WHERE)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Test solvers against exact solutions: order, distribution of the samples, calls per step.

    Prints a Markdown table with a row for each solver and a column for each process: the orders
    measured towards data and towards noise; for solvers of the SDE the weak orders of mean and
    covariance, and the smallest p-value of the tests of the distribution. Exits with 5 if a solver
    fails.

    Parameters
    ----------
    solver
        all; a process, such as vp; percoordinate, for the solvers that take a process with one
        noise level per coordinate; a solver or the first letters of its name, such as heun or
        multistep; or your own solver, package.module:Solver.
    out
        A file to write the table to.
    """
    from scorefield._internal.atomic_files import write
    from scorefield.evaluate import certify as certificates
    from scorefield.runs.jobs.tables import refuse_file

    if out is not None:
        refuse_file(out, overwrite)
        if not out.parent.is_dir():
            raise UsageError(f"{out}: give a name in a folder that exists.")
    chosen, process_names = certificates.choose(solver)
    lines, failed = certificates.header(process_names), []
    for text in lines:
        say(text)
    processes = [certificates.EVERY_PROCESS[name]() for name in process_names]
    if any(process.coordinates for process in processes):
        chosen = {n: make for n, make in chosen.items() if certificates.takes(make, *processes)}
    for name, make in chosen.items():
        results = [certificates.certify(make, process, name=name) for process in processes]
        failed += [f"{c.solver} on {c.process}" for c in results if not c.passed]
        lines.append(certificates.line(results))
        say(lines[-1])
    if out is not None:
        write(out, lambda file: file.write(("\n".join(lines) + "\n").encode()))
    count = len(chosen) * len(processes)
    if failed:
        raise NumericalError(f"{len(failed)} of {count} certificates fail: {', '.join(failed)}.")
    say(f"all {count} certificates pass")
