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
from scorefield.report import frontier_section, sample_sections, training_sections
from scorefield.report.blocks import Section
from scorefield.report.context import ReportContext
from scorefield.report.frames import solver_plans
from scorefield.report.inputs import open_inputs
from scorefield.report.page import render
from scorefield.report.style import optional
from scorefield.report.text import short_name
from scorefield.runs.jobs.tables import check_target
from scorefield.runs.summary import amount

MOST_SAMPLES, MOST_ITEMS = 64, 2000
SECTIONS = (
    training_sections.training,
    training_sections.noise_levels,
    sample_sections.samples,
    sample_sections.over_time,
    sample_sections.over_calls,
    sample_sections.two_ways,
    frontier_section.frontier_section,
    training_sections.likelihood,
    sample_sections.interpolations,
    training_sections.commands,
)


class ReportBuilder:
    """Makes a report: iterate over it to compute the sections; the file is written at the end.

    The arguments and exceptions are those of `write_report`; they are checked before any work.
    """

    def __init__(
        self,
        run: str | PathLike[str],
        data: str | PathLike[str] | None = None,
        out: str | PathLike[str] | None = None,
        *,
        held_out: bool = False,
        seed: int = 0,
        n: int | None = None,
        items: int | None = None,
        overwrite: bool = False,
    ) -> None:
        for module in ("jinja2", "PIL.Image"):
            optional(module)
        for name, value, most in (("n", n, MOST_SAMPLES), ("items", items, MOST_ITEMS)):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"{name}={value}: must be from 1 to {most}.")
        folder = Path(run)
        self.path = folder / "report.html" if out is None else Path(out)
        inputs = open_inputs(folder, None if data is None else str(data), held_out, seed)
        check_target(self.path, (".html",), overwrite)
        solver_plans(inputs.run.field)  # rejects a field that no plan can be made for
        self.context = ReportContext(inputs, n, items)

    def __len__(self) -> int:
        """The number of sections."""
        return len(SECTIONS)

    def __iter__(self) -> Iterator[Section]:
        """Yield each section when it is computed, then write the file in one piece.

        Raises:
            NumericalError: the network's samples are not finite.
            StorageError: the disk has no room for the file.
        """
        sections = []
        for section in SECTIONS:
            sections.append(section(self.context))
            yield sections[-1]
        config, name = self.context.run.config, self.context.run.config.data.name
        title = short_name(Path(name).stem or name)
        lead = f"A diffusion model learned from {amount(config.data)} of {short_name(name)}."
        if config.source:
            lead = f"A diffusion model imported from {short_name(config.source)}."
        page = render(title, lead, sections).encode()
        write(self.path, lambda file: file.write(page), len(page))


def write_report(
    run: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    **settings: Any,
) -> Path:
    """Write a report of a run as one HTML file that opens offline, and return its path.

    The report depends on the arguments and on the files of the run folder alone. It shows the
    training log, the tuned plans and the measured frontier if the folder has them.

    Args:
        run: a run folder.
        data: items like those the run was trained on: a file or a built-in set. Sections that need
            data are placeholders without it.
        out: the file to write; ``report.html`` in the run folder by default.
        settings: ``held_out=True`` takes only the items that training held out of ``data``, which
            must be the run's own. ``seed=0`` determines all noise. ``n`` is the number of samples
            in a panel of the sliders, and ``items`` the number of items whose likelihood is
            computed; both depend on the data by default. ``overwrite=True`` replaces the file.

    Raises:
        ImportError: Jinja or Pillow is not installed.
        ValueError: an argument that is out of range or does not fit the run.
        NumericalError: the network's samples are not finite.
        StorageError: the disk has no room for the file.
    """
    builder = ReportBuilder(run, data, out, **settings)
    for _ in builder:
        pass
    return builder.path
