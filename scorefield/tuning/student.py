r"""Steps between given noise levels, fitted to the paths of a teacher.

In ``y = x / alpha``, step by step: the step of a general rule, and on top what ridge least squares
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

from scorefield.process import Process
from scorefield.sampling import from_normal
from scorefield.solvers import Fitted, Level, Multistep, Past, level_times
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.teacher import Teacher

_RIDGE = 1e-8  # of the mean of the diagonal
_ROUNDS, _LEAST = 4, 1e-3  # of least squares, and the least distance told from none, to the mean


class Lesson(NamedTuple):
    """Steps that were fitted, and the distance of each noise's end from the teacher's, ``(N,)``."""

    solver: Fitted
    error: Tensor


@dataclass(frozen=True)
class Student:
    """What steps are fitted with.

    Attributes:
        noises: where the paths begin.
        teacher: the paths.
        chosen: the coordinates that the teacher keeps and the regression sees, ``(M,)``.
        seen: which of the noises the regression sees, ``(N,)`` of truth values.
        rule: the rule of (1).
    """

    noises: Noises
    teacher: Teacher
    chosen: Tensor
    seen: Tensor
    rule: Multistep

    @torch.no_grad()
    def learn(self, levels: Sequence[float]) -> Lesson:
        """Fit the steps between levels.

        Raises:
            ValueError: levels that do not fall, or that the process does not reach.
        """
        field, z = self.noises.field, self.noises.z
        times = level_times(field.process, levels)
        alphas = field.process.coefficients(times)[0].tolist()
        y = from_normal(field, z, times[0]).flatten(1).double() / alphas[0]
        x0s: list[Tensor] = []
        epss: list[Tensor] = []
        table = []
        for i, at in enumerate(field.instants(times[:-1])):
            x0, eps = self.noises.estimates((y * alphas[i]).reshape(z.shape).to(z), at)
            x0s.insert(0, x0)
            epss.insert(0, eps)
            of_y, pairs = self._rule_step(field.process, times, alphas, i)
            step = of_y * y
            for (b, c), x0, eps in zip(pairs, x0s, epss, strict=False):
                step.add_(x0, alpha=b).add_(eps, alpha=c)
            last = i + 2 == len(levels)
            # without a level at the data, x itself is to be the data at the last one
            end = self.teacher.end[:, self.chosen] / alphas[-1] if last else None
            wanted = self.teacher.at(levels[i + 1]) if end is None else end
            more, *of_x0 = self._weights(levels[i], y, x0s, wanted, step)
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
        kept = range(max(0, i - self.rule.history_length), i)
        t, s, *past = (Level(process, times[k : k + 1]) for k in (i, i + 1, *reversed(kept)))
        end = self.rule.rule(t, s, Past(tuple(past)), False).end
        assert end is not None  # it makes one call a step
        pairs = [(float(b) / alphas[i + 1], float(c) / alphas[i + 1]) for b, c in end.means]
        return float(end.x) * alphas[i] / alphas[i + 1], pairs

    def _weights(
        self, level: float, y: Tensor, x0s: Sequence[Tensor], wanted: Tensor, step: Tensor
    ) -> list[float]:
        """Return ``w_0, w_1, ...`` of (1), by the noises and coordinates that are seen."""

        def seen(v: Tensor) -> Tensor:
            return v[self.seen][:, self.chosen].double()

        unit = self.teacher.data_std
        units = [math.hypot(math.exp(level), unit), *[unit] * len(x0s)]
        columns = torch.stack([seen(v) / u for v, u in zip((y, *x0s), units, strict=True)], -1)
        weights = _ridge(columns, wanted[self.seen] - seen(step)).tolist()
        return [w / u for w, u in zip(weights, units, strict=True)]


def _ridge(columns: Tensor, wanted: Tensor) -> Tensor:
    """Return the weights ``(k,)`` that bring ``columns`` ``(N, d, k)`` nearest to ``wanted``.

    The mean distance over the ``N`` is made least, not that of squares, which the few paths that
    fork between modes would rule: by least squares, reweighted with the distances left.
    """
    share = torch.ones_like(wanted[:, 0])
    for _ in range(_ROUNDS):
        gram = torch.einsum("n,ndi,ndj->ij", share, columns, columns)
        right = torch.einsum("n,ndi,nd->i", share, columns, wanted)
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        weights: Tensor = torch.linalg.solve(gram + ridge, right)
        left = (wanted - columns @ weights).norm(dim=1)
        share = 1 / (left + _LEAST * left.mean()).clamp(min=torch.finfo(left.dtype).tiny)
        share = share / share.mean()
    return weights
