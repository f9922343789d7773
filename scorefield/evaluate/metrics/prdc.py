r"""Precision, recall, density and coverage: where samples lie, as seen from nearest neighbours.

Let ``B(z)`` be the ball around a point that reaches to its ``k``-th neighbour in its own sample, of
``N`` generated points ``x`` and ``M`` real ones ``y``::

    precision = share of the x that lie in some B(y)                                (1)
    recall    = share of the y that lie in some B(x)                                (2)
    density   = 1 / (k N) * sum over x of the number of B(y) it lies in             (3)
    coverage  = share of the y whose B(y) holds some x                              (4)

Where both samples have one law, density averages 1 and coverage
``1 - prod_{i<k} (M - 1 - i) / (N + M - 1 - i)``, in any dimension; precision and recall depend on
the dimension and on both sizes, and a single outlier can raise them: it has a large ball.

Reference: Kynkäänniemi et al. (2019), arXiv:1904.06991; Naeem et al. (2020), arXiv:2002.09797.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, Split, whole
from scorefield.evaluate.metrics.nearest import check_neighbours, nearest
from scorefield.evaluate.metrics.points import distance_blocks


@dataclass(frozen=True)
class PRDC(Metric):
    """`prdc`, for `scorefield.evaluate.metrics.compare`."""

    names: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")
    k: int = 5

    def values(self, split: Split) -> Tensor:
        """Return (1) to (4) for every row of ``split.keep``: ``(4, R)``."""
        x_kept, y_kept = split.x_kept, split.y_kept
        check_neighbours(self.k, int(min(kept.sum(1).min() for kept in (x_kept, y_kept))) - 1)
        x_reach = self._reach(split.x, split.x_group, split.keep)
        y_reach = self._reach(split.y, split.y_group, split.keep)
        found = torch.zeros_like(x_kept)
        count = torch.zeros_like(x_reach)
        recalled, covered = torch.zeros_like(y_kept), torch.zeros_like(y_kept)
        for part, distances in distance_blocks(split.x, split.y):
            for r, rows in enumerate(x_kept[:, part]):
                inside = distances <= y_reach[r]
                count[r, part] = inside.sum(1).to(count)
                found[r, part] = inside.any(1)
                covered[r] |= inside[rows].any(0)
                recalled[r] |= (distances <= x_reach[r, part, None]).any(0)
        n, m = x_kept.sum(1), y_kept.sum(1)
        return torch.stack(
            [
                (found & x_kept).sum(1) / n.to(count),
                (recalled & y_kept).sum(1) / m.to(count),
                (count * x_kept).sum(1) / (self.k * n),
                (covered & y_kept).sum(1) / m.to(count),
            ]
        )

    def _reach(self, points: Tensor, group: Tensor, keep: Tensor) -> Tensor:
        """Return the radius of each ``B`` among the points kept, ``(R, N)``; -inf for the rest."""
        # every point is its own nearest, at distance 0
        near, _ = nearest(points, points, group, keep.shape[1], self.k + 1)
        reach = []
        for row in keep > 0:
            among = near[:, row].flatten(1)
            radius = among.kthvalue(self.k + 1, dim=1).values
            reach.append(radius.masked_fill(~row[group], -math.inf))
        return torch.stack(reach)


def prdc(x: Tensor, real: Tensor, *, k: int = 5) -> dict[str, float]:
    """Return precision, recall, density and coverage, by name, of ``x`` seen from ``real``.

    Precision and density say whether samples look real, recall and coverage whether all that is
    real is sampled. Shares, and density a ratio that may exceed 1. Costs ``N^2 + N M + M^2``
    distances, in bounded memory; distances that agree to 1e-8 of the spread count as equal or not
    by rounding.

    Args:
        x: generated samples ``(N, ...)``.
        real: real samples ``(M, ...)``, of one shape of point.
        k: which neighbour a ball reaches to.

    Raises:
        ValueError: see `scorefield.evaluate.metrics.point_clouds`; or fewer than ``k`` neighbours.
    """
    metric = PRDC(k)
    return dict(
        zip(metric.names, metric.values(whole(x, real, "real"))[:, 0].tolist(), strict=True)
    )
