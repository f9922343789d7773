r"""Calls inserted into fitted steps, so that a search can begin at a plan of fewer calls.

A call in the step from ``y_i`` to ``y_{i+1}`` has a level ``l`` between theirs, and its state is on
the chord, with ``r = e^l``::

    y = (1 - s) y_i + s y_{i+1},    s = (r_i - r) / (r_i - r_{i+1})                         (1)

The next step leads from there to the same ``y_{i+1}`` as before. So the call changes nothing until
its estimate has a weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from scorefield.solvers import Fitted
from scorefield.tuning.student import Student

_ROOM = 0.1  # of log(sigma / alpha), below the last level
_LEAST = 1e-3  # the smallest weight of y_i in (1)


def lengthened(student: Student, solver: Fitted, calls: int) -> list[Fitted]:
    """Return ``calls`` steps with the same end as those of ``solver``, or none without room.

    Calls are inserted one after another, each where `Student.learn` has the least error.
    """
    while len(solver.table) < calls:
        longer = list(_longer(student, solver))
        if not longer:
            return []
        solver = min(longer, key=lambda each: _error(student, each))
    return [solver]


def insertion_calls(least: int, most: int) -> int:
    """Return the largest number of evaluations of a sample in `lengthened`."""
    return sum(calls * (calls + 1) for calls in range(least, most))


def _error(student: Student, solver: Fitted) -> float:
    error = float(student.learn(solver.levels).error[~student.fitted].mean())
    return error if math.isfinite(error) else math.inf


def _longer(student: Student, solver: Fitted) -> Iterator[Fitted]:
    """Yield the steps with a call inserted into each of them where it can be."""
    *own, last = solver.levels
    if last == -math.inf:  # as if the last step were twice as long as the one before
        lowest = -student.noises.field.process.half_log_snr_range[1]
        last = max(own[-1] - 2 * (own[-2] - own[-1]), lowest)
    for i, (level, end) in enumerate(zip(own, [*own[1:], last], strict=True)):
        if level - end > _ROOM and (longer := _inserted(solver, i, (level + end) / 2)) is not None:
            yield longer


def _inserted(solver: Fitted, i: int, level: float) -> Fitted | None:
    """Return the steps with a call in step ``i``; None if (1) hardly depends on ``y_i``."""
    start, middle, end = (math.exp(v) for v in (solver.levels[i], level, solver.levels[i + 1]))
    s = (start - middle) / (start - end)
    of_y, *rest = solver.table[i]
    own = 1 - s + s * of_y
    if abs(own) < _LEAST:
        return None
    first = (own, *(s * w for w in rest))
    second = (of_y / own, 0.0, 0.0, *((1 - s * of_y / own) * w for w in rest))
    table = [*solver.table[:i], first, second]
    for k, row in enumerate(solver.table[i + 1 :]):
        place = 3 + 2 * k  # after a_j and the estimates that are newer than the call
        table.append((*row[:place], 0.0, 0.0, *row[place:]))
    levels = (*solver.levels[: i + 1], level, *solver.levels[i + 1 :])
    return Fitted(levels, tuple(table))
