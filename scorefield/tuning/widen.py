r"""From steps of one call each to steps of several calls at once.

The further calls of a step lie between its level and the next one, evenly in their logarithm. Two
fits begin there. One has the steps as they are, with weights of 0 for the new estimates, so it is
as good as they are. The other has new steps, fitted in closed form by a `Student`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch

from scorefield.solvers import Fitted
from scorefield.tuning.student import Student

_ROOM = 0.1  # of log(sigma / alpha), below the last level


def widened(student: Student, solver: Fitted) -> list[Fitted]:
    """Return the steps of ``solver`` with `Student.parallel` calls, as they are and fitted anew."""
    fitted = student.learn(_levels(student, solver)).solver
    zeros = (0.0, 0.0) * (student.parallel - 1)
    table = tuple(
        (of_y, *itertools.chain(*((b, c, *zeros) for b, c in zip(r[::2], r[1::2], strict=True))))
        for of_y, *r in solver.table
    )
    return [replace(fitted, table=table), fitted]


def _levels(student: Student, solver: Fitted) -> tuple[float, ...]:
    """Return the levels of all calls, and the last level."""
    *own, last = solver.levels
    lowest = -student.noises.field.process.half_log_snr_range[1]
    mean = (own[0] - own[-1]) / max(1, len(own) - 1)
    below = min(mean, own[-1] - lowest)
    end = own[-1] - below if below > _ROOM else own[-2]
    shares = torch.arange(student.parallel) / student.parallel
    steps = zip(own, [*own[1:], end], strict=True)
    return (*(float(a + (b - a) * share) for a, b in steps for share in shares), last)
