r"""Precision, recall, density and coverage: overlap of two samples by nearest neighbours.

Let ``B(z)`` be the ball around a point that reaches to its ``k``-th neighbour in its own sample,
for ``N`` generated points ``x`` and ``M`` real points ``y``::

    precision = share of the x that lie in some B(y)                                (1)
    recall    = share of the y that lie in some B(x)                                (2)
    density   = 1 / (k N) * sum over x of the number of B(y) it lies in             (3)
    coverage  = share of the y whose B(y) contains an x                              (4)

For two samples of the same distribution density averages 1 and coverage
``1 - prod_{i<k} (M - 1 - i) / (N + M - 1 - i)``, in any dimension. Precision and recall depend on
the dimension and on both sizes. A single outlier can raise them, because its ball is large.

Reference: Kynkäänniemi et al. (2019), arXiv:1904.06991; Naeem et al. (2020), arXiv:2002.09797.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric, split_whole
from scorefield.evaluate.metrics.nearest import check_neighbours, nearest
from scorefield.evaluate.metrics.points import distance_blocks


@dataclass(frozen=True)
class PRDC(SplitMetric):
    """`prdc` for `scorefield.evaluate.metrics.compare`."""

    names: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")
    k: int = 5

    def values(self, split: Split) -> Tensor:
        """Return (1) to (4) for every row of ``split.keep``: ``(4, R)``."""
        x_mask, y_mask = split.x_mask, split.y_mask
        check_neighbours(self.k, int(min(mask.sum(1).min() for mask in (x_mask, y_mask))) - 1)
        x_reach = self._reach(split.x, split.x_group, split.keep)
        y_reach = self._reach(split.y, split.y_group, split.keep)
        precise = torch.zeros_like(x_mask)
        count = torch.zeros_like(x_reach)
        recalled, covered = torch.zeros_like(y_mask), torch.zeros_like(y_mask)
        for part, distances in distance_blocks(split.x, split.y):
            for r, rows in enumerate(x_mask[:, part]):
                inside = distances <= y_reach[r]
                count[r, part] = inside.sum(1).to(count)
                precise[r, part] = inside.any(1)
                covered[r] |= inside[rows].any(0)
                recalled[r] |= (distances <= x_reach[r, part, None]).any(0)
        n, m = x_mask.sum(1), y_mask.sum(1)
        return torch.stack(
            [
                (precise & x_mask).sum(1) / n.to(count),
                (recalled & y_mask).sum(1) / m.to(count),
                (count * x_mask).sum(1) / (self.k * n),
                (covered & y_mask).sum(1) / m.to(count),
            ]
        )

    def _reach(self, points: Tensor, group: Tensor, keep: Tensor) -> Tensor:
        """Return the radius of each ``B`` for every row of ``keep``, ``(R, N)``, or -inf."""
        # every point is its own nearest, at distance 0
        near, _ = nearest(points, points, group, keep.shape[1], self.k + 1)
        reach = []
        for row in keep > 0:
            among = near[:, row].flatten(1)
            radius = among.kthvalue(self.k + 1, dim=1).values
            reach.append(radius.masked_fill(~row[group], -math.inf))
        return torch.stack(reach)


def prdc(x: Tensor, real: Tensor, *, k: int = 5) -> dict[str, float]:
    """Return precision, recall, density and coverage of ``x`` relative to ``real``, by name.

    Precision and density measure whether samples look real, recall and coverage whether all of the
    real data is sampled. All are shares, except density, a ratio that may exceed 1. Costs
    ``N^2 + N M + M^2`` distances, in bounded memory. Rounding decides the order of distances that
    agree to 1e-8 of the spread.

    Args:
        x: generated samples ``(N, ...)``.
        real: real samples ``(M, ...)`` whose points have the same shape.
        k: the neighbour that a ball reaches to.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`; fewer than ``k``
            neighbours.
    """
    metric = PRDC(k)
    return dict(
        zip(metric.names, metric.values(split_whole(x, real, "real"))[:, 0].tolist(), strict=True)
    )
