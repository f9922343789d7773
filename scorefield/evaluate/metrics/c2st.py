r"""The classifier two-sample test: the accuracy of a classifier between two samples.

The points of both samples are divided into folds. Each point is classified by its ``k`` nearest
neighbours in the other folds, which contain ``n`` points of ``x`` and ``m`` of ``y``: as an ``x``
if more than a share ``n / (n + m)`` of its neighbours are, and half as either in a tie. Both
samples have the same weight::

    A = 1/2 (share of x classified as x) + 1/2 (share of y classified as y)         (1)

The neighbours of a point are chosen without its label. So if both samples have the same
distribution, the mean of ``A`` is exactly 1/2, for any sizes and dimension. 1 is a perfect
classifier.

Reference: Lopez-Paz and Oquab (2017), arXiv:1610.06545; Schilling (1986), Multivariate two-sample
tests based on nearest neighbors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric, split_halves
from scorefield.evaluate.metrics.measurement import Measurement, check_level
from scorefield.evaluate.metrics.nearest import check_neighbours, nearest


@dataclass(frozen=True)
class C2ST(SplitMetric):
    """`c2st` for `scorefield.evaluate.metrics.compare`; the groups are the folds."""

    names: ClassVar[tuple[str, ...]] = ("c2st_accuracy",)
    k: int = 15

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``: ``(1, R)``."""
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
    """Return the accuracy (1) between samples ``(N, ...)`` and ``(M, ...)``, from 16 folds.

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
