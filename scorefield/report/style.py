"""What the figures share: the optional imports, colours that colour-blind readers tell apart, text.

Colours: Okabe and Ito (2008), Color universal design, without the yellow that fades on white.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Target = str | os.PathLike[str] | IO[bytes]

DPI = 150
BLUE, ORANGE = "#0072B2", "#D55E00"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "<", ">")
INK, FAINT = "#222222", "#8a8a8a"


def optional(module: str, extra: str = "plot") -> ModuleType:
    """Return a module of an extra.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"pictures need {module.split('.')[0]}, which is not installed: "
            f"pip install scorefield[{extra}]"
        ) from error


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, that belongs to no window and no global state."""
    figure: Figure = optional("matplotlib.figure").Figure(
        figsize=(width, height), dpi=DPI, facecolor="white"
    )
    optional("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Target) -> None:
    """Write a figure in the format of the path's ending; PNG for a file object."""
    figure.savefig(path, dpi=DPI)


def plain(axes: Axes, *spines: str) -> None:
    """Keep only the named spines, and draw them and the ticks quietly."""
    for name, spine in axes.spines.items():
        spine.set_visible(name in spines)
        spine.set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=3)


def log_calls(axes: Axes, calls: Sequence[float]) -> None:
    """Make the axis of calls logarithmic, and name on it those that were measured, rising."""
    ticker = optional("matplotlib.ticker")
    axes.set_xscale("log")
    ticks = [calls[0]]
    for count in calls[1:]:
        if count >= 1.25 * ticks[-1]:
            ticks.append(count)
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def log_heights(axes: Axes) -> None:
    """Make the upright axis logarithmic, what is 0 or less at its lower edge."""
    ticker = optional("matplotlib.ticker")
    axes.set_yscale("log", nonpositive="clip")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
