r"""The maximum mean discrepancy: the largest difference of means over smooth functions.

With independent ``X, X' ~ p`` and ``Y, Y' ~ q``, and Gaussian kernels of ``B`` bandwidths ``h``::

    MMD^2(p, q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)                             (1)
    k(x, y) = 1/B sum_h exp(-|x - y|^2 / (2 h^2))                                   (2)

It is 0 only if ``p = q``, and at most 2.

Reference: Gretton et al. (2012), A kernel two-sample test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric
from scorefield.evaluate.metrics.pairs import discrepancy
from scorefield.evaluate.metrics.points import distance_blocks

_MEDIAN_OF = 1000  # the largest number of points for the median of their distances


@dataclass(frozen=True)
class MMD(SplitMetric):
    """`squared_mmd` for `scorefield.evaluate.metrics.compare`.

    Raises:
        ValueError: ``bandwidths`` is empty or contains a number that is not positive.
    """

    names: ClassVar[tuple[str, ...]] = ("squared_mmd",)
    bandwidths: Sequence[float] | None = None

    def __post_init__(self) -> None:
        bandwidths = self.bandwidths
        if bandwidths is not None and not (
            bandwidths and all(0 < h < math.inf for h in bandwidths)
        ):
            raise ValueError(
                f"bandwidths={bandwidths!r}: must be positive numbers in the units of the data, "
                "such as (0.5, 1.0), or None for the median distance."
            )

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``, all with the same kernel: ``(1, R)``."""
        bandwidths = self.bandwidths or (median_distance(split.y),)

        def kernel(distances: Tensor) -> Tensor:
            squares = distances.square_()
            total = torch.zeros_like(squares)
            for h in bandwidths:
                total += (squares * (-0.5 / h**2)).exp_()
            return total.div_(len(bandwidths))

        return discrepancy(split, kernel, 1.0)[None]


def squared_mmd(x: Tensor, y: Tensor, *, bandwidths: Sequence[float] | None = None) -> float:
    """Return the unbiased estimate of (1) from samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    Without units. For two samples of the same distribution the mean is exactly 0, so the value may
    be negative: near 0 it means that no difference was detected. Costs ``N^2 + N M + M^2``
    distances, in bounded memory.

    Args:
        x, y: samples whose points have the same shape; their numbers may differ.
        bandwidths: the ``h`` of (2), in the units of the data; by default the `median_distance` of
            ``y``. Pass the real data as ``y``, so that every model is measured by the same kernel.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`; bandwidths that are not
            positive, or a median of 0.
    """
    return float(MMD(bandwidths).value(x, y))


def median_distance(points: Tensor) -> float:
    """Return the median distance between points ``(N, d)``; of every n-th point if there are many.

    Raises:
        ValueError: it is 0, because more than half of the pairs are equal points.
    """
    points = points[:: -(-len(points) // _MEDIAN_OF)]
    blocks = [distances for _, distances in distance_blocks(points, points)]
    rows, columns = torch.triu_indices(len(points), len(points), offset=1)
    median = float(torch.cat(blocks)[rows, columns].median())
    if median == 0:
        raise ValueError(
            "the points of the second sample have a median distance of 0: give bandwidths."
        )
    return median
