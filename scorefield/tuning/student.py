r"""Steps between given noise levels, fitted to the paths of a teacher.

In ``y = x / alpha``, each step is a ridge regression on the state and all data estimates so far,
towards the teacher's path at the next level::

    y_{i+1} = w_0 y_i + sum_j w_j x0_j                                              (1)

The next step starts from the state of (1), so later steps correct the errors of earlier ones. No
gradient through the network is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.process import wide
from scorefield.sampling import from_normal
from scorefield.solvers import Fitted, level_times
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.teacher import Teacher

_RIDGE = 1e-8  # of the mean of the diagonal
_ROUNDS = 4  # of least squares
_LEAST = 1e-3  # the smallest distance that a weight depends on, relative to the mean


class Lesson(NamedTuple):
    """Fitted steps, and each sample's distance from the end of the teacher's path, ``(N,)``."""

    solver: Fitted
    error: Tensor


@dataclass(frozen=True)
class Student:
    """Fits steps to the paths of a teacher.

    Attributes:
        noises: the starting points of the paths.
        teacher: the paths.
        chosen: the coordinates of the teacher's paths and of the regression, ``(M,)``.
        fitted: the noises of the regression, a mask ``(N,)``.
    """

    noises: Noises
    teacher: Teacher
    chosen: Tensor
    fitted: Tensor

    @torch.no_grad()
    def learn(self, levels: Sequence[float]) -> Lesson:
        """Fit the steps between levels.

        Raises:
            ValueError: levels that are not decreasing, or beyond the range of the process.
        """
        field, z = self.noises.field, self.noises.z
        times = level_times(field.process, levels)
        alphas = field.process.coefficients(times)[0].tolist()
        y = wide(from_normal(field, z, times[0])).flatten(1) / alphas[0]
        x0s: list[Tensor] = []
        table = []
        for i, at in enumerate(field.instants(times[:-1])):
            x = (y * alphas[i]).reshape(z.shape).to(z)
            x0s.insert(0, self.noises.denoised(x, at).to(y.device))
            last = i + 2 == len(levels)
            # without a level at the data, x at the last level must be the data
            end = self.teacher.end[:, self.chosen] / alphas[-1] if last else None
            target = self.teacher.at(levels[i + 1]) if end is None else end
            of_y, *of_x0 = self._weights(levels[i], y, x0s, target)
            y = of_y * y
            for w, x0 in zip(of_x0, x0s, strict=True):
                y.add_(x0, alpha=w)
            table.append((of_y, *(number for w in of_x0 for number in (w, 0.0))))
        error = distances(y * alphas[-1], self.teacher.end)
        return Lesson(Fitted(tuple(levels), tuple(table)), error)

    def _weights(
        self, level: float, y: Tensor, x0s: Sequence[Tensor], target: Tensor
    ) -> list[float]:
        """Return ``w_0, w_1, ...`` of (1), from the noises and coordinates of the regression."""

        def rows(v: Tensor) -> Tensor:
            return v[self.fitted][:, self.chosen].double()

        unit = self.teacher.data_std
        units = [math.hypot(math.exp(level), unit), *[unit] * len(x0s)]
        columns = torch.stack([rows(v) / u for v, u in zip((y, *x0s), units, strict=True)], -1)
        weights = _ridge(columns, target[self.fitted]).tolist()
        return [w / u for w, u in zip(weights, units, strict=True)]


def _ridge(columns: Tensor, target: Tensor) -> Tensor:
    """Return the weights ``(k,)`` whose combination of ``columns`` ``(N, d, k)`` is nearest.

    Minimizes the mean distance over the ``N`` samples, by reweighted least squares. The mean square
    would be dominated by the few paths that fork between modes.
    """
    share = torch.ones_like(target[:, 0])
    for _ in range(_ROUNDS):
        gram = torch.einsum("n,ndi,ndj->ij", share, columns, columns)
        right = torch.einsum("n,ndi,nd->i", share, columns, target)
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        weights: Tensor = torch.linalg.solve(gram + ridge, right)
        rest = (target - columns @ weights).norm(dim=1)
        share = 1 / (rest + _LEAST * rest.mean()).clamp(min=torch.finfo(rest.dtype).tiny)
        share = share / share.mean()
    return weights
