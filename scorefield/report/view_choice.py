"""How samples of a run are looked at."""

from __future__ import annotations

from torch import Tensor

from scorefield.report.view import View, limits
from scorefield.report.view_images import Images, Signals
from scorefield.report.view_vectors import Bars, Points, projection
from scorefield.runs.run import Run


def view_of(run: Run, x: Tensor) -> View:
    """Return the view of a run's data, its limits taken from samples ``x``."""
    if len(run.config.data.shape) == 3:
        levels = run.config.train.levels
        low, high = (0.0, levels - 1.0) if levels else limits(x)
        return Images(tuple(x.shape[1:]), low, high)
    if len(run.config.data.shape) == 2:
        return Signals(x)
    project, names = projection(run, x)
    return (Bars if len(names) == 1 else Points)(project, names, x)
