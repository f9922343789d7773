r"""Levels and steps of a fitted solver improved together, by the Gauss-Newton method.

The closed-form fit makes each step the best one in itself, from a state of the noise level at which
the field is called. Neither is quite the best for the last state. Here the mean distance at the end
is a function of all levels ``l_i``, and of all coefficients of states and data estimates::

    x0_i, eps_i = field(alpha(l_i) y_i, l_i)                                        (1)
    y_{i+1} = a_i y_i + sum_j (b_ij x0_j + c_ij eps_j)                              (2)

``l_i`` is the noise level that the network is given. As (2) may combine all estimates, ``y_i`` need
not have the noise of that level, so the two are free of each other. In these variables (1) is the
same function for every process and parametrization. Further calls of a step have levels and rows of
their own, as in `Fitted`.

The derivatives ``J`` of the ends are differences, so the field need not be differentiable. With
``w_n`` the inverse of the distance ``|e_n|`` of a sample from the end of its path, an iteration
solves::

    (J' w J + lambda diag(J' w J)) change = -J' w e                                 (3)

and keeps the change if the mean distance is smaller; else it raises ``lambda`` and solves again.

Reference: Marquardt (1963), SIAM Journal on Applied Mathematics 11; Tong et al. (2024),
arXiv:2405.15506 (levels of the network apart from those of the states).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.process import wide
from scorefield.sampling import Plan
from scorefield.solvers import Fitted
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.student import Student
from scorefield.tuning.walk import Walk, nodes_of

_LEAST = 1e-3  # the smallest distance that a weight depends on, relative to the mean
_RIDGE = 1e-6  # of the correlations
_TRIES = 6  # of lambda in an iteration
_SHARE = 8  # the part of the iterations for each solver to begin from
_GAIN = 2e-3  # of an iteration; a smaller one is the last
_CALLS = 4600  # of a noise in the default number of iterations


def polished(
    student: Student,
    solvers: Sequence[Fitted],
    iterations: int,
    progress: Callable[[float], None] = lambda error: None,
    first: float | None = None,
) -> Fitted:
    """Return the best steps after iterations of (3), or one of the solvers if that is better.

    Each solver has an eighth of the iterations, and the best one of these has the remaining ones.
    They use the noises that the student is fitted to; the others decide which steps are the best.
    An iteration costs `iteration_calls` evaluations.

    Args:
        solvers: to begin from.
        progress: called after each iteration, with the error so far.
        first: the first level, if it does not change.
    """
    own, others = (_Ends.of(student, mask) for mask in (student.fitted, ~student.fitted))
    share = iterations // _SHARE
    starts = (_Descent(own, solver, own.error(solver), first) for solver in solvers)
    walks = [start.run(share, progress) for start in starts]
    best = min(walks, key=lambda walk: walk.error).run(iterations - share * len(walks), progress)
    return min([*solvers, best.solver], key=others.error)


@dataclass
class _Descent:
    """Iterations of (3) from a solver."""

    ends: _Ends
    solver: Fitted
    error: float
    first: float | None
    damping: float = 1e-3

    def run(self, iterations: int, progress: Callable[[float], None]) -> _Descent:
        for _ in range(iterations):
            before = self.error
            self._iterate()
            progress(self.error)
            if self.error > (1 - _GAIN) * before:
                break
        return self

    def _iterate(self) -> None:
        gram, right, units = self.ends.equations(self.solver)
        for _ in range(_TRIES):
            ridge = self.damping * gram.diagonal() + _RIDGE**2 * gram.diagonal().mean()
            change = torch.linalg.solve(gram + ridge.diag(), -right)
            moved = _moved(self.solver, change.tolist(), units, self.first)
            after = math.inf if moved is None else self.ends.error(moved)
            if moved is not None and after < self.error:
                self.solver, self.error = moved, after
                self.damping /= 4
                return
            self.damping *= 8


def usual_iterations(nfe: int, rounds: int) -> int:
    """Return the default number of iterations: 32, and fewer for many calls, down to 2."""
    return max(2, min(32, _CALLS // iteration_calls(nfe, rounds)))


def iteration_calls(nfe: int, rounds: int) -> int:
    """Return the evaluations of a sample in an iteration, for two tries of ``lambda``."""
    calls, total = nfe // rounds, 2 * nfe
    for i in range(rounds):
        rest = calls * (rounds - 1 - i)  # calls after the step
        own = calls + (calls - 1) * (1 + calls * i)  # levels, and coefficients of states
        total += calls + own * (1 + rest) + (1 + calls * (i + 1)) * rest
    return total + calls - 1


@dataclass(frozen=True)
class _Ends:
    """Noises and the ends of their exact paths."""

    noises: Noises
    end: Tensor

    @classmethod
    def of(cls, student: Student, mask: Tensor) -> _Ends:
        return cls(student.noises.where(mask), student.teacher.end[mask])

    def error(self, solver: Fitted) -> float:
        """Return the mean distance, or infinity for levels beyond the process."""
        try:
            times = solver.times(self.noises.field.process)
            x = self.noises.carried(Plan(solver, times, finish=False))
        except ValueError:
            return math.inf
        error = distances(x, self.end).mean()
        return float(error) if error.isfinite() else math.inf

    @torch.no_grad()
    def equations(self, solver: Fitted) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return ``J' w J``, ``J' w e`` and the directions in which coefficients are changed."""
        units: list[Tensor] = []
        walk = Walk(self.noises, solver)
        gram = right = torch.zeros((), dtype=torch.float64)
        for place in self.noises.places():
            end, columns = walk.derivatives(place, units)
            rest = end - self.end[place]
            size = rest.norm(dim=1)
            share = 1 / (size + _LEAST * size.mean()).clamp(min=torch.finfo(size.dtype).tiny)
            for weight, row, one in zip(share, torch.stack(columns, -1), rest, strict=True):
                slope = wide(row)
                gram = gram + (weight * (slope.T @ slope)).cpu()
                right = right + (weight * (one @ slope)).cpu()
        return gram, right, units


def _moved(
    solver: Fitted, change: Sequence[float], units: Sequence[Tensor], first: float | None
) -> Fitted | None:
    """Return a solver with changed levels and coefficients; None if its levels do not fall."""
    levels, table, nodes = [], [], []
    numbers, directions = iter(change), iter(units)

    def moved(row: Sequence[float]) -> tuple[float, ...]:
        unit, result = next(directions), list(row)
        amounts = unit @ torch.tensor(list(itertools.islice(numbers, len(unit)))).to(unit)
        for place, amount in zip([0, *range(1, len(row), 2)], amounts.tolist(), strict=True):
            result[place] += amount
        return tuple(result)

    for level, row, further in zip(solver.levels, solver.table, nodes_of(solver), strict=False):
        levels.append(level + next(numbers))
        nodes.append(tuple((at + next(numbers), *moved(rest)) for at, *rest in further))
        table.append(moved(row))
    levels = [levels[0] if first is None else first, *levels[1:], solver.levels[-1]]
    falling = all(a > b for a, b in itertools.pairwise(levels))
    if not falling:
        return None
    return Fitted(tuple(levels), tuple(table), tuple(nodes) if solver.nodes else ())
