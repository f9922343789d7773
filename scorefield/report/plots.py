"""Pictures of samples, and of a metric against what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield.report.style import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    Target,
    log_calls,
    log_heights,
    new_figure,
    optional,
    plain,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEPARATOR = 2

Results = Mapping[str, Sequence[tuple[int, float]]]
Floor = float | tuple[float, float]


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


def quality_against_calls(results: Results, path: Target, *, floor: Floor, metric: str) -> Figure:
    """Draw a metric against the number of field calls, one line per solver, and write it.

    Both axes are logarithmic. A line that leaves through the bottom reaches zero or less there, as
    an unbiased metric may.

    Args:
        results: for each solver's name, ``(calls per sample, value)`` in any order; lower is
            better.
        path: where to write, in the format of its ending; a file object will do and gets a PNG.
        floor: what a perfect sampler would score: a number, or the ends of a band.
        metric: the metric's name, for the axis.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no results, calls below 1, values that are not finite, no positive value to
            draw, or a floor whose upper end is not positive.
    """
    low, high = floor if isinstance(floor, tuple) else (floor, floor)
    _check_results(results, low, high)
    figure = new_figure(8, 5)
    axes = figure.add_axes((0.1, 0.13, 0.66, 0.74))
    ends = []
    for k, (name, points) in enumerate(results.items()):
        calls, values = zip(*sorted(points), strict=True)
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        (line,) = axes.plot(calls, values, color=colour, marker=marker, label=name, zorder=3)
        line.set(linewidth=1.8, markersize=7, markeredgecolor="white")
        line.set_linestyle("-" if k < len(COLOURS) else "--")
        ends.append((name, colour, calls[-1], values[-1]))
    _scale_axes(axes, results, low, high)
    _draw_floor(axes, low, high)
    _label_lines(axes, ends)
    axes.set_xlabel("field calls per sample", color=INK)
    axes.set_ylabel(f"{metric}  (lower is better)", color=INK)
    title = "Quality of samples against their cost"
    axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold", pad=12)
    plain(axes, "left", "bottom")
    save(figure, path)
    return figure


def _check_results(results: Results, low: float, high: float) -> None:
    points = [point for line in results.values() for point in line]
    if not all(results.values()) or not points:
        raise ValueError(
            f"results have no points for {sorted(results) or 'any solver'}: give some."
        )
    for name, line in results.items():
        for calls, value in line:
            if calls < 1 or not math.isfinite(value):
                raise ValueError(
                    f"{name} has value {value:g} at {calls} calls: needs finite values, at 1 call "
                    "or more."
                )
    if not any(value > 0 for _, value in points):
        raise ValueError("no value is positive: nothing shows on a logarithmic axis.")
    if not (low <= high and 0 < high < math.inf):
        raise ValueError(f"floor = ({low:g}, {high:g}): give low <= high and a positive high.")


def _scale_axes(axes: Axes, results: Results, low: float, high: float) -> None:
    """Fit the limits to what can be drawn, and name the numbers of calls that were measured."""
    calls = sorted({calls for line in results.values() for calls, _ in line})
    heights = [value for line in results.values() for _, value in line if value > 0]
    bottom = min(*heights, low if low > 0 else high, high)
    log_calls(axes, calls)
    log_heights(axes)
    axes.set_xlim(calls[0] / 1.12, calls[-1] * 1.12)
    axes.set_ylim(bottom / 1.6, max(*heights, high) * 1.4)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_floor(axes: Axes, low: float, high: float) -> None:
    if low < high:
        bottom = max(low, axes.get_ylim()[0])
        axes.axhspan(bottom, high, color="#dddddd", linewidth=0, zorder=1)
    axes.axhline(high, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=2)
    axes.annotate(
        "floor: what fresh data scores",
        xy=(0.01, high),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        color="#666666",
        fontsize=9,
        zorder=4,
    )


def _label_lines(axes: Axes, ends: Sequence[tuple[str, str, int, float]]) -> None:
    """Write each line's name to the right, beside its last point, no two names overlapping."""
    low, high = axes.get_ylim()
    heights = [max(value, low) for *_, value in ends]
    wanted = [math.log(height / low) / math.log(high / low) for height in heights]
    for k, place in enumerate(_spread(wanted, 0.055)):
        name, colour, calls, _ = ends[k]
        axes.annotate(
            name,
            xy=(calls, heights[k]),
            xytext=(1.035, place),
            textcoords="axes fraction",
            color=colour,
            fontsize=10,
            fontweight="bold",
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkB": 6},
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Return heights in [0, 1], near and in the order of ``wanted``, ``gap`` apart if they fit."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    heights = [0.0] * len(wanted)
    free = 0.0
    for k in order:
        heights[k] = free = max(wanted[k], free)
        free += gap
    free = 1.0
    for k in reversed(order):
        heights[k] = free = min(heights[k], free)
        free -= gap
    return heights
