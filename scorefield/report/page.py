"""One file of HTML: the template filled in, and a policy that allows what is in it, nothing else.

Every value is escaped by the template. Style and script are named in the policy by their digests,
so that no other could run, whatever a name in the data says.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from scorefield import __version__
from scorefield.report.blocks import Panels, Part, Section, Slider
from scorefield.report.style import DARK, LIGHT, VARIABLES, chart_css, optional
from scorefield.report.text import printable


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page of sections.

    Raises:
        ImportError: Jinja is not installed.
    """
    jinja, markup = optional("jinja2"), optional("markupsafe").Markup
    parts = [part for section in sections for part in section.parts]
    script, style = _text("page.js"), _colours() + _text("page.css") + _sheets(parts)
    environment = jinja.Environment(
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_written,
    )
    page: str = environment.from_string(_text("page.html")).render(
        title=title,
        lead=lead,
        sections=sections,
        frames={part.id: _moves(part) for part in parts if isinstance(part, Slider)},
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


def _written(value: Any) -> Any:
    """Return a value of the template as it stands in the page."""
    return printable(value) if type(value) is str else value


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return resources.files("scorefield.report").joinpath(name).read_text(encoding="utf-8")


def _colours() -> str:
    """Return the colours as variables, lighter on dark paper, and the style of the charts."""
    dark = f"@media (prefers-color-scheme:dark){{:root{{{DARK.variables}}}}}"
    tones = "".join(f".tone{k}{{--tone:var(--tone{k})}}" for k in range(len(LIGHT.tones)))
    return f":root{{{LIGHT.variables}}}{dark}{tones}{chart_css(VARIABLES)}\n"


def _sheets(parts: Sequence[Part]) -> str:
    """Return the sizes of the sheets: where there is room, a whole number of pixels to a pixel."""
    groups = [part.panels for part in parts if isinstance(part, Panels | Slider)]
    pictures = [panel.picture for group in groups for panel in group]
    sizes = sorted({(p.width, p.height) for p in pictures if p.uri})
    return "".join(
        f".s{w}x{h}{{aspect-ratio:{w}/{h};width:100%;"
        f"width:max(round(down,100%,{w}px),min(100%,{w}px))}}\n"
        for w, h in sizes
    )


def _moves(slider: Slider) -> dict[str, Any]:
    """Return what the script needs to know of a slider."""
    panels = [
        {"at": p.at, "notes": p.notes, "frames": p.picture.frames, "paths": p.picture.paths}
        for p in slider.panels
    ]
    return {"labels": slider.labels, "panels": panels}
