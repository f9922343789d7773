r"""The distance to the closest training record: does a field copy the data that it learned from?

With ``d(z)`` the distance from a point to the closest of the training records, for generated points
``x`` and held-out points ``y``::

    ratio  = median of d(x) / m,    m = median of d(y)                              (1)
    copies = P(d(x) < m / 2) - P(d(y) < m / 2)                                      (2)

They are 1 and 0 if both samples have the same distribution, whatever that is. Copies of some
records raise (2) by their share. Samples that vary too little lower (1) somewhat, without being
copies.

Training records may take the place of ``y``: the distance of each to the closest *other* record has
the same distribution, but for one record less.

Reference: Zhao et al. (2021), arXiv:2102.08369 (the distance to the closest record).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric
from scorefield.evaluate.metrics.points import check_points, distance_blocks


@dataclass(frozen=True, eq=False)
class ClosestRecord(SplitMetric):
    """`closest_ratio` (1) and `copies` (2), for `scorefield.evaluate.metrics.compare`.

    Args:
        records: the training records ``(K, ...)``, of the shape of the points.
        among: whether ``y`` are some of the records, instead of held-out points.

    Raises:
        ValueError: fewer than two records, or values that are not finite.
    """

    names: ClassVar[tuple[str, ...]] = ("closest_ratio", "copies")
    records: Tensor
    among: bool = False

    def __post_init__(self) -> None:
        check_points("records", self.records)

    def values(self, split: Split) -> Tensor:
        """Return (1) and (2) for every row of ``split.keep``: ``(2, R)``."""
        records = self.records.detach().to(split.origin.device).flatten(1) - split.origin
        of_x, of_y = _closest(split.x, records, 1), _closest(split.y, records, 1 + self.among)
        tiny = 1e-6 * torch.cat([of_x, of_y]).mean()  # a median of 0 is one of repeated records
        rows = []
        for in_x, in_y in zip(split.x_mask, split.y_mask, strict=True):
            x, y = of_x[in_x], of_y[in_y]
            middle = y.median()
            ratio = (x.median() + tiny) / (middle + tiny) if tiny > 0 else x.new_ones(())
            near = [(distances < middle / 2).double().mean() for distances in (x, y)]
            rows.append(torch.stack([ratio, near[0] - near[1]]))
        return torch.stack(rows, dim=1)


def _closest(points: Tensor, records: Tensor, k: int) -> Tensor:
    """Return the distance of each point to its ``k``-th closest record."""
    blocks = [near.kthvalue(k, dim=1).values for _, near in distance_blocks(points, records)]
    return torch.cat(blocks)
