"""Images of samples on one sheet."""

from __future__ import annotations

import base64
import io
import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.atomic_files import write
from scorefield.process import check_whole
from scorefield.report.style import optional

SEPARATOR = 2

Target = str | os.PathLike[str] | IO[bytes]


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
        images: ``C`` is 1 (grey) or 3 (red, green, blue).
        path: the file to write; a path or a file object.
        columns: images per row; by default the sheet is as square as possible.
        scale: pixels along the side of one value.
        value_range: the values shown as black and white. Values outside are clipped. The default is
            the images' own extremes.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: another shape, an empty batch, values that are not finite, an empty range, or
            ``columns`` or ``scale`` below 1.
    """
    image = optional("PIL.Image")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: needs (N, C, H, W) with N >= 1 and C = 1 "
            "or 3."
        )
    columns = math.ceil(math.sqrt(images.shape[0])) if columns is None else columns
    check_whole(columns=columns, scale=scale)
    large = _bytes(images, value_range).repeat(scale, axis=1).repeat(scale, axis=2)
    canvas = sheet(large, min(columns, len(large)), SEPARATOR, margin=SEPARATOR)
    picture = image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas)
    if isinstance(path, str | os.PathLike):
        write(Path(path), lambda file: picture.save(file, format="PNG"))
    else:
        picture.save(path, format="PNG")


def sheet(
    images: np.ndarray[Any, Any], columns: int, gap: int, margin: int = 0, paper: int = 255
) -> np.ndarray[Any, Any]:
    """Return images ``(N, H, W, C)`` of bytes on one sheet, row by row, ``gap`` pixels apart."""
    count, height, width, channels = images.shape
    down, across = height + gap, width + gap
    edge = 2 * margin - gap
    size = -(-count // columns) * down + edge, columns * across + edge, channels
    canvas = np.full(size, paper, dtype=np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * down + margin, k % columns * across + margin
        canvas[top : top + height, left : left + width] = image
    return canvas


def png_address(pixels: np.ndarray[Any, Any]) -> str:
    """Return bytes ``(H, W, C)`` as a PNG in the address of an image."""
    file = io.BytesIO()
    optional("PIL.Image").fromarray(pixels).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _bytes(images: Tensor, value_range: tuple[float, float] | None) -> np.ndarray[Any, Any]:
    """Return ``(N, H, W, C)`` of integers from 0 (the range's low end) to 255."""
    values = images.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise ValueError("images: all values must be finite.")
    low, high = value_range or (float(values.min()), float(values.max()))
    if value_range is None and low == high:
        high = low + 1.0
    if not low < high:
        raise ValueError(f"value_range=({low:g}, {high:g}): must have low < high.")
    shades = ((values - low) / (high - low)).clamp(0, 1) * 255
    return shades.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
