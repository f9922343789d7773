"""Pictures of samples, of paths from noise to data, of quality against cost; a report of a run.

Pictures need the extra ``scorefield[plot]``, with matplotlib and Pillow, and the report
``scorefield[report]``, with Jinja and Pillow; they are imported where they are used.
"""

from scorefield.report.frontier import frontier_panels
from scorefield.report.html import report
from scorefield.report.images import image_grid
from scorefield.report.tracks import Paths, paths
from scorefield.report.trajectory import trajectories

__all__ = [
    "Paths",
    "frontier_panels",
    "image_grid",
    "paths",
    "report",
    "trajectories",
]
