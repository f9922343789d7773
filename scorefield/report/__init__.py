"""Charts, pictures of samples, and the one-file report of a run.

`write_report` writes the report. `frontier_chart` draws a measured frontier, and `trajectories` the
paths of a field by the SDE and by the ODE. Both return a `Figure`, which ``save("x.svg")`` writes
as SVG and ``save("x.png")`` as PNG. Your own charts are made of `Axis`, `Series` and `Chart`.
`image_grid` writes images of samples as PNG.

A PNG, a shaded chart and the report need the extra ``scorefield[report]``: resvg_py, Pillow and
Jinja, which are imported where they are used.
"""

from scorefield.report.builder import ReportBuilder, write_report
from scorefield.report.chart import Axis, Band, Chart, Series
from scorefield.report.figure import Figure
from scorefield.report.frontier import frontier_chart
from scorefield.report.images import image_grid
from scorefield.report.trajectory import Paths, paths, trajectories

__all__ = [
    "Axis",
    "Band",
    "Chart",
    "Figure",
    "Paths",
    "ReportBuilder",
    "Series",
    "frontier_chart",
    "image_grid",
    "paths",
    "trajectories",
    "write_report",
]
