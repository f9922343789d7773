"""The one-file report of a run: it opens offline, on a screen or a phone."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from scorefield._internal.atomic_files import write
from scorefield._internal.errors import UsageError
from scorefield.report import sample_sections, training_sections
from scorefield.report.blocks import Commands, Section
from scorefield.report.context import ReportContext, quoted
from scorefield.report.frames import solver_plans
from scorefield.report.frontier import frontier_section
from scorefield.report.page import render
from scorefield.report.style import optional
from scorefield.report.text import short_name
from scorefield.report.training_sections import likelihood
from scorefield.runs.jobs.tables import check_target
from scorefield.runs.run import Run
from scorefield.runs.summary import amount


def reproduce(context: ReportContext) -> Section:
    """Return the section of the commands that make the report and its parts again."""
    run, config, seed = context.folder, context.run.config, context.seed
    data = f" {context.data}{' --held-out' * context.held_out}" if context.x is not None else ""
    lines = [
        f"scorefield report {run}{data} --seed {seed}",
        f"scorefield sample {run} --n 64 --seed {seed}",
        *([] if context.run.codec else [f"scorefield likelihood {run} {context.data}"]),
        f"scorefield interpolate {run} {context.data} --pairs 0:1 2:3",
    ]
    if config.source is None:
        source = quoted(config.data.name)
        lines.append(f"scorefield train {source} --config {run}/config.toml --out AGAIN")
    text = "All numbers and pictures of this report depend on the run, the data and the seed alone."
    return Section("commands", "How to reproduce this", text, [Commands("\n".join(lines))])


SECTIONS = (
    training_sections.training,
    training_sections.noise_levels,
    sample_sections.samples,
    sample_sections.over_time,
    sample_sections.over_calls,
    sample_sections.two_ways,
    frontier_section,
    likelihood,
    sample_sections.interpolations,
    reproduce,
)


class ReportBuilder:
    """Makes a report: iterate over it to compute the sections; the file is written at the end.

    The arguments and exceptions are those of `write_report`; they are checked before any work.
    """

    def __init__(
        self,
        run: Run | str | PathLike[str],
        data: Any = None,
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
        self.context = ReportContext(run, data, held_out=held_out, seed=seed, n=n, items=items)
        if out is None:
            if self.context.run.folder is None:
                raise UsageError("out=None: the run has no folder; pass the file to write as out.")
            out = self.context.run.folder.path / "report.html"
        self.path = Path(out)
        check_target(self.path, (".html",), overwrite)
        solver_plans(self.context.run.field)  # rejects a field that no plan can be made for

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
    run: Run | str | PathLike[str],
    data: Any = None,
    out: str | PathLike[str] | None = None,
    *,
    held_out: bool = False,
    seed: int = 0,
    n: int | None = None,
    items: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report of a run as one HTML file that opens offline, and return its path.

    The report depends on the arguments and on the files of the run folder alone. It shows the
    training log, the tuned plans and the measured frontier if the run has them.

    Args:
        run: a run or a run folder.
        data: items like those the run was trained on: a path, the name of a built-in set, or
            anything else that `scorefield.read` takes. Sections that need data are placeholders
            without it.
        out: the file to write; ``report.html`` in the run folder by default.
        held_out: take only the items that training held out of ``data``, which must be the run's
            own.
        seed: of all noise.
        n: number of samples in a panel of the sliders, which depends on the data by default.
        items: number of items whose likelihood is computed; it depends on the data by default.
        overwrite: replace the file.

    Raises:
        ImportError: Jinja or Pillow is not installed.
        ValueError: an argument that is out of range or does not fit the run.
        NumericalError: the network's samples are not finite.
        StorageError: the disk has no room for the file.
    """
    builder = ReportBuilder(
        run,
        data,
        out,
        held_out=held_out,
        seed=seed,
        n=n,
        items=items,
        overwrite=overwrite,
    )
    for _ in builder:
        pass
    return builder.path
