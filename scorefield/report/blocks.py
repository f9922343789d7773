"""The blocks that sections of a page consist of; the template has a layout for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scorefield.report.chart import Chart, Series, legend
from scorefield.report.view import Picture

Size = Literal["small", "large", "wide"]


class Block:
    """A part of a section."""

    @property
    def kind(self) -> str:
        """The name by which the template chooses the layout."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Panel:
    """A picture with a name.

    Attributes:
        name, note: the text below the picture.
        alt: a description for readers who do not see it.
        at: in a slider, the frame at each place, or None where the panel has no picture.
        notes: in a slider, the note at each place.
    """

    name: str
    note: str
    alt: str
    picture: Picture
    at: tuple[int | None, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts(Block):
    """Names, and a text for each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Charts(Block):
    """Charts side by side, with one legend and a remark."""

    charts: Sequence[Chart]
    note: str = ""

    @property
    def legend(self) -> list[Series]:
        """The named series of all charts."""
        return legend(self.charts)


@dataclass(frozen=True)
class Panels(Block):
    """Panels side by side."""

    panels: Sequence[Panel]
    size: Size = "small"


@dataclass(frozen=True)
class Slider(Block):
    """Panels that one slider moves.

    Attributes:
        id: unique in the page.
        label: the name of the slider.
        labels: the name of each place.
        size: of the panels.
        plays: whether a button moves it.
    """

    id: str
    label: str
    labels: tuple[str, ...]
    panels: Sequence[Panel]
    size: Size = "small"
    plays: bool = False

    @property
    def start(self) -> int:
        """The last place at which all panels have a picture, or else the last place."""
        last = len(self.labels) - 1
        whole = [k for k in range(last + 1) if all(p.at[k] is not None for p in self.panels)]
        return max(whole, default=last)


@dataclass(frozen=True)
class Table(Block):
    """Rows of texts under names."""

    caption: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Text(Block):
    """A long text, folded until the reader opens it."""

    name: str
    text: str


@dataclass(frozen=True)
class Note(Block):
    """A remark."""

    text: str


@dataclass(frozen=True)
class Commands(Block):
    """Lines for a terminal."""

    text: str


@dataclass(frozen=True)
class Missing(Block):
    """A placeholder for a missing part, with the command that creates it."""

    text: str
    command: str


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    text: str
    parts: Sequence[Block]
