r"""Steps between given noise levels, fitted to the paths of a teacher.

In ``y = x / alpha``, each step is that of a general rule plus a correction. The correction is a
ridge regression on the state and all data estimates so far, towards the teacher's path at the next
level::

    y_{i+1} = rule(y_i, x0, eps) + w_0 y_i + sum_j w_j x0_j                         (1)

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

from scorefield.process import Process, wide
from scorefield.sampling import from_normal
from scorefield.solvers import Fitted, Level, Multistep, Past, level_times
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
        rule: the rule of (1).
    """

    noises: Noises
    teacher: Teacher
    chosen: Tensor
    fitted: Tensor
    rule: Multistep

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
        epss: list[Tensor] = []
        table = []
        for i, at in enumerate(field.instants(times[:-1])):
            x = (y * alphas[i]).reshape(z.shape).to(z)
            x0, eps = (v.to(y.device) for v in self.noises.estimates(x, at))
            x0s.insert(0, x0)
            epss.insert(0, eps)
            of_y, pairs = self._rule_step(field.process, times, alphas, i)
            step = of_y * y
            for (b, c), x0, eps in zip(pairs, x0s, epss, strict=False):
                step.add_(x0, alpha=b).add_(eps, alpha=c)
            last = i + 2 == len(levels)
            # without a level at the data, x at the last level must be the data
            end = self.teacher.end[:, self.chosen] / alphas[-1] if last else None
            target = self.teacher.at(levels[i + 1]) if end is None else end
            more, *of_x0 = self._weights(levels[i], y, x0s, target, step)
            y = step.add_(y, alpha=more)
            for w, x0 in zip(of_x0, x0s, strict=True):
                y.add_(x0, alpha=w)
            pairs += [(0.0, 0.0)] * (len(x0s) - len(pairs))
            row = [of_y + more]
            for (b, c), w in zip(pairs, of_x0, strict=True):
                row += [b + w, c]
            table.append(tuple(row))
        error = distances(y * alphas[-1], self.teacher.end)
        return Lesson(Fitted(tuple(levels), tuple(table)), error)

    def _rule_step(
        self, process: Process, times: Tensor, alphas: Sequence[float], i: int
    ) -> tuple[float, list[tuple[float, float]]]:
        """Return the coefficients of the rule's step: of ``y``, and of both means, newest first."""
        numbers = range(max(0, i - self.rule.history_length), i)
        places = (times[k : k + 1] for k in (i, i + 1, *reversed(numbers)))
        t, s, *past = (Level(process, at, *process.coefficients(at)) for at in places)
        end = self.rule.rule(t, s, Past(tuple(past)), False).end
        assert end is not None  # it makes one call a step
        pairs = [(float(b) / alphas[i + 1], float(c) / alphas[i + 1]) for b, c in end.means]
        return float(end.x) * alphas[i] / alphas[i + 1], pairs

    def _weights(
        self, level: float, y: Tensor, x0s: Sequence[Tensor], target: Tensor, step: Tensor
    ) -> list[float]:
        """Return ``w_0, w_1, ...`` of (1), from the noises and coordinates of the regression."""

        def rows(v: Tensor) -> Tensor:
            return v[self.fitted][:, self.chosen].double()

        unit = self.teacher.data_std
        units = [math.hypot(math.exp(level), unit), *[unit] * len(x0s)]
        columns = torch.stack([rows(v) / u for v, u in zip((y, *x0s), units, strict=True)], -1)
        weights = _ridge(columns, target[self.fitted] - rows(step)).tolist()
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
