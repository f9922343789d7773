"""One picture of two ways from noise to data: the reverse SDE and the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.report.reverse_paths import Paths, paths
from scorefield.report.style import (
    BLUE,
    COLOURS,
    INK,
    ORANGE,
    Target,
    new_figure,
    optional,
    plain,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS, SMOOTHING = 160, 2.0
SLICES = (0.1, 0.3, 0.5, 0.7, 0.9)
RATIOS = (100.0, 30.0, 20.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
LAYOUT = {"left": 0.065, "right": 0.975, "top": 0.87, "bottom": 0.085, "hspace": 0.3}
SDE_TITLE = "Reverse SDE: fresh noise at every step"
ODE_TITLE = "Probability-flow ODE: no noise after the start"
BOTH_TITLE = "Density at five times: SDE left of each line, ODE right of it"


def trajectories(
    field: ScoreField,
    path: Target,
    *,
    seed: int = 0,
    n: int = 7,
    crowd: int = 2000,
    steps: int = 300,
) -> Figure:
    """Draw a field's paths by the SDE (above) and the ODE (below), and write the picture.

    Both panels show the paths from the same ``n`` starting noises, spread evenly over the crowd's,
    on the density of the first coordinate (the ODE's crowd), with time running from noise to data.
    Between them, at five times, the densities of the two crowds back to back. Values are at the
    data's scale, see `scorefield.report.reverse_paths`.

    Args:
        field: any field; the first coordinate of its samples is drawn.
        path: where to write, in the format of its ending; a file object will do and gets a PNG.
        seed: determines all the noise.
        n: how many paths to draw.
        crowd: how many paths the densities are counted from.
        steps: of the grid, see `scorefield.report.reverse_paths.paths`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``n`` or ``steps`` below 1, or ``crowd < n``.
    """
    if not 1 <= n <= crowd:
        raise ValueError(f"n = {n} paths of a crowd of {crowd}: give 1 <= n <= crowd.")
    figure = new_figure(10, 7)
    found = paths(field, crowd, seed=seed, steps=steps)
    sde, ode = (track * found.scale[:, None] for track in (found.sde, found.ode))
    edges = _edges(torch.cat([sde, ode]))
    drawn = ode[0].argsort()[(torch.arange(n) * 2 + 1) * crowd // (2 * n)]
    top, middle, bottom = _panels(figure, found, edges)
    for axes, track in ((top, sde), (bottom, ode)):
        _draw_density(axes, densities(ode, edges), edges)
        _draw_paths(axes, track[:, drawn])
    slices = [round(place * steps) for place in SLICES]
    places = [k / steps for k in slices]
    _draw_slices(
        middle, places, densities(sde[slices], edges), densities(ode[slices], edges), edges
    )
    for axes in (top, bottom):
        for place in places:
            axes.axvline(place, color=INK, linestyle=(0, (1, 3)), linewidth=0.8, zorder=2)
    save(figure, path)
    return figure


def densities(values: Tensor, edges: Tensor) -> Tensor:
    """Return the density of each row of ``values`` ``(T, n)`` in bins, smoothed: ``(T, bins)``.

    A row integrates to the share of its values that lie inside ``edges`` ``(bins + 1,)``.
    """
    bins, width = len(edges) - 1, float(edges[1] - edges[0])
    place = torch.bucketize(values, edges) - 1
    inside = (place >= 0) & (place < bins)
    counts = torch.zeros(len(values), bins, dtype=torch.float64)
    counts.scatter_add_(1, place.clamp(0, bins - 1), inside.double())
    k = torch.arange(bins, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((k[:, None] - k) / SMOOTHING) ** 2)
    return counts @ (kernel / kernel.sum(1, keepdim=True)) / (values.shape[1] * width)


def _edges(values: Tensor) -> Tensor:
    """Return bin edges that hold all but the outermost values ``(T, n)`` of every time."""
    low = float(values.quantile(0.001, dim=1).min())
    high = float(values.quantile(0.999, dim=1).max())
    room = 0.05 * (high - low) + 1e-6
    return torch.linspace(low - room, high + room, BINS + 1, dtype=torch.float64)


def _panels(figure: Figure, found: Paths, edges: Tensor) -> list[Axes]:
    """Return the three panels, top to bottom, titled, with their axes set and shared."""
    ticker = optional("matplotlib.ticker")
    panels: list[Axes] = list(
        figure.subplots(3, 1, sharex=True, sharey=True, height_ratios=[3, 1.7, 3])
    )
    figure.subplots_adjust(**LAYOUT)
    titles = ((SDE_TITLE, ORANGE), (BOTH_TITLE, INK), (ODE_TITLE, BLUE))
    for axes, (title, colour) in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left", color=colour, fontsize=10.5, fontweight="bold", pad=5)
        plain(axes, "left", "bottom")
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_ylabel("" if axes is panels[1] else "first coordinate", color=INK, fontsize=9.5)
    panels[0].set_xlim(0, 1)
    panels[0].set_ylim(float(edges[0]), float(edges[-1]))
    places, names = _ticks(found)
    panels[2].xaxis.set_major_locator(ticker.FixedLocator(places))
    panels[2].xaxis.set_major_formatter(ticker.FixedFormatter(names))
    panels[2].set_xlabel("noise-to-signal ratio σ/α, from noise (left) to data (right)", color=INK)
    heading = "Two kinds of path from the same noise to data"
    figure.text(LAYOUT["left"], 0.95, heading, color=INK, fontsize=14, fontweight="bold")
    return panels


def _ticks(found: Paths) -> tuple[list[float], list[str]]:
    """Return where along the grid round noise-to-signal ratios fall, and their names."""
    rising = found.ratio.flip(0).log().numpy()
    marks = [r for r in RATIOS if rising[0] <= np.log(r) <= rising[-1]]
    falling_place = np.linspace(1, 0, len(rising))
    return [float(np.interp(np.log(r), rising, falling_place)) for r in marks], [
        f"{r:g}" for r in marks
    ]


def _draw_density(axes: Axes, density: Tensor, edges: Tensor) -> None:
    """Shade each time's density by its own peak: light where few paths pass, dark where many."""
    shade = (density / density.amax(1, keepdim=True)).sqrt().T.numpy()
    box = (0.0, 1.0, float(edges[0]), float(edges[-1]))
    picture = axes.imshow(shade, cmap="Greys", vmin=0.0, vmax=1.7, extent=box, origin="lower")
    picture.set(interpolation="bilinear")
    axes.set_aspect("auto")


def _draw_paths(axes: Axes, track: Tensor) -> None:
    """Draw the paths ``(T, n)``, path ``k`` in colour ``k``, the same in both panels."""
    place = np.linspace(0, 1, len(track))
    for k, line in enumerate(track.T.numpy()):
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(place, line, color="white", linewidth=2.8, alpha=0.8, zorder=3)
        axes.plot(place, line, color=colour, linewidth=1.3, zorder=3)
        axes.plot(place[-1:], line[-1:], "o", color=colour, markersize=5, clip_on=False, zorder=4)


def _draw_slices(
    axes: Axes, places: Sequence[float], sde: Tensor, ode: Tensor, edges: Tensor
) -> None:
    """Draw at each place the two densities back to back, ``(slices, bins)`` each."""
    heights = ((edges[1:] + edges[:-1]) / 2).numpy()
    for place, left, right in zip(places, sde.numpy(), ode.numpy(), strict=True):
        unit = 0.085 / max(left.max(), right.max())
        for density, side, colour in ((left, -unit, ORANGE), (right, unit, BLUE)):
            curve = place + side * density
            axes.fill_betweenx(heights, place, curve, color=colour, alpha=0.35, linewidth=0)
            shown = density > 1e-3 * density.max()
            axes.plot(curve[shown], heights[shown], color=colour, linewidth=1.2)
        axes.axvline(place, color=INK, linewidth=0.6)
