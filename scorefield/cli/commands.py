"""What the commands do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from torch import Tensor

from scorefield._internal.atomic_files import write
from scorefield._internal.errors import NumericalError, UsageError
from scorefield._internal.text import one_line
from scorefield.cli.options import ReadOptions
from scorefield.data import inspect
from scorefield.runs.jobs.tables import refuse_file
from scorefield.runs.loading import load
from scorefield.runs.run import Run
from scorefield.runs.summary import summary

T = TypeVar("T")


def say(console: Console, text: str) -> None:
    """Print one line as it is: a long path stays in one piece."""
    console.print(text, soft_wrap=True)


def draw(console: Console, images: Tensor, path: Path, columns: int | None = None) -> None:
    """Draw images ``(N, C, H, W)``, if they are of one or three channels."""
    if images.shape[1] not in (1, 3):
        return
    from scorefield.report import image_grid

    try:
        image_grid(images, path, columns=columns)
        say(console, f"picture: {path}")
    except ImportError as error:
        say(console, f"no picture: {error}")


def certify(console: Console, what: str, out: Path | None, overwrite: bool) -> None:
    """Print a table of certificates, and write it if asked to.

    Raises:
        NumericalError: a solver failed.
    """
    from scorefield.evaluate import certify as certificates

    if out is not None:
        refuse_file(out, overwrite)
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"{out}: give a name in a folder that exists.")
    solvers, process_names = certificates.choose(what)
    lines, failed = certificates.header(process_names), []
    for text in lines:
        say(console, text)
    processes = [certificates.PROCESSES[name]() for name in process_names]
    for name, solver in solvers.items():
        made = [certificates.certify(solver, process, name=name) for process in processes]
        failed += [f"{c.solver} on {c.process}" for c in made if not c.passed]
        lines.append(certificates.line(made))
        say(console, lines[-1])
    if out is not None:
        write_text(out, "\n".join(lines) + "\n")
    count = len(solvers) * len(processes)
    if failed:
        raise NumericalError(f"{len(failed)} of {count} certificates fail: {', '.join(failed)}.")
    say(console, f"all {count} certificates pass")


def inspect_data(console: Console, source: str, reading: ReadOptions) -> None:
    """Print a table of what a source of data holds."""
    table = Table(show_header=False, box=None)
    for name, text in inspect(source, **reading.arguments()).items():
        table.add_row(name, one_line(text))
    console.print(table)


def info(console: Console, folder: Path) -> None:
    """Print a table of what a run is."""
    table = Table(show_header=False, box=None)
    rows = summary(load(folder))
    rows["files"] = ", ".join(sorted(path.name for path in folder.iterdir()))
    for name, text in rows.items():
        table.add_row(name, one_line(text))
    console.print(table)


def track(
    console: Console,
    work: Iterable[T],
    total: int,
    title: str,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Yield from ``work`` with what `meter` shows."""
    with meter(console, total, title, note) as advance:
        for item in work:
            yield item
            advance()


@contextmanager
def meter(
    console: Console, total: int, title: str, note: Callable[[], str] = lambda: ""
) -> Iterator[Callable[[], None]]:
    """Show a progress bar and ETA; every tenth as a line if not a terminal."""
    if not console.is_terminal:
        began, marks, done = time.monotonic(), max(1, total // 10), itertools.count(1)

        def tell() -> None:
            now = next(done)
            if now % marks == 0 and now < total:
                left = (time.monotonic() - began) / now * (total - now)
                say(console, f"{title} {now}/{total} {note()} ETA {left:.0f} s")

        yield tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda: bar.update(task, advance=1, note=note())


def write_text(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    write(path, lambda file: file.write(text.encode()))


def check_device(device: str) -> None:
    """Raise `UsageError` if there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here.")


def find_class(run: Run, y: str | None) -> int | None:
    """Return the number of a class that is asked for by its number or its name.

    Raises:
        UsageError: the run does not know it.
    """
    classes, names = run.config.data.classes, run.config.data.class_names
    if y is None:
        return None
    if not classes:
        raise UsageError(f"--y {y}: this run has no classes; train with --conditional.")
    if y in names:
        return names.index(y)
    if not (y.isdecimal() and int(y) < classes):
        known = f", {', '.join(names[:8])}" if names else ""
        raise UsageError(f"--y {y}: this run knows the classes 0 to {classes - 1}{known}.")
    return int(y)
