"""Colours and strokes of charts on light and on dark paper, and the imports of the extra.

Colours that colour-blind readers can distinguish: Okabe and Ito (2008), Color universal design,
without the yellow that fades on white; the last one is the ink of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

BLUE, ORANGE, INK = 0, 1, 6  # tones


@dataclass(frozen=True)
class Palette:
    """The colours of one kind of paper; ``tones`` are those of series."""

    paper: str
    ink: str
    quiet: str
    rule: str
    wash: str
    tones: tuple[str, ...]
    shade: str = "none"

    @property
    def variables(self) -> str:
        """The colours as variables of a style sheet."""
        names = ("paper", "ink", "quiet", "rule", "wash")
        tones = [f"--tone{k}:{colour};" for k, colour in enumerate(self.tones)]
        return "".join([*(f"--{name}:{getattr(self, name)};" for name in names), *tones])


LIGHT = Palette(
    *("#fff", "#222", "#5f6368", "#d9dce0", "#f5f6f7"),
    tones=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222"),
)
DARK = Palette(
    *("#202327", "#e6e7e9", "#a2a7ad", "#43484f", "#2a2e33"),
    tones=("#4d9cc9", "#e28e4d", "#4dbb9d", "#dba1c1", "#edbc4d", "#89cbf0", "#e6e7e9"),
    shade="invert(1)",
)
# for elements inside a page that defines the colours as variables
VARIABLES = Palette(
    *("var(--paper)", "var(--ink)", "var(--quiet)", "var(--rule)", "var(--wash)"),
    tones=tuple(f"var(--tone{k})" for k in range(len(LIGHT.tones))),
)


def chart_css(palette: Palette) -> str:
    """Return the style of the elements of a chart inside an element of the class ``chart``."""
    rules = [
        f".chart .paper{{fill:{palette.paper}}}",
        f".chart text{{font-family:sans-serif;font-size:12.5px;fill:{palette.quiet}}}",
        f".chart .label,.chart .heading,.chart .title{{fill:{palette.ink}}}",
        ".chart .heading{font-size:14px}.chart .title{font-size:19px}",
        ".chart .up{text-anchor:end}.chart .over{text-anchor:middle}",
        f".chart .grid{{stroke:{palette.rule};stroke-opacity:.6}}",
        f".chart .rule{{stroke:{palette.quiet}}}",
        f".chart .band{{fill:{palette.quiet};fill-opacity:.28}}",
        f".chart .shade{{filter:{palette.shade}}}",
        ".chart .line,.chart .halo{fill:none;stroke-width:2;stroke-linejoin:round}",
        f".chart .halo{{stroke:{palette.paper};stroke-width:4;stroke-opacity:.8}}",
        ".chart .area{fill-opacity:.75;stroke-width:1}",
        ".chart .whisker{stroke-width:1.4;stroke-opacity:.7}",
        f".chart .mark{{stroke:{palette.paper};stroke-width:1.2}}",
        ".chart .faint .line{stroke-width:1.2;stroke-opacity:.45}",
        ".chart .faint .area{fill-opacity:.35}.chart .dashed .line{stroke-dasharray:6 4}",
    ]
    for k, colour in enumerate(palette.tones):
        inside = f".chart .tone{k} "
        rules += [
            f"{inside}.line,{inside}.whisker,{inside}.area{{stroke:{colour}}}",
            f"{inside}.area,{inside}.mark,.chart .heading.tone{k}{{fill:{colour}}}",
        ]
    return "".join(rules)


def optional(module: str) -> ModuleType:
    """Return a module of the extra ``report``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"reports and pictures need {module.split('.')[0]}, which is not installed: "
            "pip install scorefield[report]"
        ) from error
