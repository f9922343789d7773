"""A report of a run: one HTML file that opens offline, on a screen or a phone.

Needs the extra ``scorefield[report]``: Jinja and Pillow are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from scorefield._internal.atomic_files import write
from scorefield._internal.errors import UsageError
from scorefield.report.html import frontier, measures, pictures
from scorefield.report.html.material import Material
from scorefield.report.html.opened import open_run
from scorefield.report.html.page import render
from scorefield.report.html.parts import Section
from scorefield.report.html.walks import solvers
from scorefield.report.html.words import named
from scorefield.report.style import optional
from scorefield.runs.jobs.tables import check_target
from scorefield.runs.summary import amount

__all__ = ["Making", "report"]

MOST_SAMPLES, MOST_ITEMS = 64, 2000
SECTIONS = (
    measures.training,
    measures.noise_levels,
    pictures.samples,
    pictures.over_time,
    pictures.over_calls,
    pictures.two_ways,
    frontier.frontier,
    measures.likelihood,
    pictures.interpolations,
    measures.commands,
)


class Making:
    """A report on its way: iterate over it to make the sections, and to write the file at the end.

    Args:
        run: a run folder.
        path: the file to write; ``report.html`` in the folder unless given.
        data: items like those the run was trained on, for what is told of data; a file or a
            built-in set.
        held_out: take of them only what the training held out; they are the run's own data then.
        seed: of all noise.
        n: how many samples a panel of the sliders shows; as suits the data unless given.
        items: how many items of the data the likelihood is told of; 64, or fewer large ones,
            unless given.
        overwrite: replace the file if it exists.

    Raises:
        ImportError: Jinja or Pillow is not installed.
        UsageError, DataError, CheckpointError: what is given does not fit, before any work.
        ValueError: a number out of range.
    """

    def __init__(
        self,
        run: str | PathLike[str],
        path: str | PathLike[str] | None = None,
        *,
        data: str | PathLike[str] | None = None,
        held_out: bool = False,
        seed: int = 0,
        n: int | None = None,
        items: int | None = None,
        overwrite: bool = False,
    ) -> None:
        for module in ("jinja2", "PIL.Image"):
            optional(module, "report")
        if (n is not None and not 1 <= n <= MOST_SAMPLES) or (
            items is not None and not 1 <= items <= MOST_ITEMS
        ):
            raise UsageError(
                f"n = {n}, items = {items}: give from 1 to {MOST_SAMPLES} samples, and from 1 to "
                f"{MOST_ITEMS} items."
            )
        folder = Path(run)
        self.path = folder / "report.html" if path is None else Path(path)
        opened = open_run(folder, None if data is None else str(data), held_out, seed)
        check_target(self.path, (".html",), overwrite)
        solvers(opened.run.field)  # refuses what no plan can be made for
        self.made = Material(opened, n, items)

    def __len__(self) -> int:
        """How many sections there are."""
        return len(SECTIONS)

    def __iter__(self) -> Iterator[Section]:
        """Yield the sections as they are made, and write the file, at once or not at all.

        Raises:
            NumericalError: a network whose samples are not finite.
            StorageError: there is no room for the file.
        """
        sections = []
        for make in SECTIONS:
            sections.append(make(self.made))
            yield sections[-1]
        data = self.made.run.config.data
        title = named(Path(data.name).stem or data.name)
        lead = f"A diffusion model learned from {amount(data)} of {named(data.name)}."
        if source := self.made.run.config.source:
            lead = f"A diffusion model imported from {named(source)}."
        page = render(title, lead, sections).encode()
        write(self.path, lambda file: file.write(page), len(page))


def report(
    run: str | PathLike[str], path: str | PathLike[str] | None = None, **settings: Any
) -> Path:
    """Write a report of a run as one HTML file, and return its path.

    A function of its arguments and of what lies in the run's folder: the log, plans that were tuned
    and the measured frontier are shown where they are there.

    Args:
        run, path: a run folder; the file to write, ``report.html`` in the folder unless given.
        settings: those of `Making`, such as ``data``.

    Raises:
        ImportError, ValueError, NumericalError, StorageError: as `Making`.
    """
    making = Making(run, path, **settings)
    for _ in making:
        pass
    return making.path
