r"""Metrics: statistics of two samples, of all their points and of halves of them.

The points of both samples are divided at random into 16 groups, and the groups into two halves in
15 ways that are orthogonal to each other. The halves of one way are independent samples. With
``T_r`` and ``T'_r`` the metric of each::

    se^2 = mean over r of (T_r - T'_r)^2 / 4                                        (1)

estimates half the variance of the metric of half as many points, without bias and for any metric.
That equals the variance for all the points where the variance falls as ``1/N``: for means over
points, smooth functions of moments, roots of distances near 0, and statistics of nearest
neighbours. Where it falls faster (squared distances of two samples of one distribution, as
``1/N^2``) the estimate is up to twice too large, which is the safe side. For means over points (1)
is the variance of the groups' means over 16, with 15 degrees of freedom.

The bootstrap is not valid here: it repeats points, and a repeated point is its own neighbour at
distance 0. The jackknife is valid but wide: an interaction of ``j`` groups, as between neighbours,
is counted ``j`` times.

Reference: McCarthy (1969), Pseudo-replication: half samples; Politis and Romano (1994), Large
sample confidence regions based on subsamples under minimal assumptions; Efron and Stein (1981), The
jackknife estimate of variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.evaluate.metrics.points import point_clouds
from scorefield.noise import METRICS, Noise

GROUPS = 16  # a power of two, so that there are orthogonal halves of them


@dataclass(frozen=True)
class Split:
    """Two samples whose points are divided into groups.

    Attributes:
        x, y: float64 ``(N, d)`` and ``(M, d)``, on one device.
        x_group, y_group: int64 ``(N,)`` and ``(M,)``: the group of each point.
        keep: float64 ``(R, G)`` of 0 and 1: the groups that each of ``R`` values is computed from.
        origin: float64 ``(d,)``: the mean of the second sample, which both are relative to.
    """

    x: Tensor
    y: Tensor
    x_group: Tensor
    y_group: Tensor
    keep: Tensor
    origin: Tensor

    @property
    def groups(self) -> int:
        """The number of groups."""
        return self.keep.shape[1]

    @property
    def x_mask(self) -> Tensor:
        """The points of ``x`` that each value is computed from, bool ``(R, N)``."""
        return self.keep[:, self.x_group] > 0

    @property
    def y_mask(self) -> Tensor:
        """The points of ``y`` that each value is computed from, bool ``(R, M)``."""
        return self.keep[:, self.y_group] > 0


class Metric(ABC):
    """A statistic of two samples that does not depend on the order of the points.

    Only `value` has to be written. `scorefield.metrics.compare` adds the confidence interval, the
    floor and the excess.

    Attributes:
        names: the names of its numbers; by default one, the name of the class.

    Example:
        The distance between the means::

            class MeanDistance(sf.Metric):
                names = ("mean_distance",)

                def value(self, x, y):
                    return (x.mean(0) - y.mean(0)).norm()

            x, real = torch.randn(100, 2), torch.randn(200, 2)
            result = sf.metrics.compare(x, real, metrics=[MeanDistance()])
            print(result.values["mean_distance"].value, result.values["mean_distance"].stderr)
    """

    names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def value(self, x: Tensor, y: Tensor) -> float | Tensor:
        """Return the number, or ``(K,)`` for ``K`` names, of ``x`` ``(N, d)`` and ``y`` ``(M, d)``.

        `scorefield.metrics.compare` passes float64 points, flattened, relative to the mean of
        ``y``.
        """

    def values(self, split: Split) -> Tensor:
        """Return the numbers, float64 ``(K, R)``, for every row of ``split.keep``."""
        rows = zip(split.x_mask, split.y_mask, strict=True)
        values = [self.value(split.x[i], split.y[j]) for i, j in rows]
        tensors = [torch.as_tensor(v, dtype=torch.float64, device=split.x.device) for v in values]
        return torch.stack(tensors).reshape(len(values), -1).T


class SplitMetric(Metric, ABC):
    """A metric that computes its values of all rows of a split together, which is faster."""

    @abstractmethod
    def values(self, split: Split) -> Tensor: ...

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the numbers ``(K,)`` of samples ``(N, ...)`` and ``(M, ...)``."""
        return self.values(split_whole(x, y))[:, 0]


def split_whole(x: Tensor, y: Tensor, second: str = "y") -> Split:
    """Return two samples in a single group.

    Raises:
        ValueError: as `point_clouds`.
    """
    origin, (x, y) = y, point_clouds(x, y, second)
    group_x, group_y = (torch.zeros(len(v), dtype=torch.int64, device=x.device) for v in (x, y))
    return Split(x, y, group_x, group_y, x.new_ones(1, 1), _mean(origin, x))


def split_halves(x: Tensor, y: Tensor, seed: int, second: str = "y") -> Split:
    """Return two samples in 16 groups, with rows for all points, for 15 halves and their rests.

    The sizes of groups differ by at most one. The groups depend on the seed, and not on the order
    of the data.

    Raises:
        ValueError: as `point_clouds`; fewer than two points for a group.
    """
    origin, (x, y) = y, point_clouds(x, y, second)
    least = min(len(x), len(y))
    if least < 2 * GROUPS:
        raise ValueError(f"a sample has {least} points: a standard error needs {2 * GROUPS}.")
    signs = x.new_ones(1, 1)
    while len(signs) < GROUPS:  # Sylvester's construction of a Hadamard matrix
        signs = torch.kron(signs, signs.new_tensor([[1, 1], [1, -1]]))
    keep = torch.cat([signs[:1], (1 + signs[1:]) / 2, (1 - signs[1:]) / 2])
    group_x, group_y = (ranks(v, seed, step) % GROUPS for step, v in enumerate((x, y), start=1))
    return Split(x, y, group_x, group_y, keep, _mean(origin, x))


def _mean(y: Tensor, like: Tensor) -> Tensor:
    """Return the shift of `point_clouds`."""
    return y.detach().to(like.device).reshape(len(y), -1).mean(0, dtype=torch.float64)


def ranks(points: Tensor, seed: int, step: int) -> Tensor:
    """Return a random order of points ``(N, ...)``: the rank of each, int64 ``(N,)``."""
    noise = Noise(seed, torch.arange(len(points)), step=step, stream=METRICS)
    return noise.uniform(points)[0].argsort(stable=True).argsort()
