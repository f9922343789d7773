r"""The classifier two-sample test: can a classifier tell two samples apart?

The points of both samples are dealt into folds. Each is classified by its ``k`` nearest neighbours
in the other folds, which hold ``n`` of ``x`` and ``m`` of ``y``: as an ``x`` if more than
``n / (n + m)`` of its neighbours are, by half each way if just as many. The samples count alike::

    A = 1/2 (share of x classified as x) + 1/2 (share of y classified as y)         (1)

What a point is compared with is chosen without its label. So where both samples have one law, ``A``
averages exactly 1/2, whatever their sizes and the dimension; 1 is to be told apart without fail.

Reference: Lopez-Paz and Oquab (2017), arXiv:1610.06545; Schilling (1986), Multivariate two-sample
tests based on nearest neighbors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, Split, dealt
from scorefield.evaluate.metrics.measurement import Measurement, check_level
from scorefield.evaluate.metrics.nearest import check_neighbours, nearest


@dataclass(frozen=True)
class C2ST(Metric):
    """`c2st`, for `scorefield.evaluate.metrics.compare`, whose groups are the folds."""

    names: ClassVar[tuple[str, ...]] = ("c2st_accuracy",)
    k: int = 15

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``: ``(1, R)``."""
        points, group = torch.cat([split.x, split.y]), torch.cat([split.x_group, split.y_group])
        is_x = torch.arange(len(points), device=points.device) < len(split.x)
        sizes = torch.stack([split.x_group.bincount(), split.y_group.bincount()]).to(split.keep)
        # of a half, all but a fold
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
            # in whole numbers, so that a tie is one
            said_x = (1 + (votes * m - (self.k - votes) * n).sign()) / 2
            kept = row[group]
            accuracies.append((said_x[is_x & kept].mean() + 1 - said_x[~is_x & kept].mean()) / 2)
        return torch.stack(accuracies)[None]


def c2st(x: Tensor, y: Tensor, *, k: int = 15, level: float = 0.95, seed: int = 0) -> Measurement:
    """Return the accuracy (1) with which samples ``(N, ...)`` and ``(M, ...)`` are told apart.

    From 16 folds. Folds share their neighbours, so the standard error is not that of the folds'
    accuracies but that of `scorefield.evaluate.metrics.base`, from halves of 8 folds each. Costs
    ``(N + M)^2`` distances, in bounded memory.

    Args:
        x, y: samples of one shape of point, of equal number or not.
        k: how many neighbours vote.
        level: of the confidence interval.
        seed: determines the folds.

    Raises:
        ValueError: see `scorefield.evaluate.metrics.point_clouds`; fewer than 32 points, or than
            ``k`` neighbours; a level outside (0, 1).
    """
    check_level(level)
    return Measurement.of_halves(C2ST(k).values(dealt(x, y, seed))[0], level)
