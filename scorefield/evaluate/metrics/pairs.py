r"""Unbiased statistics of pairs of points: energy distance and maximum mean discrepancy.

With independent ``X, X' ~ p`` and ``Y, Y' ~ q``, a kernel ``k`` and the distance ``|.|``::

    D(p, q) = E k(|X - X'|) + E k(|Y - Y'|) - 2 E k(|X - Y|)                        (1)

The energy distance is (1) of the kernel ``k(d) = -d``. The squared maximum mean discrepancy is that
of Gaussian kernels of ``B`` bandwidths ``h``, and at most 2::

    k(d) = 1/B sum_h exp(-d^2 / (2 h^2))                                            (2)

Both are 0 only if ``p = q``. Unlike transport they have an unbiased estimate: the average over
pairs of different points.

Reference: Székely and Rizzo (2013), Energy statistics; Gretton et al. (2012), A kernel two-sample
test; Sejdinovic et al. (2013), arXiv:1207.6076.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric
from scorefield.evaluate.metrics.points import distance_blocks

Kernel = Callable[[Tensor], Tensor]


def discrepancy(split: Split, kernel: Kernel, at_zero: float) -> Tensor:
    """Return the unbiased estimate of (1) for every row of ``split.keep``: float64 ``(R,)``.

    Costs ``N^2 + N M + M^2`` distances, in bounded memory, however many rows.

    Args:
        split: the two samples.
        kernel: ``k`` of a tensor of distances, which it may overwrite.
        at_zero: ``k(0)``, the term of a point with itself.
    """
    x, y = split.x, split.y
    x_in, y_in = (
        torch.nn.functional.one_hot(group, split.groups).to(x)
        for group in (split.x_group, split.y_group)
    )

    def summed(a: Tensor, a_in: Tensor, b: Tensor, b_in: Tensor) -> Tensor:
        sums = a.new_zeros(split.groups, split.groups)
        for part, distances in distance_blocks(a, b):
            sums += a_in[part].T @ (kernel(distances) @ b_in)
        return ((split.keep @ sums) * split.keep).sum(1)

    n, m = split.keep @ x_in.sum(0), split.keep @ y_in.sum(0)
    within_x = (summed(x, x_in, x, x_in) - at_zero * n) / (n * (n - 1))
    within_y = (summed(y, y_in, y, y_in) - at_zero * m) / (m * (m - 1))
    return within_x + within_y - 2 * summed(x, x_in, y, y_in) / (n * m)


@dataclass(frozen=True)
class EnergyDistance(SplitMetric):
    """`energy_distance` for `scorefield.evaluate.metrics.compare`."""

    names: ClassVar[tuple[str, ...]] = ("energy_distance",)

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``: ``(1, R)``."""
        return discrepancy(split, Tensor.neg_, 0.0)[None]


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of (1) from samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    This is Székely and Rizzo's ``E``, a *squared* distance, in the units of the data;
    `scipy.stats.energy_distance` is ``sqrt(E)`` of the biased estimate. For two samples of the same
    distribution the mean is exactly 0, so the value may be negative: near 0 it means that no
    difference was detected. Costs ``N^2 + N M + M^2`` distances, in bounded memory.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`.
    """
    return float(EnergyDistance().value(x, y))


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
