r"""The maximum mean discrepancy: how far apart two samples are to functions as smooth as a kernel.

With independent ``X, X' ~ p`` and ``Y, Y' ~ q``, and Gaussian kernels of ``B`` bandwidths ``h``::

    MMD^2(p, q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)                             (1)
    k(x, y) = 1/B sum_h exp(-|x - y|^2 / (2 h^2))                                   (2)

It is 0 only if ``p = q``, and at the most 2.

Reference: Gretton et al. (2012), A kernel two-sample test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, Split, whole
from scorefield.evaluate.metrics.pairs import discrepancy
from scorefield.evaluate.metrics.points import distance_blocks

_MEDIAN_OF = 1000  # points whose distances the median is of, at the most


@dataclass(frozen=True)
class MMD(Metric):
    """`squared_mmd`, for `scorefield.evaluate.metrics.compare`.

    Raises:
        ValueError: bandwidths that are not positive numbers, or none of them.
    """

    names: ClassVar[tuple[str, ...]] = ("squared_mmd",)
    bandwidths: Sequence[float] | None = None

    def __post_init__(self) -> None:
        given = self.bandwidths
        if given is not None and not (given and all(0 < h < math.inf for h in given)):
            raise ValueError(
                f"bandwidths = {given!r}: give positive numbers in the units of the data, such as "
                "(0.5, 1.0), or None for the median distance."
            )

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``, all with one kernel: ``(1, R)``."""
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

    A pure number. Two samples of one law average exactly 0, so a value may be negative: about zero,
    read it as "no difference seen". Costs ``N^2 + N M + M^2`` distances, in bounded memory.

    Args:
        x, y: samples of one shape of point, of equal number or not.
        bandwidths: the ``h`` of (2), in the units of the data. Unless given, the one
            `median_distance` of ``y``: give the real data there, and every model is measured by the
            same kernel.

    Raises:
        ValueError: as `point_clouds`; bandwidths that are not positive,
            or a median that is 0.
    """
    return float(MMD(bandwidths).values(whole(x, y)))


def median_distance(points: Tensor) -> float:
    """Return the median distance between different points of ``(N, d)``, of every n-th if many.

    Raises:
        ValueError: it is 0, since more than half of the pairs are of equal points.
    """
    points = points[:: -(-len(points) // _MEDIAN_OF)]
    blocks = [distances for _, distances in distance_blocks(points, points)]
    rows, columns = torch.triu_indices(len(points), len(points), offset=1)
    median = float(torch.cat(blocks)[rows, columns].median())
    if median == 0:
        raise ValueError(
            "the second sample's points are at a median distance of 0: give bandwidths."
        )
    return median
