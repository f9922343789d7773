"""The nearest points in each group, from which those in any union of groups follow."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from scorefield.evaluate.metrics.points import distance_blocks


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
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1.")
    if k > points:
        raise ValueError(f"k={k}: must be at most {points}, the number of other points.")
