"""Charts side by side with one title and one legend, as a file of SVG or PNG.

A PNG is rendered from the SVG by resvg. Its Latin letters have the font that Pillow contains, so
they look the same on every machine; other letters need a font of the system.
"""

from __future__ import annotations

import os
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from scorefield._internal.atomic_files import write
from scorefield.report.chart import LEFT, Chart, Series, legend, marker, tag, text
from scorefield.report.images import Target
from scorefield.report.style import DARK, LIGHT, chart_css, optional

ZOOM = 2  # pixels of a PNG along a side of one of the SVG
MARGIN, TITLE, HEADING, ENTRY = 12, 40, 30, 22  # heights of lines of text
_NAMESPACE = "http://www.w3.org/2000/svg"
_LETTER, _SWATCH = 7.2, 40  # about the width of a letter of a legend, and of its line


@dataclass(frozen=True)
class Figure:
    """Charts in rows and columns.

    Attributes:
        charts: row by row.
        columns: how many stand in a row.
        title: above all of them.
    """

    charts: Sequence[Chart]
    columns: int = 1
    title: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """The width and the height of the SVG, in pixels."""
        return self._right + MARGIN, self._down[-1] + ENTRY * len(self._rows) + MARGIN

    def origin(self, k: int) -> tuple[int, int]:
        """Return the pixel of the upper left corner of the k-th chart."""
        row, column = divmod(k, self.columns)
        return MARGIN + column * self._width, self._down[row] + HEADING

    def svg(self) -> str:
        """Return the figure as a document with its own colours, for light and for dark paper."""
        dark = f"@media (prefers-color-scheme:dark){{{chart_css(DARK)}}}"
        return self._document(chart_css(LIGHT) + dark)

    def _repr_html_(self) -> str:
        """Return the figure as a picture with its description, for a notebook."""
        address = b64encode(self.svg().encode()).decode()
        return tag("img", src=f"data:image/svg+xml;base64,{address}", alt=self._alt)

    def png(self) -> bytes:
        """Return the figure as a PNG on light paper.

        Raises:
            ImportError: resvg_py or Pillow is not installed.
        """
        font = optional("PIL.ImageFont").load_default(12)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "font"
            file.write_bytes(getattr(font, "font_bytes", b""))
            rendered: bytes = optional("resvg_py").svg_to_bytes(
                svg_string=self._document(chart_css(LIGHT)),
                zoom=ZOOM,
                font_files=[str(file)],
                sans_serif_family=font.getname()[0] if hasattr(font, "getname") else None,
            )
        return rendered

    def save(self, path: Target) -> None:
        """Write the figure as SVG or PNG, by the ending of the path; a file object gets a PNG.

        Raises:
            ImportError: resvg_py or Pillow is not installed; a PNG needs them.
            ValueError: another ending.
        """
        if not isinstance(path, str | os.PathLike):
            path.write(self.png())
            return
        ending = Path(path).suffix.lower()
        if ending not in (".svg", ".png"):
            raise ValueError(f"path={os.fspath(path)!r}: must end in .svg or .png.")
        content = self.svg().encode() if ending == ".svg" else self.png()
        write(Path(path), lambda file: file.write(content), len(content))

    @property
    def _alt(self) -> str:
        return ". ".join(filter(None, [self.title, *(chart.alt for chart in self.charts)]))

    @property
    def _width(self) -> int:
        """The width of a column."""
        return max(chart.width for chart in self.charts)

    @property
    def _right(self) -> int:
        """The right edge of the last column."""
        return MARGIN + self._width * min(self.columns, len(self.charts))

    @property
    def _down(self) -> list[int]:
        """The upper edges of the rows, and the lower edge of the last."""
        firsts = range(0, len(self.charts), self.columns)
        rows = [self.charts[first : first + self.columns] for first in firsts]
        heights = [HEADING + max(chart.height for chart in row) for row in rows]
        return list(accumulate(heights, initial=MARGIN + TITLE * bool(self.title)))

    @property
    def _rows(self) -> list[list[tuple[float, Series]]]:
        """The entries of the legend row by row, and the pixel from the left of each."""
        rows: list[list[tuple[float, Series]]] = []
        at, right = float("inf"), self._right
        for series in legend(self.charts):
            width = _SWATCH + _LETTER * len(series.name) + 18
            if at + width > right:
                rows.append([])
                at = MARGIN + LEFT
            rows[-1].append((at, series))
            at += width
        return rows

    def _document(self, css: str) -> str:
        width, height = self.size
        parts = [tag("style", css), tag("rect", class_="paper", width=width, height=height)]
        if self.title:
            title = text(self.title)
            parts.append(tag("text", title, class_="title", x=MARGIN + LEFT, y=MARGIN + 24))
        for k, chart in enumerate(self.charts):
            x, y = self.origin(k)
            tone = "" if chart.tone is None else f" tone{chart.tone}"
            title = text(chart.title or chart.y.label)
            heading = tag("text", title, class_="heading" + tone, x=LEFT, y=-6)
            parts.append(tag("g", heading + chart.drawing(), transform=f"translate({x} {y})"))
        for k, row in enumerate(self._rows):
            down = self._down[-1] + ENTRY * (k + 0.5)
            parts += [_entry(series, across, down) for across, series in row]
        content = tag("title", text(self._alt)) + "".join(parts)
        size = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
        return tag("svg", content, xmlns=_NAMESPACE, class_="chart", role="img", **size)


def _entry(series: Series, x: float, y: float) -> str:
    """Return an entry of the legend: a piece of the line, its marker and its name."""
    line = tag("path", class_="line", d=f"M{x:g} {y:g}h28")
    sign = marker(series, (x + 14, y)) if series.titles else ""
    name = tag("text", text(series.name), x=x + _SWATCH - 4, y=y + 4)
    return tag("g", line + sign + name, class_=series.classes)
