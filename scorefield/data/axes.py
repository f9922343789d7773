"""The axes of an array: vectors, signals, images or volumes, with channels first, last or none.

Samples have their channels in front: ``(D,)`` vectors, ``(C, L)`` signals, ``(C, H, W)`` images and
``(C, D, H, W)`` volumes. An array does not say which it holds, so its shape decides unless
``layout`` and ``channels`` do. Signals with more channels than places are not guessed: their axes
are more often in the other order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.config import Channels, Kind, ReadingConfig

OPTIONS = ("layout", "channels")
_SPACE: dict[Kind, tuple[str, ...]] = {
    "vectors": (),
    "signals": ("L",),
    "images": ("H", "W"),
    "volumes": ("D", "H", "W"),
}
_FEW = 4  # channels, at most, that are expected last
_SQUARE = 8  # sides of a square or a cube, at least, that is expected to be an image or a volume


@dataclass(frozen=True)
class Axes:
    """The kind of samples that an array ``(N, ...)`` holds, and the place of their channels.

    Attributes:
        kind: of the samples.
        channels: the place of the axis of channels; None without one.
    """

    kind: Kind
    channels: Channels | None = None

    def samples(self, batch: np.ndarray) -> np.ndarray:
        """Return values ``(B, ...)`` as samples ``(B, C, ...)``, or vectors ``(B, D)``."""
        if self.kind == "vectors":
            return batch.reshape(len(batch), math.prod(batch.shape[1:]))
        if self.channels is None:
            return batch[:, None]
        return np.moveaxis(batch, -1, 1) if self.channels == "last" else batch

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample of an array ``(N, ...)``."""
        return self.samples(np.empty((0, *shape[1:]))).shape[1:]

    def __str__(self) -> str:
        space = _SPACE[self.kind]
        names = {"first": ("C", *space), "last": (*space, "C"), None: space or ("D",)}
        return f"{self.kind} ({', '.join(('N', *names[self.channels]))})"


def axes_of(
    name: str,
    shape: tuple[int, ...],
    byte: bool,
    choices: ReadingConfig = ReadingConfig(),
    sample: tuple[int, ...] | None = None,
) -> tuple[Axes, bool]:
    """Return the axes of an array, and whether they are a guess.

    Args:
        name: of the source, for messages.
        shape, byte: of the array, and whether its values are unsigned bytes.
        sample: the shape of a run's samples, which is preferred.

    Raises:
        DataError: the array cannot hold what `choices` declares, or the order of the axes of
            signals is not clear.
    """
    every = _possible(shape, byte)
    chosen = [
        axes
        for axes in every
        if choices.layout in (None, axes.kind)
        and (choices.channels is None or choices.channels == axes.channels)
    ]
    if not chosen:
        options = ", ".join(f"{k}={v!r}" for k in OPTIONS if (v := getattr(choices, k)))
        raise DataError(
            f"{options}: {name} has shape {shape}, which can be "
            f"{' or '.join(map(str, every)) or 'no samples (N, ...)'}."
        )
    if (
        sample is None
        and chosen[0] == Axes("signals", "first")
        and chosen[1:]
        and shape[1] > shape[2]
    ):
        raise DataError(
            f"{name} has shape {shape}, which can be signals (N, C, L) of {shape[1]} channels, or "
            f"signals (N, L, C) of {shape[2]}: write channels=first or channels=last, or another "
            "layout."
        )
    like = [axes for axes in chosen if axes.shape(shape) == sample]
    usual = len(shape) == 2 or (len(shape) > 3 and shape[1] <= _FEW < min(shape[2:]))
    return (like or chosen)[0], len(chosen) > 1 and not like and not usual


def _possible(shape: tuple[int, ...], byte: bool) -> list[Axes]:
    """Return the axes that an array may have, the likeliest first."""
    space = shape[1:]
    count = len(space)
    few = count > 1 and space[-1] <= _FEW < space[0] and not (count > 2 and _is_square(space[1:]))
    order: tuple[Channels, Channels] = ("last", "first") if few else ("first", "last")
    even = count in (2, 3) and _is_square(space) and space[0] >= _SQUARE
    pictures = even or (count == 2 and byte)
    plain = [Axes(kind) for kind, names in _SPACE.items() if names and len(names) == count]
    rich = [
        Axes(kind, place)
        for kind, names in _SPACE.items()
        if names and len(names) == count - 1
        for place in order
    ]
    vectors = [Axes("vectors")] if 0 < count < 5 else []
    if count == 1:
        return [*vectors, *plain]
    return [*plain, *rich, *vectors] if pictures else [*rich, *plain, *vectors]


def _is_square(sides: tuple[int, ...]) -> bool:
    return len({*sides}) == 1
