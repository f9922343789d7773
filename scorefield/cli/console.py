"""Lines, tables, progress and pictures at the terminal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from scorefield._internal.text import one_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

console = Console(highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print one line as it is: a long path stays in one piece."""
    console.print(text, soft_wrap=True)


def show_rows(rows: Mapping[str, str]) -> None:
    """Print a table of names and texts."""
    table = Table(show_header=False, box=None)
    for name, text in rows.items():
        table.add_row(name, one_line(text))
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
    """Show a progress bar and ETA; if not at a terminal, print a line after every tenth."""
    if not console.is_terminal:
        began, interval, counter = time.monotonic(), max(1, total // 10), itertools.count(1)

        def advance() -> None:
            done = next(counter)
            if done % interval == 0 and done < total:
                left = (time.monotonic() - began) / done * (total - done)
                say(f"{title} {done}/{total} {note()} ETA {left:.0f} s")

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
