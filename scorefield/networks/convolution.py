"""Convolutions in one, two and three dimensions, and sides that they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

Convolution = type[nn.Conv1d | nn.Conv2d | nn.Conv3d]
_CONVOLUTIONS: dict[int, Convolution] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def convolution(dims: int) -> Convolution:
    """Return the class of convolutions along so many axes.

    Raises:
        ValueError: another number than 1, 2 or 3.
    """
    if dims not in _CONVOLUTIONS:
        raise ValueError(f"dims={dims}: must be 1 (signals), 2 (images) or 3 (volumes).")
    return _CONVOLUTIONS[dims]


def padded(x: Tensor, multiple: int) -> Tensor:
    """Return ``x`` ``(B, C, *sides)`` with zeros at the end of each side, up to a multiple."""
    return nn.functional.pad(
        x, [n for side in reversed(x.shape[2:]) for n in (0, -side % multiple)]
    )


def cropped(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Return the first places of ``x`` ``(B, C, ...)`` along each axis, ``(B, C, *sides)``."""
    places: tuple[Any, ...] = (..., *map(slice, sides))
    return x[places]
