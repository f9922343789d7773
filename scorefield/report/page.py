"""The HTML file: the template with its values, and a policy that allows nothing from outside.

The template escapes every value. The content-security policy has the digests of the one style and
the one script, so that a browser runs no other, whatever a name in the data contains.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from scorefield import __version__
from scorefield.report.blocks import Panels, Section, Slider
from scorefield.report.style import DARK, LIGHT, VARIABLES, chart_css, optional
from scorefield.report.text import printable
from scorefield.report.view import Picture


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
