"""What a page is made of: sections of parts, each of a kind that the template knows how to set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from scorefield.report.chart import Chart, Series, legend
from scorefield.report.view import Picture

Size = Literal["small", "large", "wide"]


@dataclass(frozen=True)
class Panel:
    """A picture with its name.

    Attributes:
        name, note: what stands below the picture.
        alt: what it shows, for who does not see it.
        at: in a slider, the frame at each of its places, or None for no picture there.
        notes: in a slider, the note at each of its places.
    """

    name: str
    note: str
    alt: str
    picture: Picture
    at: tuple[int | None, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Names and what is to say of them."""

    rows: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Charts:
    """Charts side by side, with one legend and a remark."""

    charts: Sequence[Chart]
    note: str = ""
    kind: ClassVar[str] = "charts"

    @property
    def legend(self) -> list[Series]:
        """The named series of all of them."""
        return legend(self.charts)


@dataclass(frozen=True)
class Panels:
    """Panels side by side, of some size."""

    panels: Sequence[Panel]
    size: Size = "small"
    kind: ClassVar[str] = "panels"


@dataclass(frozen=True)
class Slider:
    """Panels that a slider moves, all together.

    Attributes:
        id: its own in the page.
        label: what it is moved along.
        labels: what each of its places is called.
        size: of the panels.
        plays: whether there is a button that moves it.
    """

    id: str
    label: str
    labels: tuple[str, ...]
    panels: Sequence[Panel]
    size: Size = "small"
    plays: bool = False

    @property
    def start(self) -> int:
        """The last place at which all panels have a picture; the last of all if there is none."""
        last = len(self.labels) - 1
        whole = [k for k in range(last + 1) if all(p.at[k] is not None for p in self.panels)]
        return max(whole, default=last)

    kind: ClassVar[str] = "slider"


@dataclass(frozen=True)
class Table:
    """Rows of texts under names."""

    caption: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Text:
    """Lines of a file, to be unfolded."""

    name: str
    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Note:
    """A remark."""

    text: str
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Commands:
    """Lines to be typed."""

    text: str
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class Missing:
    """What is not there, and the command that it comes from."""

    text: str
    command: str
    kind: ClassVar[str] = "missing"


Part = Facts | Charts | Panels | Slider | Table | Text | Note | Commands | Missing


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    text: str
    parts: Sequence[Part]
