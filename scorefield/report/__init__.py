"""Charts, pictures of samples, and the one-file report of a run.

Pictures need the extra ``scorefield[plot]``, with matplotlib and Pillow, and the report
``scorefield[report]``, with Jinja and Pillow; they are imported where they are used.
"""

from scorefield.report.builder import ReportBuilder, write_report
from scorefield.report.frontier import frontier_panels
from scorefield.report.images import image_grid
from scorefield.report.reverse_paths import Paths, paths
from scorefield.report.trajectory import trajectories

__all__ = [
    "Paths",
    "ReportBuilder",
    "frontier_panels",
    "image_grid",
    "paths",
    "trajectories",
    "write_report",
]
