r"""Paths from noise to data, by the reverse SDE and by the probability-flow ODE, and their charts.

Both start from the same noise and share their marginals at every time, though their paths differ. A
process may let ``x_t`` grow a hundredfold, so pictures show it at the data's scale ``c``::

    x_t c / sqrt(alpha^2 c^2 + sigma^2)                                             (1)

The horizontal axis of a chart is the noise-to-signal ratio, logarithmic and falling.

Reference: Song et al. (2021), arXiv:2011.13456, section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import balanced, check_whole, time_near
from scorefield.report.chart import Axis, Chart, Series
from scorefield.report.figure import Figure
from scorefield.report.style import BLUE, INK, ORANGE
from scorefield.sampling import integrate, prior
from scorefield.solvers import AnglePrediction, EulerMaruyama, Multistep, Solver

# the noise-to-signal ratios sigma / (c alpha) between which something is visible
NOISIEST, CLEANEST = 30.0, 0.01
_BATCH_SIZE = 512


@dataclass(frozen=True)
class Paths:
    """One coordinate of many paths.

    Attributes:
        times: ``(T,)``, falling, float64.
        sde, ode: ``(T, n)``; path ``k`` of both starts from the same noise.
        ratio: ``(T,)``, ``sigma / alpha`` at those times.
        scale: ``(T,)``, the factor of (1) that brings a time to the data's scale.
    """

    times: Tensor
    sde: Tensor
    ode: Tensor
    ratio: Tensor
    scale: Tensor

    def at_scale(self, kind: str) -> Tensor:
        """Return the paths of the ``sde`` or the ``ode`` at the data's scale, ``(T, n)``."""
        track: Tensor = getattr(self, kind)
        return track * self.scale[:, None]


def paths(
    field: ScoreField, n: int, *, seed: int = 0, steps: int = 300, along: Tensor | None = None
) -> Paths:
    """Follow ``n`` samples from noise to data by the reverse SDE and by the ODE.

    Path ``k`` depends on (field, seed, k, steps) alone. `EulerMaruyama` solves the SDE and
    third-order `Multistep` the ODE, over ``steps`` steps of `visible_times`. Both together make
    ``2 steps`` network calls per sample.

    Args:
        along: the direction ``(d,)`` along which paths are measured; by default that of the first
            coordinate.

    Raises:
        ValueError: ``n < 1`` or ``steps < 1``.
    """
    check_whole(n=n, steps=steps)
    times = visible_times(field, steps)
    if along is None:
        along = torch.eye(1, math.prod(field.shape))[0]
    sde = _follow(field, EulerMaruyama(eta=1.0), times, n, seed, along)
    ode = _follow(field, Multistep(3, AnglePrediction(field.data_std)), times, n, seed, along)
    return Paths(times, sde, ode, *ratio_and_scale(field, times))


def visible_times(field: ScoreField, steps: int) -> Tensor:
    """Return the `balanced` grid from 30 times the data's deviation to a hundredth of it."""
    process, c = field.process, field.data_std
    first, last = (time_near(process, ratio * c) for ratio in (NOISIEST, CLEANEST))
    return balanced(process, steps, start=first, end=last, data_std=c)


def ratio_and_scale(field: ScoreField, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sigma / alpha`` at times, and the factor of (1)."""
    alpha, sigma = field.process.coefficients(times)
    return sigma / alpha, field.data_std / torch.hypot(field.data_std * alpha, sigma)


def _follow(
    field: ScoreField, solver: Solver, times: Tensor, n: int, seed: int, along: Tensor
) -> Tensor:
    """Return the coordinate along a direction at every time, ``(T, n)``, in float64 on the CPU."""
    tracks = []
    for first in range(0, n, _BATCH_SIZE):
        ids = range(first, min(first + _BATCH_SIZE, n))
        with torch.no_grad():
            states = integrate(field, solver, prior(field, ids, times[0], seed=seed), times)
            track = [state.x.flatten(1) @ along.to(state.x) for state in states]
        tracks.append(torch.stack(track).double().cpu())
    return torch.cat(tracks, 1)


BINS, SMOOTHING = 160, 2.0
SLICES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the steps
TITLE = "Two kinds of path from the same noise to data, by their first coordinate"
SDE_TITLE = "Reverse SDE: fresh noise at every step"
ODE_TITLE = "Probability-flow ODE: no noise after the start"
BOTH_TITLE = "Density at five times: SDE left of each line, ODE right of it"
RATIO = "noise-to-signal ratio sigma/alpha, from noise (left) to data (right)"
_WIDTH, _HEIGHT, _LOW = 960, 280, 170  # pixels
_SLICE = 0.055  # the largest width of a density, as a share of the axis
_COLUMNS = 480  # of the shade


def trajectories(
    field: ScoreField, *, seed: int = 0, n: int = 7, crowd: int = 2000, steps: int = 300
) -> Figure:
    """Return a figure of a field's paths by the SDE (above) and by the ODE (below).

    Both charts show the paths from the same ``n`` starting noises, spread evenly over the crowd's,
    on the density of the first coordinate (the ODE's crowd), with time running from noise to data.
    Between them are the densities of the two crowds at five times, back to back. Values are at the
    data's scale, see `scorefield.report.trajectory`.

    Args:
        field: any field; the first coordinate of its samples is drawn.
        seed: determines all noise.
        n: number of paths to draw.
        crowd: number of paths that the densities are estimated from.
        steps: of the grid, see `scorefield.report.paths`.

    Raises:
        ValueError: ``n`` or ``steps`` below 1, or ``crowd < n``.
    """
    if not 1 <= n <= crowd:
        raise ValueError(f"n={n}, crowd={crowd}: give 1 <= n <= crowd.")
    result = paths(field, crowd, seed=seed, steps=steps)
    sde, ode = result.at_scale("sde"), result.at_scale("ode")
    edges = _edges(torch.cat([sde, ode]))
    y = Axis("first coordinate", float(edges[0]), float(edges[-1]))
    drawn = ode[0].argsort()[(torch.arange(n) * 2 + 1) * crowd // (2 * n)].tolist()
    slices = [round(place * steps) for place in SLICES]
    rules = [_upright(float(result.ratio[k]), y, dashed=True) for k in slices]
    shade = _shade(result.ratio, densities(ode, edges))

    def panel(kind: str, title: str, tone: int, label: str, height: int) -> Chart:
        chart = path_chart(result, kind, dict(zip(drawn, range(n), strict=True)), y, label)
        chart = replace(chart, series=[*rules, *chart.series], shade=shade)
        return replace(chart, title=title, tone=tone, width=_WIDTH, height=height)

    x, both = _ratio_axis(result, ""), [densities(track[slices], edges) for track in (sde, ode)]
    series = _slices(x, y, result.ratio[slices], *both)
    middle = Chart(BOTH_TITLE, x, y, series, title=BOTH_TITLE, width=_WIDTH, height=_LOW)
    top = panel("SDE", SDE_TITLE, ORANGE, "", _HEIGHT)
    return Figure([top, middle, panel("ODE", ODE_TITLE, BLUE, RATIO, _HEIGHT + 32)], title=TITLE)


def path_chart(
    result: Paths, kind: str, tones: Mapping[int, int], y: Axis, label: str, others: bool = False
) -> Chart:
    """Return a chart of the paths of the ``SDE`` or the ``ODE``.

    Args:
        tones: the colour of each path to draw, by its number.
        y, label: the vertical axis, and the label of the horizontal one.
        others: draw the other paths too, pale.
    """
    track, ratio = result.at_scale(kind.lower()), result.ratio.tolist()
    lines = [list(zip(ratio, path, strict=True)) for path in track.T.tolist()]
    pale = [k for k in range(len(lines)) if k not in tones] if others else []
    series = [Series("", lines[k], INK, faint=True) for k in pale]
    for k, tone in tones.items():
        series.append(Series("", lines[k], tone, halo=True))
        series.append(Series("", lines[k][-1:], tone, titles=[f"{lines[k][-1][1]:.3g}"]))
    alt = (
        f"{len(pale) + len(tones)} paths of the {kind} from noise on the left to data on the right"
    )
    return Chart(alt, _ratio_axis(result, label), y, series)


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
    """Return bin edges around all but the outermost values ``(T, n)`` of every time."""
    low = float(values.quantile(0.001, dim=1).min())
    high = float(values.quantile(0.999, dim=1).max())
    room = 0.05 * (high - low) + 1e-6
    return torch.linspace(low - room, high + room, BINS + 1, dtype=torch.float64)


def _ratio_axis(result: Paths, label: str) -> Axis:
    return Axis(label, float(result.ratio[0]), float(result.ratio[-1]), log=True)


def _upright(ratio: float, y: Axis, dashed: bool = False) -> Series:
    """Return a vertical line."""
    return Series("", [(ratio, y.low), (ratio, y.high)], INK, faint=True, dashed=dashed)


def _shade(ratio: Tensor, density: Tensor) -> np.ndarray[Any, Any]:
    """Shade each time's density by its own peak: pale where few paths pass, dark where many.

    The times, whose ratios ``(T,)`` fall unevenly, become columns at equal distances on the axis.
    """
    shade = (density / density.amax(1, keepdim=True)).sqrt().numpy() / 1.7
    places = (ratio / ratio[0]).log() / (ratio[-1] / ratio[0]).log()
    columns = np.interp(np.linspace(0, 1, _COLUMNS), places.numpy(), np.arange(len(ratio)))
    return np.asarray(shade[columns.round().astype(int)].T[::-1])


def _slices(x: Axis, y: Axis, ratio: Tensor, sde: Tensor, ode: Tensor) -> list[Series]:
    """Return the two densities ``(slices, bins)`` back to back at each ratio ``(slices,)``."""
    edges = torch.linspace(y.low, y.high, sde.shape[1] + 1, dtype=torch.float64)
    heights = (edges[1:] + edges[:-1]) / 2
    series = []
    for middle, *both in zip(ratio.tolist(), sde, ode, strict=True):
        unit = _SLICE / float(torch.stack(both).max())
        for density, side, tone in zip(both, (-unit, unit), (ORANGE, BLUE), strict=True):
            # on a logarithmic axis, a share of its length is a factor
            across = middle * (x.high / x.low) ** (side * density)
            visible = density > 1e-3 * density.max()
            points = list(zip(across[visible].tolist(), heights[visible].tolist(), strict=True))
            ends = [(middle, height) for _, height in (points[0], points[-1])]
            corners = [ends[0], *points, ends[1]]
            series.append(Series("", corners, tone, filled=True, faint=True))
        series.append(_upright(middle, y))
    return series
