r"""The energy distance: the distance of points between two samples minus that within each.

With independent ``X, X' ~ p`` and ``Y, Y' ~ q``::

    E(p, q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|                                    (1)

``E >= 0``, and 0 only if ``p = q``. It is twice the squared maximum mean discrepancy of the
distance-induced kernel. Unlike transport it has an unbiased estimate: the average over pairs of
different points.

Reference: Székely and Rizzo (2013), Energy statistics; Sejdinovic et al. (2013), arXiv:1207.6076.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric
from scorefield.evaluate.metrics.pairs import discrepancy


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
