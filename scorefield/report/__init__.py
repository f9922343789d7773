"""Pictures of samples, of paths from noise to data, and of quality against cost.

Needs the extra ``scorefield[plot]``: matplotlib and Pillow are imported where they are used.
"""

from scorefield.report.frontier import frontier_panels
from scorefield.report.plots import image_grid, quality_against_calls
from scorefield.report.tracks import Paths, paths
from scorefield.report.trajectory import trajectories

__all__ = [
    "Paths",
    "frontier_panels",
    "image_grid",
    "paths",
    "quality_against_calls",
    "trajectories",
]
