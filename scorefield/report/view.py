"""Pictures of several frames, and what makes them of samples.

A view turns a few frames, each a batch of samples in the data's units, into one picture whose
frames a slider can show one after another. Limits and shades are fixed when the view is made, so
that frames and pictures can be compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

BOX = 1000  # the side of a drawing
_OUTER = 0.005  # share of the values on each side that limits may leave out


@dataclass(frozen=True)
class Picture:
    """Frames of one size: a sheet of images, the last one on top, or drawings of paths.

    Attributes:
        width, height: of a frame, in pixels of the data or in units of the drawing.
        frames: how many there are.
        uri: the sheet.
        crisp: whether its pixels are to be seen.
        layers: the names of a drawing's layers.
        paths: of each frame, the path of each layer.
    """

    width: int
    height: int
    frames: int
    uri: str = ""
    crisp: bool = False
    layers: tuple[str, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()


class View(ABC):
    """A way to look at samples.

    Attributes:
        noun: what samples are called.
        many: how many a large picture shows.
        caption: what is seen of them.
        hint: how a sample is found again in another picture.
        way: what is seen of a way between two.
    """

    noun: str
    many: int
    caption: str
    hint: str = ""
    way: str = ""

    @abstractmethod
    def few(self, frames: int, most: int = 12) -> int:
        """Return how many samples a picture of so many frames shows, ``most`` of them images."""

    @abstractmethod
    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        """Return the picture of frames, each ``(n, *shape)``.

        ``followed`` samples are those of other pictures too, and some may be marked.
        """

    @abstractmethod
    def strips(self, x: Tensor) -> list[Picture]:
        """Return pictures of the ways between samples, ``(pairs, points, *shape)``."""


def limits(x: Tensor, room: float = 0.0) -> tuple[float, float]:
    """Return ends that hold nearly all finite values."""
    values = x[x.isfinite()].double().flatten()
    values = values[:: -(-len(values) // 1_000_000)] if len(values) else values.new_zeros(1)
    low, high = (float(values.quantile(q)) for q in (_OUTER, 1 - _OUTER))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return low - room * (high - low), high + room * (high - low)
