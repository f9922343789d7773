"""Lines, tables, progress and pictures at the terminal."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from scorefield._internal.text import one_line, printable

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_FIRST_LINE = 3.0  # seconds

# commands print notes themselves
logging.getLogger("scorefield").addHandler(logging.NullHandler())
console = Console(highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print a line, in which a long path stays in one piece, with control characters written out.

    If the terminal is lost, this acts as the signal of that, SIGHUP.
    """
    try:
        console.print(printable(text), soft_wrap=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        leave_terminal()
        signal.raise_signal(signal.SIGHUP)


def leave_terminal() -> None:
    """Print nothing more to a terminal that is lost, where every write would fail."""
    console.quiet = True
    with open(os.devnull, "w") as nowhere:
        for descriptor in (1, 2):
            if os.isatty(descriptor):
                os.dup2(nowhere.fileno(), descriptor)


def show_rows(rows: Mapping[str, str]) -> None:
    """Print a table of names and texts."""
    table = Table(show_header=False, box=None)
    for name, text in rows.items():
        table.add_row(one_line(name), one_line(text))
    console.print(table)


def draw(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Draw images ``(N, C, H, W)``, if they have one or three channels."""
    if images.shape[1] not in (1, 3):
        return
    from scorefield.report import image_grid

    try:
        image_grid(images, path, columns=columns)
        say(f"picture: {path}")
    except ImportError as error:
        say(f"no picture: {error}")


def track(
    work: Iterable[T], total: int, title: str, note: Callable[[], str] = lambda: ""
) -> Iterator[T]:
    """Yield from ``work`` and show its progress with `meter`."""
    with meter(total, title, note) as advance:
        for item in work:
            yield item
            advance()


@contextmanager
def meter(
    total: int, title: str, note: Callable[[], str] = lambda: ""
) -> Iterator[Callable[[], None]]:
    """Show a progress bar and ETA; if not at a terminal, print lines.

    There is a line after every tenth, and before the first one after 3, 6, 12 seconds and so on.
    """
    if not console.is_terminal:
        began, interval, counter = time.monotonic(), max(1, total // 10), itertools.count(1)
        wait = _FIRST_LINE

        def advance() -> None:
            nonlocal wait
            done, seconds = next(counter), time.monotonic() - began
            early = done < interval and seconds > wait
            if (done % interval == 0 or early) and done < total:
                wait *= 1 + early
                say(f"{title} {done}/{total} {note()} ETA {seconds / done * (total - done):.0f} s")

        yield advance
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda: bar.update(task, advance=1, note=note())
