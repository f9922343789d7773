"""Pictures of samples with several frames, and the interface that makes them.

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
_OUTER = 0.005  # share of the values on each side that may lie outside the limits


@dataclass(frozen=True)
class Picture:
    """Frames of one size: a sheet of images, the last one on top, or drawings of paths.

    Attributes:
        width, height: of a frame, in pixels of the data or in units of the drawing.
        frames: number of frames.
        uri: the sheet of images.
        crisp: whether the pixels of the images are enlarged as squares.
        layers: the class of each layer of a drawing.
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
    """A way to show samples.

    Attributes:
        noun: the word for several samples.
        many: number of samples in a large picture.
        caption: a description of the axes or shades.
        hint: how to recognise a sample in another picture.
        way: a description of the axes of an interpolation.
    """

    noun: str
    many: int
    caption: str
    hint: str = ""
    way: str = ""

    @abstractmethod
    def few(self, frames: int, most: int = 12) -> int:
        """Return the number of samples in a picture of so many frames, at most ``most`` images."""

    @abstractmethod
    def picture(self, frames: Sequence[Tensor], followed: bool = True) -> Picture:
        """Return the picture of frames, each ``(n, *shape)``.

        Some samples may be marked if they are ``followed``, so in other pictures as well.
        """

    @abstractmethod
    def strips(self, x: Tensor) -> list[Picture]:
        """Return pictures of interpolations, ``(pairs, points, *shape)``."""


def limits(x: Tensor, room: float = 0.0) -> tuple[float, float]:
    """Return ends between which nearly all finite values lie."""
    values = x[x.isfinite()].double().flatten()
    values = values[:: -(-len(values) // 1_000_000)] if len(values) else values.new_zeros(1)
    low, high = (float(values.quantile(q)) for q in (_OUTER, 1 - _OUTER))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return low - room * (high - low), high + room * (high - low)
