r"""All the steps of a fitted solver moved together, by the gradient through the field's calls.

The closed-form fit makes one step after another the best it can be; what is best for the last state
is not quite that. Here the mean distance at the end is a function of all coefficients of state and
data estimates, and L-BFGS goes down it.

Reference: Liu and Nocedal (1989), On the limited memory BFGS method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.field import Instant
from scorefield.sampling import Plan, from_normal
from scorefield.solvers import Fitted
from scorefield.tuning.noises import Noises, distances
from scorefield.tuning.student import Student


def polished(student: Student, solver: Fitted, rounds: int) -> Fitted:
    """Return the steps that ``rounds`` of L-BFGS make of a solver's, or those that it had.

    They are moved by the noises that the student sees, and kept if those that it does not see end
    nearer. Each round is about one evaluation with gradient of all the calls.
    """
    noises = student.noises.where(student.seen)
    end = student.teacher.end[student.seen]
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
    found = walk.moved([step.detach() for step in moved])
    left = student.noises.where(~student.seen)
    wanted = student.teacher.end[~student.seen]
    plans = (Plan(s, s.times(left.field.process), finish=False) for s in (solver, found))
    before, after = (float(distances(left.carried(plan), wanted).mean()) for plan in plans)
    return found if after < before else solver


class _Walk:
    """A fitted solver's steps with their coefficients moved, in units that make them alike."""

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
        """How many there are."""
        return len(self.solver.table)

    def moved(self, moved: Sequence[Tensor]) -> Fitted:
        """Return the solver with its coefficients moved."""
        table = []
        for row, step, unit in zip(self.solver.table, moved, self.units, strict=True):
            changed = list(row)
            for place, change in zip([0, *range(1, len(row), 2)], step / unit, strict=True):
                changed[place] += float(change)
            table.append(tuple(changed))
        return Fitted(self.solver.levels, tuple(table))

    def end(self, moved: Sequence[Tensor], place: slice) -> Tensor:
        """Return the data that some of the noises become, ``(N, d)``, with a gradient."""
        z = self.noises.z[place]
        y = from_normal(self.noises.field, z, self.first).flatten(1).double() / self.alphas[0]
        found: list[tuple[Tensor, Tensor]] = []
        rows = zip(self.solver.table, moved, self.units, self.instants, self.alphas, strict=False)
        for row, step, unit, at, alpha in rows:
            seen = (y * alpha).reshape(z.shape).to(z)
            estimate = self.noises.field(seen, at, **self.noises.conditions_of(place))
            pair = estimate.x0.flatten(1).double(), estimate.eps.flatten(1).double()
            found.insert(0, pair)
            change = (step / unit).to(y)
            y = (row[0] + change[0]) * y
            for j, (x0, eps) in enumerate(found):
                y = y + (row[1 + 2 * j] + change[1 + j]) * x0 + row[2 + 2 * j] * eps
        ends: Tensor = y * self.alphas[-1]
        return ends
