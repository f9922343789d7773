r"""The sliced Wasserstein distance: optimal transport along random lines.

On a line, optimal transport matches quantile to quantile::

    W_2^2(p, q) = int_0^1 (F_p^{-1}(u) - F_q^{-1}(u))^2 du                          (1)
    SW_2^2(p, q) = mean over directions theta of W_2^2(theta . p, theta . q)        (2)

Empirical quantile functions are steps, with ``N`` and ``M`` treads; (1) is summed exactly over the
``N + M - 1`` intervals (some of them empty) on which both are constant.

Reference: Rabin et al. (2012), Wasserstein barycenter and its application to texture mixing;
Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.metrics.points import BLOCK, point_clouds
from scorefield.noise import METRICS, Noise


def sliced_wasserstein(x: Tensor, y: Tensor, *, projections: int = 256, seed: int = 0) -> float:
    """Return ``SW_2`` of (2) between samples ``x`` ``(N, ...)`` and ``y`` ``(M, ...)``.

    In the units of the data. ``N(0, I)`` and ``N(m, I)`` in ``d`` dimensions are ``|m| / sqrt(d)``
    apart. Two samples of one law are not 0 apart but ``O(N^{-1/2})``: compare with that floor.

    Args:
        x, y: samples of one shape of point, of equal number or not.
        projections: how many directions, uniform on the sphere. In one dimension one is enough.
        seed: determines the directions. The first ones are the same for any ``projections``.

    Raises:
        ValueError: see `scorefield.metrics.points.point_clouds`; or ``projections < 1``.
    """
    x, y = point_clouds(x, y)
    if projections < 1:
        raise ValueError(f"projections = {projections}: give at least one.")
    dim = x.shape[1]
    at_once = max(1, BLOCK // (x.shape[0] + y.shape[0] + dim))
    total = 0.0
    for first in range(0, projections, at_once):
        ids = torch.arange(first, min(first + at_once, projections))
        directions, _ = Noise(seed, ids, stream=METRICS).draw((dim,), x)
        directions = directions / directions.norm(dim=1, keepdim=True)
        total += float(squared_wasserstein(directions @ x.T, directions @ y.T).sum())
    return math.sqrt(total / projections)


def squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Return ``W_2^2`` of (1) for each row of ``x`` ``(P, N)`` and ``y`` ``(P, M)``: ``(P,)``."""
    n, m = x.shape[1], y.shape[1]
    # u in units of 1/(n m), where every jump of both quantile functions is an integer
    jumps = torch.cat([torch.arange(n) * m, torch.arange(1, m + 1) * n]).sort().values.to(x.device)
    left, width = jumps[:-1], jumps.diff().to(x) / (n * m)
    gaps = x.sort(dim=1).values[:, left // m] - y.sort(dim=1).values[:, left // n]
    return (gaps.square() * width).sum(1)
