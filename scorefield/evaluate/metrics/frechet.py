r"""The Fréchet distance: transport between Gaussians with the moments of two samples of features.

With means ``m``, covariances ``C`` and their symmetric roots::

    F(p, q) = |m_p - m_q|^2 + tr C_p + tr C_q - 2 tr (C_p C_q)^{1/2}                (1)
    tr (C_p C_q)^{1/2} = sum of the singular values of C_p^{1/2} C_q^{1/2}          (2)

``F`` is ``W_2^2`` between those Gaussians. It depends on the first two moments only, and is 0
whenever these agree. With ``C = A A^T`` from a symmetric eigendecomposition, (2) sums the singular
values of ``A_p^T A_q``. That holds for singular covariances too, and takes no square root of a
rounding error.

Reference: Dowson and Landau (1982), The Fréchet distance between multivariate normal distributions;
Heusel et al. (2017), arXiv:1706.08500.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split, SplitMetric


@dataclass(frozen=True)
class FrechetDistance(SplitMetric):
    """`frechet_distance` for `scorefield.evaluate.metrics.compare`."""

    names: ClassVar[tuple[str, ...]] = ("frechet_distance",)

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``: ``(1, R)``."""
        pairs = zip(_moments(split.x, split.x_mask), _moments(split.y, split.y_mask), strict=True)
        return torch.stack([between_gaussians(*p, *q) for p, q in pairs])[None]


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return (1) of the moments of samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    In the squared units of the data; for Inception features it is the FID. It has the largest bias
    of all metrics here: for two samples of ``N(0, I)`` in ``d`` dimensions, ``(1/N + 1/M) (d +
    d (d + 1) / 4)`` to first order, so ``d = 2048`` needs tens of thousands of samples. Compare it
    with the floor of the same sizes only. Costs ``d^3`` operations and ``d^2`` numbers of memory.

    Raises:
        ValueError: as `scorefield.evaluate.metrics.points.point_clouds`.
    """
    return float(FrechetDistance().value(x, y))


def between_gaussians(m_p: Tensor, c_p: Tensor, m_q: Tensor, c_q: Tensor) -> Tensor:
    """Return (1), 0-dim, of means ``(d,)`` and covariances ``(d, d)``."""
    overlap: Tensor = torch.linalg.svdvals(_factor(c_p).T @ _factor(c_q)).sum()
    shift = (m_p - m_q).square().sum()
    return shift + c_p.trace() + c_q.trace() - 2 * overlap


def _factor(covariance: Tensor) -> Tensor:
    """Return ``A`` ``(d, rank)`` with ``A A^T`` the covariance."""
    values: Tensor
    vectors: Tensor
    values, vectors = torch.linalg.eigh(covariance)
    # eigenvalues of a singular matrix that are 0 up to rounding, whose roots would not be small
    rounding = values[-1] * len(values) * torch.finfo(values.dtype).eps
    positive = values > rounding
    return vectors[:, positive] * values[positive].sqrt()


def _moments(points: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mean and unbiased covariance of points ``(N, d)`` for each row of ``mask``."""
    total, products = points.sum(0), points.T @ points
    for row in mask:
        # subtract the points left out, which are at most half
        rest, count = points[~row], row.sum()
        mean = (total - rest.sum(0)) / count
        covariance = (products - rest.T @ rest - count * mean.outer(mean)) / (count - 1)
        yield mean, covariance
