r"""Steps between given noise levels, fitted to the paths of a teacher.

In ``y = x / alpha``, step by step: what a general rule gives, and on top what ridge least squares
makes of the state and of all estimates of the data so far, to meet the teacher's path at the next
level::

    y_{i+1} = rule(y_i, x0, eps) + w_0 y_i + sum_j w_j x0_j                         (1)

The walk goes on from the state that (1) makes, so that later steps repair what earlier ones left.
No gradient goes through the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import Process
from scorefield.sampling import from_normal
from scorefield.solvers import Multistep
from scorefield.solvers.fitted import Fitted, level_times
from scorefield.solvers.linear import Past
from scorefield.tuning.teacher import Teacher

_RIDGE = 1e-6  # of the mean of the diagonal


class Lesson(NamedTuple):
    """Steps that were fitted, and the distance of each noise's end from the teacher's, ``(N,)``."""

    solver: Fitted
    error: Tensor


@dataclass(frozen=True)
class Student:
    """What steps are fitted with.

    Attributes:
        field: to fit to.
        noise: standard normal, ``(N, *shape)``.
        teacher: its paths.
        seen: which of the noises the regression sees, ``(N,)`` of truth values.
        rule: the general rule of (1).
    """

    field: ScoreField
    noise: Tensor
    teacher: Teacher
    seen: Tensor
    rule: Multistep

    @torch.no_grad()
    def learn(self, levels: Sequence[float]) -> Lesson:
        """Fit the steps between levels.

        Raises:
            ValueError: levels that do not fall, or that the process does not reach.
        """
        process, shape = self.field.process, self.noise.shape
        times = level_times(process, levels)
        alphas = process.coefficients(times)[0].tolist()
        start = from_normal(self.field, self.noise, times[0])
        y = start.flatten(1).double() / alphas[0]
        x0s: list[Tensor] = []
        epss: list[Tensor] = []
        table = []
        for i, level in enumerate(levels[:-1]):
            found = self.field((y * alphas[i]).reshape(shape).to(self.noise), times[i])
            x0s.insert(0, found.x0.flatten(1).double())
            epss.insert(0, found.eps.flatten(1).double())
            of_y, pairs = self._general(process, times, alphas, i)
            step = of_y * y
            for (b, c), x0, eps in zip(pairs, x0s, epss, strict=False):
                step = step + b * x0 + c * eps
            wanted = self.teacher.end if i + 2 == len(levels) else self.teacher.at(levels[i + 1])
            size, unit = math.hypot(math.exp(level), self.teacher.data_std), self.teacher.data_std
            columns = torch.stack([y / size, *(x0 / unit for x0 in x0s)], -1)
            more, *of_x0 = _ridge(columns[self.seen], (wanted - step)[self.seen]).tolist()
            y = step + more / size * y
            for w, x0 in zip(of_x0, x0s, strict=True):
                y = y + w / unit * x0
            pairs += [(0.0, 0.0)] * (len(x0s) - len(pairs))
            row = [of_y + more / size]
            for (b, c), w in zip(pairs, of_x0, strict=True):
                row += [b + w / unit, c]
            table.append(tuple(row))
        error = (y - self.teacher.end).norm(dim=1) / math.sqrt(y.shape[1])
        return Lesson(Fitted(tuple(levels), tuple(table)), error)

    def _general(
        self, process: Process, times: Tensor, alphas: Sequence[float], i: int
    ) -> tuple[float, list[tuple[float, float]]]:
        """Return the coefficients of the rule's step: of ``y``, and of both means, newest first."""
        kept = range(max(0, i - self.rule.history), i)
        past = Past(tuple(times[k : k + 1] for k in reversed(kept)))
        end = self.rule.rule(process, times[i : i + 1], times[i + 1 : i + 2], past, False).end
        assert end is not None  # it makes one call a step
        pairs = [(float(b) / alphas[i + 1], float(c) / alphas[i + 1]) for b, c in end.means]
        return float(end.x) * alphas[i] / alphas[i + 1], pairs


def _ridge(columns: Tensor, wanted: Tensor) -> Tensor:
    """Return the weights ``(k,)`` that bring ``columns`` ``(N, d, k)`` nearest to ``wanted``."""
    gram = torch.einsum("ndi,ndj->ij", columns, columns)
    right = torch.einsum("ndi,nd->i", columns, wanted)
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights: Tensor = torch.linalg.solve(gram + ridge.to(gram.device), right)
    return weights
