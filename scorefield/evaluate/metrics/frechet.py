r"""The Fréchet distance: transport between Gaussians with the moments of two samples of features.

With means ``m``, covariances ``C`` and their symmetric roots::

    F(p, q) = |m_p - m_q|^2 + tr C_p + tr C_q - 2 tr (C_p C_q)^{1/2}                (1)
    tr (C_p C_q)^{1/2} = sum of the singular values of C_p^{1/2} C_q^{1/2}          (2)

``F`` is ``W_2^2`` between those Gaussians, and 0 whenever the first two moments agree: it sees
nothing else. With ``C = A A^T`` from a symmetric eigendecomposition, (2) are the singular values of
``A_p^T A_q``, which holds for singular covariances too, and takes no root of a rounding error.

Reference: Dowson and Landau (1982), The Fréchet distance between multivariate normal distributions;
Heusel et al. (2017), arXiv:1706.08500.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Metric, Split, whole


@dataclass(frozen=True)
class FrechetDistance(Metric):
    """`frechet_distance`, for `scorefield.evaluate.metrics.compare`."""

    names: ClassVar[tuple[str, ...]] = ("frechet_distance",)

    def values(self, split: Split) -> Tensor:
        """Return (1) for every row of ``split.keep``: ``(1, R)``."""
        pairs = zip(_moments(split.x, split.x_kept), _moments(split.y, split.y_kept), strict=True)
        return torch.stack([between_gaussians(*p, *q) for p, q in pairs])[None]


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return (1) of the moments of samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    In the squared units of the data; of Inception's features it is the FID. Two samples of one law
    are not 0 apart, and no other estimate here is off by more: for ``N(0, I)`` in ``d`` dimensions
    by ``(1/N + 1/M) (d + d (d + 1) / 4)`` to the first order, so that ``d = 2048`` asks for tens
    of thousands of samples. Compare with the floor of the same sizes only. Costs
    ``d^3`` and ``d^2`` numbers of memory.

    Raises:
        ValueError: see `scorefield.evaluate.metrics.point_clouds`.
    """
    return float(FrechetDistance().values(whole(x, y)))


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
    # what is left of the zeros of a singular matrix, whose roots would be far from zero
    rounding = values[-1] * len(values) * torch.finfo(values.dtype).eps
    kept = values > rounding
    return vectors[:, kept] * values[kept].sqrt()


def _moments(points: Tensor, kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mean and unbiased covariance of points ``(N, d)``, for each row of ``kept`` (R, N)."""
    total, products = points.sum(0), points.T @ points
    for row in kept:
        # few are left out at a time, so they are taken away rather than the rest added up
        gone, count = points[~row], row.sum()
        mean = (total - gone.sum(0)) / count
        covariance = (products - gone.T @ gone - count * mean.outer(mean)) / (count - 1)
        yield mean, covariance
