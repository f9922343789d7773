r"""Steps between given noise levels, fitted to the paths of a teacher.

In ``y = x / alpha``, each step is a ridge regression on the state and all data estimates so far,
towards the teacher's path at the next level::

    y_{i+1} = w_0 y_i + sum_j w_j x0_j                                              (1)

With several calls a step, the states of the further ones are fitted in the same way, towards the
path at their own levels, with the estimates of earlier steps.

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
        parallel: calls of a step, made at once.
    """

    noises: Noises
    teacher: Teacher
    chosen: Tensor
    fitted: Tensor
    parallel: int = 1

    @torch.no_grad()
    def learn(self, levels: Sequence[float]) -> Lesson:
        """Fit the steps between levels: those of all calls, step by step, and the last level.

        Raises:
            ValueError: first levels of steps that do not fall, or beyond the range of the process.
        """
        field, z, count = self.noises.field, self.noises.z, self.parallel
        times = level_times(field.process, (*levels[:-1:count], levels[-1]))
        if count > 1:
            inner = field.process.time(-torch.tensor(levels[:-1], dtype=torch.float64))
            times = torch.cat([inner, times[-1:]])
        alphas = field.process.coefficients(times)[0].tolist()
        instants = field.instants(times[:-1])
        y = wide(from_normal(field, z, times[0])).flatten(1) / alphas[0]
        x0s: list[Tensor] = []
        table, nodes = [], []
        for i in range(0, len(instants), count):
            states, rows = [y], []
            for level in levels[i + 1 : i + count]:
                row = self._row(levels[i], y, x0s, self.teacher.at(level))
                rows.append((level, *row))
                states.append(_combined(row, y, x0s))
            fresh = []
            for k, state in enumerate(states, i):
                x = (state * alphas[k]).reshape(z.shape).to(z)
                fresh.append(self.noises.denoised(x, instants[k]).to(y.device))
            x0s = [*fresh, *x0s]
            last = i + count == len(instants)
            # without a level at the data, x at the last level must be the data
            end = self.teacher.end[:, self.chosen] / alphas[-1] if last else None
            target = self.teacher.at(levels[i + count]) if end is None else end
            table.append(self._row(levels[i], y, x0s, target))
            nodes.append(tuple(rows))
            y = _combined(table[-1], y, x0s)
        error = distances(y * alphas[-1], self.teacher.end)
        solver = Fitted(
            (*levels[:-1:count], levels[-1]), tuple(table), tuple(nodes) if count > 1 else ()
        )
        return Lesson(solver, error)

    def _row(
        self, level: float, y: Tensor, x0s: Sequence[Tensor], target: Tensor
    ) -> tuple[float, ...]:
        """Return the row of (1) in a table of `Fitted`."""
        of_y, *of_x0 = self._weights(level, y, x0s, target)
        return of_y, *(number for w in of_x0 for number in (w, 0.0))

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


def _combined(row: Sequence[float], y: Tensor, x0s: Sequence[Tensor]) -> Tensor:
    """Return the combination of a state and data estimates by a row of a table of `Fitted`."""
    result = row[0] * y
    for w, x0 in zip(row[1::2], x0s, strict=True):
        result.add_(x0, alpha=w)
    return result


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
