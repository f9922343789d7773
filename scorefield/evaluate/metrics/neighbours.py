r"""Metrics by nearest neighbours: precision, recall, density, coverage, and a classifier.

Let ``B(z)`` be the ball around a point that reaches to its ``k``-th neighbour in its own sample,
for ``N`` generated points ``x`` and ``M`` real points ``y``::

    precision = share of the x that lie in some B(y)                                (1)
    recall    = share of the y that lie in some B(x)                                (2)
    density   = 1 / (k N) * sum over x of the number of B(y) it lies in             (3)
    coverage  = share of the y whose B(y) contains an x                              (4)

For two samples of the same distribution density averages 1 and coverage
``1 - prod_{i<k} (M - 1 - i) / (N + M - 1 - i)``, in any dimension. Precision and recall depend on
the dimension and on both sizes. A single outlier can raise them, because its ball is large.

The classifier two-sample test measures the accuracy of a classifier between the samples. Their
points are divided into folds. Each point is classified by its ``k`` nearest neighbours in the other
folds, which contain ``n`` points of ``x`` and ``m`` of ``y``: as an ``x`` if more than a share
``n / (n + m)`` of its neighbours are, and half as either in a tie. Both samples have the same
weight::

    A = 1/2 (share of x classified as x) + 1/2 (share of y classified as y)         (5)

The neighbours of a point are chosen without its label. So if both samples have the same
distribution, the mean of ``A`` is exactly 1/2, for any sizes and dimension. 1 is a perfect
classifier.

Reference: Kynkäänniemi et al. (2019), arXiv:1904.06991; Naeem et al. (2020), arXiv:2002.09797;
Lopez-Paz and Oquab (2017), arXiv:1610.06545; Schilling (1986), Multivariate two-sample tests based
on nearest neighbors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric, split_halves, split_whole
from scorefield.evaluate.metrics.measurement import Measurement, check_level
from scorefield.evaluate.metrics.points import distance_blocks
from scorefield.process import check_whole


def nearest(x: Tensor, y: Tensor, group: Tensor, groups: int, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` nearest points in each group of ``y`` for each ``x``, twice ``(N, G, k)``.

    The first tensor has their distances, the second their positions in ``y``: inf and 0 where a
    group has fewer points.
    """
    order = group.argsort(stable=True)
    ends = group.bincount(minlength=groups).cumsum(0).tolist()
    columns = [slice(*pair) for pair in pairwise([0, *ends])]
    near = x.new_full((len(x), groups, k), math.inf)
    places = torch.zeros_like(near, dtype=torch.int64)
    for part, distances in distance_blocks(x, y[order]):
        for j, column in enumerate(columns):
            count = min(k, column.stop - column.start)
            values, indices = distances[:, column].topk(count, dim=1, largest=False)
            near[part, j, :count] = values
            places[part, j, :count] = order[column][indices]
    return near, places


def check_neighbours(k: int, points: int) -> None:
    """Raise `ValueError` if ``k < 1`` or there are fewer points than that."""
    check_whole(k=k)
    if k > points:
        raise ValueError(f"k={k}: must be at most {points}, the number of other points.")


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


@dataclass(frozen=True)
class C2ST(SplitMetric):
    """`c2st` for `scorefield.evaluate.metrics.compare`; the groups are the folds."""

    names: ClassVar[tuple[str, ...]] = ("c2st_accuracy",)
    k: int = 15

    def values(self, split: Split) -> Tensor:
        """Return (5) for every row of ``split.keep``: ``(1, R)``."""
        points, group = torch.cat([split.x, split.y]), torch.cat([split.x_group, split.y_group])
        is_x = torch.arange(len(points), device=points.device) < len(split.x)
        sizes = torch.stack([split.x_group.bincount(), split.y_group.bincount()]).to(split.keep)
        # the training points of a fold in the smallest half
        check_neighbours(self.k, int((split.keep @ sizes.sum(0)).min() - sizes.sum(0).max()))
        near, places = nearest(points, points, group, split.groups, self.k)
        other_fold = group[:, None] != torch.arange(split.groups, device=group.device)
        accuracies = []
        for row in split.keep > 0:
            train = other_fold & row
            n, m = (train.to(near) @ sizes.T).unbind(1)
            among = near.masked_fill(~train[..., None], math.inf).flatten(1)
            chosen = among.topk(self.k, dim=1, largest=False).indices
            votes = is_x[places.flatten(1).gather(1, chosen)].sum(1)
            # in whole numbers, so that ties are exact
            is_called_x = (1 + (votes * m - (self.k - votes) * n).sign()) / 2
            selected = row[group]
            wrong = is_called_x[~is_x & selected].mean()
            accuracies.append((is_called_x[is_x & selected].mean() + 1 - wrong) / 2)
        return torch.stack(accuracies)[None]


def c2st(x: Tensor, y: Tensor, *, k: int = 15, level: float = 0.95, seed: int = 0) -> Measurement:
    """Return the accuracy (5) between samples ``(N, ...)`` and ``(M, ...)``, from 16 folds.

    Folds share their neighbours, so the standard error is not that of the folds' accuracies but
    (1) of `scorefield.evaluate.metrics.base`, from halves of 8 folds each. Costs ``(N + M)^2``
    distances, in bounded memory.

    Args:
        x, y: samples whose points have the same shape; their numbers may differ.
        k: the number of neighbours that vote.
        level: confidence level of the interval.
        seed: determines the folds.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`; fewer than 32 points, or
            than ``k`` neighbours; a level outside (0, 1).
    """
    check_level(level)
    return Measurement.of_halves(C2ST(k).values(split_halves(x, y, seed))[0], level)
