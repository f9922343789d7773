r"""The sliced Wasserstein distance: optimal transport along random lines.

On a line, optimal transport matches quantile to quantile::

    W_2^2(p, q) = int_0^1 (F_p^{-1}(u) - F_q^{-1}(u))^2 du                          (1)
    SW_2^2(p, q) = mean over directions theta of W_2^2(theta . p, theta . q)        (2)

Empirical quantile functions are step functions. (1) is summed exactly over the ``N + M - 1``
intervals (some of them empty) on which both are constant.

Reference: Rabin et al. (2012), Wasserstein barycenter and its application to texture mixing;
Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics import points
from scorefield.evaluate.metrics.base import Split, SplitMetric
from scorefield.noise import METRICS, Noise
from scorefield.process import check_whole


@dataclass(frozen=True)
class SlicedWasserstein(SplitMetric):
    """`sliced_wasserstein` for `scorefield.evaluate.metrics.compare`.

    Raises:
        ValueError: ``projections < 1``.
    """

    names: ClassVar[tuple[str, ...]] = ("sliced_wasserstein",)
    projections: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(projections=self.projections)

    def values(self, split: Split) -> Tensor:
        """Return the root of (2) for every row of ``split.keep``: ``(1, R)``."""
        dim = split.x.shape[1]
        at_once = max(1, points.BLOCK // (len(split.x) + len(split.y) + dim))
        total = split.keep.new_zeros(len(split.keep))
        for first in range(0, self.projections, at_once):
            ids = torch.arange(first, min(first + at_once, self.projections))
            directions, _ = Noise(self.seed, ids, stream=METRICS).draw((dim,), split.x)
            total += self._summed(split, directions / directions.norm(dim=1, keepdim=True))
        return (total / self.projections).sqrt()[None]

    @staticmethod
    def _summed(split: Split, directions: Tensor) -> Tensor:
        """Return ``W_2^2`` summed over unit vectors ``(P, d)``, for every row of ``split.keep``."""
        # sorted once: a subset of a sorted sample is sorted
        x, x_order = (directions @ split.x.T).sort(dim=1)
        y, y_order = (directions @ split.y.T).sort(dim=1)
        sums = []
        for x_mask, y_mask in zip(split.x_mask, split.y_mask, strict=True):
            left_x = x[x_mask[x_order]].reshape(len(x), -1)
            left_y = y[y_mask[y_order]].reshape(len(y), -1)
            sums.append(squared_wasserstein(left_x, left_y).sum())
        return torch.stack(sums)


def sliced_wasserstein(x: Tensor, y: Tensor, *, projections: int = 256, seed: int = 0) -> float:
    """Return ``SW_2`` of (2) between samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    In the units of the data. The distance of ``N(0, I)`` and ``N(m, I)`` in ``d`` dimensions is
    ``|m| / sqrt(d)``. For two samples of the same distribution it is not 0 but ``O(N^{-1/2})``:
    compare with that floor.

    Args:
        x, y: samples whose points have the same shape; their numbers may differ.
        projections: the number of directions, uniform on the sphere; in one dimension 1 is enough.
        seed: determines the directions. The first ones are the same for any ``projections``.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`; ``projections < 1``.
    """
    return float(SlicedWasserstein(projections, seed).value(x, y))


def squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Return ``W_2^2`` of (1) of ascending rows ``x`` ``(P, N)`` and ``y`` ``(P, M)``: ``(P,)``."""
    n, m = x.shape[1], y.shape[1]
    # u in units of 1/(n m), where every jump of both quantile functions is an integer
    jumps = torch.cat([torch.arange(n) * m, torch.arange(1, m + 1) * n]).sort().values.to(x.device)
    left, width = jumps[:-1], jumps.diff().to(x) / (n * m)
    return ((x[:, left // m] - y[:, left // n]).square() * width).sum(1)
