r"""The energy distance: how much farther apart the points of two samples are than within each.

With independent ``X, X' ~ p`` and ``Y, Y' ~ q``::

    E(p, q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|                                    (1)

``E >= 0``, and 0 only if ``p = q``. It is twice the squared maximum mean discrepancy of the
distance-induced kernel, so unlike transport it can be estimated without bias: average over pairs
of different points only.

Reference: Székely and Rizzo (2013), Energy statistics; Sejdinovic et al. (2013), arXiv:1207.6076.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, Split, whole
from scorefield.evaluate.metrics.pairs import discrepancy


@dataclass(frozen=True)
class EnergyDistance(Metric):
    """`energy_distance`, for `scorefield.evaluate.metrics.compare`."""

    names: ClassVar[tuple[str, ...]] = ("energy_distance",)

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``: ``(1, R)``."""
        return discrepancy(split, Tensor.neg_, 0.0)[None]


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of (1) from samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    This is Székely and Rizzo's ``E``, a *squared* distance, in the units of the data and not in
    their root; `scipy.stats.energy_distance` is ``sqrt(E)`` of the biased estimate. Two samples of
    one law average exactly 0, so a value may be negative and has no real root: about zero, read it
    as "no difference seen". Costs ``N^2 + N M + M^2`` distances, in bounded memory.

    Raises:
        ValueError: see `scorefield.evaluate.metrics.point_clouds`.
    """
    return float(EnergyDistance().values(whole(x, y)))
