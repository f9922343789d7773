"""The section on the calibration of draws given the conditions of items."""

from __future__ import annotations

import torch

from scorefield.evaluate.calibration import Calibration
from scorefield.report.blocks import Charts, Missing, Section
from scorefield.report.chart import Axis, Chart, Series
from scorefield.report.context import ReportContext
from scorefield.runs.calibrate import LEAST, calibrate

_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_PAIRS, _DRAWS, _CALLS = 100, 39, 10  # levels are exact for 39 draws
_BINS = 10


def calibration_section(context: ReportContext) -> Section:
    """Return the section on coverage and ranks, of items with their conditions."""
    title = "Calibration given conditions"
    text = (
        "Draws of the run given the condition of an item, with the item itself among them. If the "
        "conditional density is right, the item is as likely to be at any rank, and a central "
        "interval of the draws holds it as often as its level says."
    )
    items = context.items_of_data
    if items is None or len(items.x) < LEAST or not context.has_conditions:
        command = f"scorefield report {context.folder} {context.data} --condition NAMES"
        missing = Missing(
            f"This section needs {LEAST} items with all of their conditions. To add it, run",
            command,
        )
        return Section("calibration", title, text, [missing])
    result = calibrate(
        context.run,
        items,
        pairs=_PAIRS,
        draws=_DRAWS,
        levels=_LEVELS,
        nfe=_CALLS,
        seed=context.seed,
    )
    count = len(result.ranks)
    note = (
        f"{count} items of {context.source} with {_DRAWS} draws each, of {_CALLS} network calls. "
        f"Vertical lines are 95 % intervals of the coordinate that differs most. The ranks have "
        f"p = {result.p_value:.2g} if they are uniform, and the CRPS is "
        f"{float(result.crps.mean()):.3g}."
    )
    if result.accuracy is not None:
        note += f" A classifier between items and draws is right in {result.accuracy}; 0.5 is best."
    return Section("calibration", title, text, [Charts([_coverage(result), _ranks(result)], note)])


def _coverage(result: Calibration) -> Chart:
    """Return the chart of the share of items in central intervals against their level."""
    points = [(each.level, each.share) for each in result.coverage]
    series = [
        Series("equal to the level", [(0.0, 0.0), (1.0, 1.0)], 1, dashed=True),
        Series(
            "items in the interval",
            points,
            0,
            intervals=[(each.low, each.high) for each in result.coverage],
            titles=[f"interval of {each}" for each in result.coverage],
        ),
    ]
    alt = "Coverage: " + ", ".join(f"{share:.0%} at {level:.0%}" for level, share in points)
    axes = Axis("level of the interval", 0.0, 1.0), Axis("Share of items in it", 0.0, 1.0)
    return Chart(alt, *axes, series)


def _ranks(result: Calibration) -> Chart:
    """Return the histogram of the ranks of all coordinates, as shares of the draws."""
    ranks = (result.ranks.double().flatten().cpu() + 0.5) / (result.draws + 1)
    counts, edges = torch.histogram(ranks, _BINS, range=(0.0, 1.0))
    heights = [0.0, *(counts * _BINS / len(ranks)).repeat_interleave(2).tolist(), 0.0]
    outline = list(zip(edges.repeat_interleave(2).tolist(), heights, strict=True))
    top = 1.1 * max(1.0, *heights)
    series = [
        Series("", outline, 0, filled=True),
        Series("uniform ranks", [(0.0, 1.0), (1.0, 1.0)], 1),
    ]
    alt = f"Histogram of ranks, from {min(heights[1:-1]):.2g} to {max(heights):.2g} of uniform ones"
    axes = Axis("share of draws below the item", 0.0, 1.0), Axis("Density", 0.0, top)
    return Chart(alt, *axes, series)
