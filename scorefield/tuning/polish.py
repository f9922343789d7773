r"""All steps of a fitted solver improved together, by the gradient through the field's calls.

The closed-form fit makes each step the best one in itself. That is not quite the best for the last
state. Here the mean distance at the end is a function of all coefficients of states and data
estimates, and L-BFGS minimizes it.

Reference: Liu and Nocedal (1989), On the limited memory BFGS method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.field import Instant
from scorefield.process import wide
from scorefield.sampling import Plan, from_normal
from scorefield.solvers import Fitted
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.student import Student


def polished(student: Student, solver: Fitted, rounds: int) -> Fitted:
    """Return a solver's steps after ``rounds`` of L-BFGS, or the solver if they are not better.

    The gradient is of the noises that the student is fitted to; the others decide whether the new
    steps are better. Each round costs about one evaluation, with gradient, of all calls.
    """
    noises = student.noises.where(student.fitted)
    end = student.teacher.end[student.fitted]
    walk = _Walk(noises, solver, student.teacher.data_std)
    moved = [torch.zeros(i + 2, dtype=torch.float64, requires_grad=True) for i in range(walk.steps)]
    optimizer = torch.optim.LBFGS(moved, max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for place in noises.places():
            y = walk.end(moved, place)
            loss = distances(y, end[place]).sum() / len(noises)
            loss.backward(inputs=moved)  # type: ignore[no-untyped-call]
            total += loss.detach().cpu()
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    result = walk.moved([step.detach() for step in moved])
    others = student.noises.where(~student.fitted)
    target = student.teacher.end[~student.fitted]
    plans = (Plan(s, s.times(others.field.process), finish=False) for s in (solver, result))
    before, after = (float(distances(others.carried(plan), target).mean()) for plan in plans)
    return result if after < before else solver


class _Walk:
    """A fitted solver's steps with changed coefficients, in units of similar size."""

    def __init__(self, noises: Noises, solver: Fitted, data_std: float) -> None:
        process = noises.field.process
        times = solver.times(process)
        self.noises, self.solver, self.first = noises, solver, times[0]
        self.instants: Sequence[Instant] = noises.field.instants(times[:-1])
        self.alphas = process.coefficients(times)[0].tolist()
        sizes = [math.hypot(math.exp(level), data_std) for level in solver.levels[:-1]]
        self.units = [torch.tensor([size, *[data_std] * (i + 1)]) for i, size in enumerate(sizes)]

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.solver.table)

    def moved(self, moved: Sequence[Tensor]) -> Fitted:
        """Return the solver with changed coefficients."""
        table = []
        for row, step, unit in zip(self.solver.table, moved, self.units, strict=True):
            changed = list(row)
            for place, change in zip([0, *range(1, len(row), 2)], step / unit, strict=True):
                changed[place] += float(change)
            table.append(tuple(changed))
        return Fitted(self.solver.levels, tuple(table))

    def end(self, moved: Sequence[Tensor], place: slice) -> Tensor:
        """Return the samples of some of the noises, ``(N, d)``, with a gradient."""
        z = self.noises.z[place]
        y = wide(from_normal(self.noises.field, z, self.first)).flatten(1) / self.alphas[0]
        estimates: list[tuple[Tensor, Tensor]] = []
        rows = zip(self.solver.table, moved, self.units, self.instants, self.alphas, strict=False)
        for row, step, unit, at, alpha in rows:
            x = (y * alpha).reshape(z.shape).to(z)
            estimate = self.noises.field(x, at, **self.noises.conditions_of(place))
            pair = wide(estimate.x0).flatten(1), wide(estimate.eps).flatten(1)
            estimates.insert(0, pair)
            change = (step / unit).to(y)
            y = (row[0] + change[0]) * y
            for j, (x0, eps) in enumerate(estimates):
                y = y + (row[1 + 2 * j] + change[1 + j]) * x0 + row[2 + 2 * j] * eps
        ends: Tensor = y * self.alphas[-1]
        return ends
