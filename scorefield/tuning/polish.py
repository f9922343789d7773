r"""Levels and steps of a fitted solver improved together, by the Gauss-Newton method.

The closed-form fit makes each step the best one in itself, from a state of the noise level at which
the field is called. Neither is quite the best for the last state. Here the mean distance at the end
is a function of all levels ``l_i``, and of all coefficients of states and data estimates::

    x0_i, eps_i = field(alpha(l_i) y_i, l_i)                                        (1)
    y_{i+1} = a_i y_i + sum_j (b_ij x0_j + c_ij eps_j)                              (2)

``l_i`` is the noise level that the network is given. As (2) may combine all estimates, ``y_i`` need
not have the noise of that level, so the two are free of each other. In these variables (1) is the
same function for every process and parametrization.

The derivatives ``J`` of the ends are differences, so the field need not be differentiable. With
``w_n`` the inverse of the distance ``|e_n|`` of a sample from the end of its path, a round solves::

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

from scorefield.field import Instant
from scorefield.process import wide
from scorefield.sampling import Plan, from_normal
from scorefield.solvers import Fitted
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.student import Student

_H = 0.01  # of the differences: in log(sigma / alpha), and of the root mean square of the state
_LEAST = 1e-3  # the smallest distance that a weight depends on, relative to the mean
_RIDGE = 1e-6  # of the correlations
_TRIES = 6  # of lambda in a round
_SHARE = 8  # the part of the rounds for each solver to begin from
_GAIN = 2e-3  # of a round; a smaller one is the last
_CALLS = 4600  # of a noise in the default number of rounds

Pairs = tuple[tuple[Tensor, Tensor], ...]


def polished(
    student: Student,
    solvers: Sequence[Fitted],
    rounds: int,
    progress: Callable[[float], None] = lambda error: None,
    first: float | None = None,
) -> Fitted:
    """Return the best steps after ``rounds`` of (3), or the first solver if they are not better.

    Each solver has an eighth of the rounds, and the best one of these has the remaining rounds. The
    rounds use the noises that the student is fitted to; the others decide whether the new steps are
    better. A round costs `round_calls` evaluations.

    Args:
        solvers: to begin from.
        progress: called after each round, with the error so far.
        first: the first level, if it does not change.
    """
    own, others = (_Ends.of(student, mask) for mask in (student.fitted, ~student.fitted))
    share = rounds // _SHARE
    starts = (_Descent(own, solver, own.error(solver), first) for solver in solvers)
    walks = [start.run(share, progress) for start in starts]
    best = min(walks, key=lambda walk: walk.error).run(rounds - share * len(walks), progress)
    begin, end = solvers[0], best.solver
    return end if others.error(end) < others.error(begin) else begin


@dataclass
class _Descent:
    """Rounds of (3) from a solver."""

    ends: _Ends
    solver: Fitted
    error: float
    first: float | None
    damping: float = 1e-3

    def run(self, rounds: int, progress: Callable[[float], None]) -> _Descent:
        for _ in range(rounds):
            before = self.error
            self._round()
            progress(self.error)
            if self.error > (1 - _GAIN) * before:
                break
        return self

    def _round(self) -> None:
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


def usual_rounds(nfe: int) -> int:
    """Return the default number of rounds: 32, and fewer for many calls, down to 2."""
    return max(2, min(32, _CALLS // round_calls(nfe)))


def round_calls(nfe: int) -> int:
    """Return the evaluations of a sample in a round, for two tries of ``lambda``."""
    steps = range(nfe)
    return sum((i + 2) * (nfe - 1 - i) + nfe - i for i in steps) + 3 * nfe


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
        except ValueError:
            return math.inf
        error = distances(self.noises.carried(Plan(solver, times, finish=False)), self.end).mean()
        return float(error) if error.isfinite() else math.inf

    @torch.no_grad()
    def equations(self, solver: Fitted) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return ``J' w J``, ``J' w e`` and the directions in which coefficients are changed."""
        units: list[Tensor] = []
        walk = _Walk(self.noises, solver)
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
    levels, table, numbers = [], [], iter(change)
    for level, row, unit in zip(solver.levels, solver.table, units, strict=False):
        levels.append(level + next(numbers))
        amounts = unit @ torch.tensor(list(itertools.islice(numbers, len(unit)))).to(unit)
        moved = list(row)
        for place, amount in zip([0, *range(1, len(row), 2)], amounts.tolist(), strict=True):
            moved[place] += amount
        table.append(tuple(moved))
    levels = [levels[0] if first is None else first, *levels[1:], solver.levels[-1]]
    falling = all(a > b for a, b in itertools.pairwise(levels))
    return Fitted(tuple(levels), tuple(table)) if falling else None


class _Walk:
    """The steps of a fitted solver, with the derivatives of their end."""

    def __init__(self, noises: Noises, solver: Fitted) -> None:
        self.noises, self.table = noises, solver.table
        field, process = noises.field, noises.field.process
        times = solver.times(process)
        self.alpha_end = float(process.coefficients(times[-1])[0])
        self.instants = field.instants(times[:-1])
        near = (process.half_log_snr(times[:-1]) + _H).clamp(max=process.half_log_snr_range[1])
        self.near = field.instants(process.time(near))

    def derivatives(self, place: slice, units: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the samples ``(N, d)`` and their derivatives, by step: by level and coefficients.

        Fills ``units``, the directions of the coefficients, if they are empty.
        """
        y, pairs = self._first(place, self.instants[0]), Pairs()
        ends, fresh = [], not units
        for i, (at, near) in enumerate(zip(self.instants, self.near, strict=True)):
            begin = self._first(place, near) if i == 0 else y
            shifted = (self._call(place, begin, near), *pairs)
            width = math.log(at.sigma / at.alpha) - math.log(near.sigma / near.alpha)
            ends.append((self._end(place, i, begin, shifted), -max(width, 1e-9)))
            pairs = (self._call(place, y, at), *pairs)
            columns = torch.stack([y, *(x0 for x0, _ in pairs)], -1)
            if fresh:
                units.append(_uncorrelated(columns))
            y = self._step(i, y, pairs)
            for unit in units[i].T:
                moved = y + _H * (columns @ unit.to(y))
                ends.append((self._rest(place, i + 1, moved, pairs), _H))
        y = y * self.alpha_end
        return y, [((end - y) / h).float() for end, h in ends]

    def _first(self, place: slice, at: Instant) -> Tensor:
        x = from_normal(self.noises.field, self.noises.z[place], at.t)
        result: Tensor = wide(x).flatten(1) / at.alpha
        return result

    def _call(self, place: slice, y: Tensor, at: Instant) -> tuple[Tensor, Tensor]:
        noises = self.noises
        x = (y * at.alpha).reshape(-1, *noises.field.shape).to(noises.z)
        estimate = noises.field(x, at, **noises.conditions_of(place))
        return wide(estimate.x0).flatten(1), wide(estimate.eps).flatten(1)

    def _step(self, i: int, y: Tensor, pairs: Pairs) -> Tensor:
        of_y, *rest = self.table[i]
        y = of_y * y
        for b, c, (x0, eps) in zip(rest[::2], rest[1::2], pairs, strict=True):
            y = y + b * x0 + c * eps
        return y

    def _end(self, place: slice, i: int, y: Tensor, pairs: Pairs) -> Tensor:
        """Return the samples from a state whose call is made."""
        return self._rest(place, i + 1, self._step(i, y, pairs), pairs)

    def _rest(self, place: slice, i: int, y: Tensor, pairs: Pairs) -> Tensor:
        """Return the samples from a state before its call."""
        for k in range(i, len(self.table)):
            pairs = (self._call(place, y, self.instants[k]), *pairs)
            y = self._step(k, y, pairs)
        end: Tensor = y * self.alpha_end
        return end


def _uncorrelated(columns: Tensor) -> Tensor:
    """Return combinations of columns ``(..., k)`` of unit size and without correlation, ``(k, k)``.

    The estimates along a path are nearly alike.
    """
    rows = columns.reshape(-1, columns.shape[-1])
    gram = (rows.T @ rows / len(rows)).cpu()
    size = gram.diagonal().sqrt()
    correlation = gram / (size[:, None] * size) + _RIDGE * torch.eye(len(gram)).to(gram)
    result: Tensor = torch.linalg.inv(torch.linalg.cholesky(correlation)).T / size[:, None]
    return result
