"""Pictures of samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.report.figure import Target
from scorefield.report.style import optional

SEPARATOR = 2


def image_grid(
    images: Tensor,
    path: Target,
    *,
    columns: int | None = None,
    scale: int = 8,
    value_range: tuple[float, float] | None = None,
) -> None:
    """Write images ``(N, C, H, W)`` as one PNG, row by row, every value a square of pixels.

    Args:
        images: ``C`` is 1 (gray) or 3 (red, green, blue).
        path: where to write; a file object will do.
        columns: images per row; as near to a square as may be unless given.
        scale: pixels along the side of one value.
        value_range: the values shown as black and white, with values outside it clipped; the
            images' own extremes unless given.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: another shape, no images, values that are not finite, an empty range, or
            ``columns`` or ``scale`` below 1.
    """
    image = optional("PIL.Image")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: needs (N, C, H, W) with N >= 1 and C = 1 "
            "or 3."
        )
    columns = math.ceil(math.sqrt(images.shape[0])) if columns is None else columns
    if columns < 1 or scale < 1:
        raise ValueError(f"columns = {columns}, scale = {scale}: give at least 1 of each.")
    canvas = _tiled(_bytes(images, value_range), min(columns, images.shape[0]), scale)
    image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas).save(path, format="PNG")


def _bytes(images: Tensor, value_range: tuple[float, float] | None) -> np.ndarray[Any, Any]:
    """Return ``(N, H, W, C)`` of integers from 0 (the range's low end) to 255."""
    values = images.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise ValueError("images have values that are not finite: nothing to show for them.")
    low, high = value_range or (float(values.min()), float(values.max()))
    if value_range is None and low == high:
        high = low + 1.0
    if not low < high:
        raise ValueError(f"value_range = ({low:g}, {high:g}) is empty: give low < high.")
    shades = ((values - low) / (high - low)).clamp(0, 1) * 255
    return shades.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _tiled(images: np.ndarray[Any, Any], columns: int, scale: int) -> np.ndarray[Any, Any]:
    """Return ``(N, H, W, C)`` as one white sheet, with separators between and around."""
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = large.shape
    height, width = height + SEPARATOR, width + SEPARATOR
    rows = -(-count // columns)
    shape = (rows * height + SEPARATOR, columns * width + SEPARATOR, channels)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for k, tile in enumerate(large):
        top, left = k // columns * height + SEPARATOR, k % columns * width + SEPARATOR
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
