r"""What a metric is: a statistic of two samples, and the same of halves of them.

The points of both samples are dealt into 16 groups, and the groups into halves in 15 ways that are
orthogonal to each other. The halves of one way are independent samples, so with ``T_r`` and
``T'_r`` the metric of each::

    se^2 = mean over r of (T_r - T'_r)^2 / 4                                        (1)

averages half the variance of the metric of half as many points, without bias and whatever the
metric. That is the variance for all the points where it falls as ``1/N``: for means over points,
smooth functions of moments, roots of distances near 0, and statistics of nearest neighbours. Where
it falls faster (squared distances of two samples of one law, as ``1/N^2``) it is up to twice as
large, which errs on the safe side. For means over points (1) is the variance of the groups' means
over 16, with 15 degrees of freedom.

The bootstrap is not valid here: it repeats points, and a repeated point is its own neighbour at
distance 0. The jackknife is valid but wide: what ``j`` groups do only together, as neighbours do,
it counts ``j`` times.

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
    """Two samples whose points are dealt into groups.

    Attributes:
        x, y: float64 ``(N, d)`` and ``(M, d)``, on one device.
        x_group, y_group: int64 ``(N,)`` and ``(M,)``: the group of each point.
        keep: float64 ``(R, G)`` of 0 and 1: the groups of which a value is to be told, for each of
            ``R`` values.
    """

    x: Tensor
    y: Tensor
    x_group: Tensor
    y_group: Tensor
    keep: Tensor

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return self.keep.shape[1]

    @property
    def x_kept(self) -> Tensor:
        """Which points of ``x`` each value is of, bool ``(R, N)``."""
        return self.keep[:, self.x_group] > 0

    @property
    def y_kept(self) -> Tensor:
        """Which points of ``y`` each value is of, bool ``(R, M)``."""
        return self.keep[:, self.y_group] > 0


class Metric(ABC):
    """Statistics of two samples; settings only, and blind to the order of the points.

    Attributes:
        names: what each of its numbers is called.
    """

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def values(self, split: Split) -> Tensor:
        """Return the numbers named, float64 ``(K, R)``, for every row of ``split.keep``.

        Raises:
            ValueError: too few points.
        """


def whole(x: Tensor, y: Tensor, second: str = "y") -> Split:
    """Return two samples in a single group.

    Raises:
        ValueError: see `scorefield.evaluate.metrics.point_clouds`.
    """
    x, y = point_clouds(x, y, second)
    group_x, group_y = (torch.zeros(len(v), dtype=torch.int64, device=x.device) for v in (x, y))
    return Split(x, y, group_x, group_y, x.new_ones(1, 1))


def dealt(x: Tensor, y: Tensor, seed: int, second: str = "y") -> Split:
    """Return two samples in 16 groups, to tell the value of all, of halves, and of other halves.

    Groups differ in size by one at the most. Which point is in which depends on the seed, and not
    on the order of data that comes sorted.

    Raises:
        ValueError: as `point_clouds`; fewer than two points for a group.
    """
    x, y = point_clouds(x, y, second)
    least = min(len(x), len(y))
    if least < 2 * GROUPS:
        raise ValueError(f"a sample has {least} points: a standard error needs {2 * GROUPS}.")
    signs = x.new_ones(1, 1)
    while len(signs) < GROUPS:  # Sylvester's construction of a Hadamard matrix
        signs = torch.kron(signs, signs.new_tensor([[1, 1], [1, -1]]))
    keep = torch.cat([signs[:1], (1 + signs[1:]) / 2, (1 - signs[1:]) / 2])
    group_x, group_y = (ranks(v, seed, step) % GROUPS for step, v in enumerate((x, y), start=1))
    return Split(x, y, group_x, group_y, keep)


def ranks(points: Tensor, seed: int, step: int) -> Tensor:
    """Return a random order of points ``(N, ...)``: the rank of each, int64 ``(N,)``."""
    noise = Noise(seed, torch.arange(len(points)), step=step, stream=METRICS)
    return noise.uniform(points)[0].argsort(stable=True).argsort()
