"""Maps of the columns of a table that are fitted after training: model quantiles to the data's.

A field is never exact, and the distribution of each of its coordinates is a little wrong. An
increasing map of the coordinate, from quantiles of samples to those of the data, corrects it, and
leaves the order of the samples and the dependence between columns as they are. It is part of the
run's transform, so samples stay functions of their ids, and its slope is part of densities.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from scorefield.data.monotone import Quantiles, quantiles
from scorefield.data.rows import Rows
from scorefield.noise import LEVELS, Noise
from scorefield.runs.run import Run

_ROWS, _DRAWS = 16384, 4096  # at most
_EACH = 4  # rows between two knots, where numbers are on a grid
_SMOOTH = 16  # rows between two knots, where they are not: slopes are part of their density
_FEW = 64  # rows, for which nothing is fitted
_SEED = 2**63  # of samples that nobody else draws
_BATCH = 512


def with_quantiles(run: Run, rows: Rows, items: Tensor, knots: int) -> Run:
    """Return a run of a table with the maps from the quantiles of its samples to the data's.

    Args:
        items: numbers of the rows that the field learned.
        knots: of the maps, at most.
    """
    count = min(knots, len(items) // _EACH)
    if len(items) < _FEW:
        return run
    some = items[torch.linspace(0, len(items) - 1, min(len(items), _ROWS)).long()]
    v = run.encoding.forward(rows[some], Noise(0, some, stream=LEVELS)).v
    drawn = run.sample_field(_DRAWS, seed=_SEED, batch_size=_BATCH).cpu()
    coarse, smooth = min(count, len(items) // _SMOOTH), run.encoding.width[:, None] == 0
    data, field = (
        torch.where(smooth, _drawn_out(quantiles(z, coarse), count), quantiles(z, count)).float()
        for z in (run.transform.forward(v), drawn)
    )
    columns = run.config.data.columns.model_copy(update={"quantiles": count})
    about = run.config.data.model_copy(update={"columns": columns})
    return replace(
        run,
        transform=replace(run.transform, quantiles=Quantiles(data, field)),
        config=run.config.model_copy(update={"data": about}),
    )


def _drawn_out(q: Tensor, count: int) -> Tensor:
    """Return ``(n, count)`` numbers on the lines between quantiles ``(n, K)``."""
    return functional.interpolate(q[None], size=count, mode="linear", align_corners=True)[0]
