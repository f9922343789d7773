"""The one-file report of a run: it opens offline, on a screen or a phone.

The template escapes every value. The content-security policy has the digests of the one style and
the one script, so that a browser runs no other, whatever a name in the data contains.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from scorefield import __version__
from scorefield._internal.atomic_files import write
from scorefield._internal.errors import UsageError
from scorefield._internal.text import printable, short_name
from scorefield.data.points import described
from scorefield.report import sample_sections, training_sections
from scorefield.report.audit import audit_section
from scorefield.report.blocks import Commands, Panels, Section, Slider
from scorefield.report.calibration import calibration_section
from scorefield.report.context import ReportContext, quoted
from scorefield.report.frames import solver_plans
from scorefield.report.frontier import frontier_section
from scorefield.report.style import DARK, LIGHT, VARIABLES, chart_css, optional
from scorefield.report.training_sections import likelihood
from scorefield.report.view import Picture
from scorefield.runs.calibrate import measured_columns
from scorefield.runs.jobs.tables import check_target
from scorefield.runs.run import Run
from scorefield.runs.summary import amount


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page of sections.

    Raises:
        ImportError: Jinja is not installed.
    """
    jinja, markup = optional("jinja2"), optional("markupsafe").Markup
    parts = [part for section in sections for part in section.parts]
    groups = [part.panels for part in parts if isinstance(part, Panels | Slider)]
    sizes = _image_sizes([panel.picture for panels in groups for panel in panels])
    script, style = _text("page.js"), _colours() + _text("page.css") + sizes
    environment = jinja.Environment(
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    page: str = environment.from_string(_text("page.html")).render(
        title=title,
        lead=lead,
        sections=sections,
        frames={part.id: _frames(part) for part in parts if isinstance(part, Slider)},
        policy=policy(style, script),
        style=markup(style),
        script=markup(script),
        markup=markup,
        version=__version__,
    )
    return page


def policy(style: str, script: str) -> str:
    """Return the content-security policy of a page with one style and one script."""
    return (
        "default-src 'none'; img-src data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return resources.files("scorefield.report").joinpath(name).read_text(encoding="utf-8")


def _colours() -> str:
    """Return the colours as variables, lighter on dark paper, and the style of the charts."""
    dark = f"@media (prefers-color-scheme:dark){{:root{{{DARK.variables}}}}}"
    tones = "".join(f".tone{k}{{--tone:var(--tone{k})}}" for k in range(len(LIGHT.tones)))
    return f":root{{{LIGHT.variables}}}{dark}{tones}{chart_css(VARIABLES)}\n"


def _image_sizes(pictures: Sequence[Picture]) -> str:
    """Return the sizes of sheets of images: if there is room, whole screen pixels per pixel."""
    sizes = sorted({(p.width, p.height) for p in pictures if p.uri})
    return "".join(
        f".s{w}x{h}{{aspect-ratio:{w}/{h};width:100%;"
        f"width:max(round(down,100%,{w}px),min(100%,{w}px))}}\n"
        for w, h in sizes
    )


def _frames(slider: Slider) -> dict[str, Any]:
    """Return the labels of a slider's places, and the frames and notes of its panels, as JSON."""
    panels = [
        {"at": p.at, "notes": p.notes, "frames": p.picture.frames, "paths": p.picture.paths}
        for p in slider.panels
    ]
    return {"labels": slider.labels, "panels": panels}


def reproduce(context: ReportContext) -> Section:
    """Return the section of the commands that make the report and its parts again."""
    run, config, seed = context.folder, context.run.config, context.seed
    data = f" {context.data}{' --held-out' * context.held_out}" if context.x is not None else ""
    lines = [
        f"scorefield report {run}{data}{' --audit' * context.audit} --seed {seed}",
        f"scorefield sample {run} --n 64 --seed {seed}",
        *([] if context.run.codec else [f"scorefield likelihood {run} {context.data}"]),
        f"scorefield interpolate {run} {context.data} --pairs 0:1 2:3",
    ]
    options, points = "", config.data.points
    if points.space:
        names, lines = config.data.columns.names, lines[:-1]
        options = f" --space {described(points)} --angles {points.angles}"
        options += f" --columns {quoted(','.join(names))}" * bool(names)
    if config.source is None:
        source = quoted(config.data.name)
        lines.append(f"scorefield train {source}{options} --config {run}/config.toml --out AGAIN")
    text = "All numbers and pictures of this report depend on the run, the data and the seed alone."
    return Section("commands", "How to reproduce this", text, [Commands("\n".join(lines))])


SECTIONS = (
    training_sections.training,
    training_sections.noise_levels,
    audit_section,
    sample_sections.samples,
    sample_sections.over_time,
    sample_sections.over_calls,
    sample_sections.two_ways,
    frontier_section,
    calibration_section,
    likelihood,
    sample_sections.interpolations,
    reproduce,
)


# sections that add vectors, or show plans that are not for points of a space
_FLAT = (
    sample_sections.over_time,
    sample_sections.over_calls,
    sample_sections.two_ways,
    frontier_section,
    sample_sections.interpolations,
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
        conditions: Any = None,
        audit: bool = False,
        overwrite: bool = False,
    ) -> None:
        for module in ("jinja2", "PIL.Image"):
            optional(module)
        settings: dict[str, Any] = {"held_out": held_out, "seed": seed, "n": n, "items": items}
        self.context = ReportContext(run, data, conditions=conditions, audit=audit, **settings)
        flat = self.context.run.field.process.space is None
        calibrated = bool(measured_columns(self.context.run))
        absent = (
            *(() if flat else _FLAT),
            *(() if calibrated else (calibration_section,)),
            *(() if audit else (audit_section,)),
        )
        self.sections = [section for section in SECTIONS if section not in absent]
        if out is None:
            if self.context.run.folder is None:
                raise UsageError("out=None: the run has no folder; pass the file to write as out.")
            out = self.context.run.folder.path / "report.html"
        self.path = Path(out)
        check_target(self.path, (".html",), overwrite)
        solver_plans(self.context.run.field)  # rejects a field that no plan can be made for

    def __len__(self) -> int:
        """The number of sections."""
        return len(self.sections)

    def __iter__(self) -> Iterator[Section]:
        """Yield each section when it is computed, then write the file in one piece.

        Raises:
            NumericalError: the network's samples are not finite.
            StorageError: the disk has no room for the file.
        """
        sections = []
        for section in self.sections:
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
    conditions: Any = None,
    audit: bool = False,
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
        conditions: of the data, as for `scorefield.read`, for the section on calibration.
        audit: add the readings of `scorefield.audit`, which take about as long as the rest.
        overwrite: replace the file.

    Raises:
        ImportError: Jinja or Pillow is not installed.
        ValueError: an argument that is out of range or does not fit the run.
        NumericalError: the network's samples are not finite.
        StorageError: the disk has no room for the file.
    """
    settings: dict[str, Any] = {"held_out": held_out, "seed": seed, "n": n, "items": items}
    settings |= {"conditions": conditions, "audit": audit, "overwrite": overwrite}
    builder = ReportBuilder(run, data, out, **settings)
    for _ in builder:
        pass
    return builder.path
