r"""Plans fitted to a field: the levels and the steps that a budget of calls is best spent on.

Some starting noises are followed finely to the data, by a `Teacher`. A `Student` then fits the
steps between given levels in closed form, and the levels are moved by Powell's method to the least
mean distance from the teacher's ends, of noises that had no part in the fit. Whether the plan is
better than the general one is decided by noises that had no part in either.

Reference: Powell (1964), The Computer Journal 7; Zhou et al. (2024), arXiv:2312.00094, and Xue et
al. (2024), arXiv:2402.17376, of levels fitted to a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from scorefield.errors import UsageError
from scorefield.field import ScoreField
from scorefield.grid import balanced, time_near
from scorefield.noise import TUNING, Noise
from scorefield.plan import Plan, default_plan
from scorefield.sampling import from_normal, prepare, template
from scorefield.solvers import Multistep, State
from scorefield.solvers.fitted import Fitted
from scorefield.tuning.student import Student
from scorefield.tuning.teacher import NODES, teach

_STARTS = [(q, f) for q in (3.0, 4.0, 5.0) for f in (0.3, 0.75, 2.0)]
_MOST = 200  # tries of levels


@dataclass(frozen=True)
class Tuned:
    """A plan that was fitted, and what it was measured to be worth.

    Attributes:
        plan: the fitted plan, or the general one where that is better.
        error: its mean distance from the exact path's end, of fresh noises, over sqrt(d).
        general: that of the general plan.
        teacher: that of the teacher, by one twice as fine.
    """

    plan: Plan
    error: float
    general: float
    teacher: float


def tune(
    field: ScoreField,
    nfe: int,
    *,
    noises: int | None = None,
    tries: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda error: None,
) -> Tuned:
    """Fit a plan of ``nfe`` calls to a field; the general one is kept where it is better.

    Costs about ``2 noises (nfe tries + 400)`` evaluations of single samples.

    Args:
        noises: that the steps are fitted to, and as many again to choose levels by, and to judge;
            from 64 to 512 by the dimension unless given.
        tries: of levels; 40 a call and at most 200 unless given.
        seed: determines the noises.
        progress: called after each try, with the least error so far.

    Raises:
        UsageError: SciPy is missing.
        ValueError: as `scorefield.default_plan`.
    """
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise UsageError("tuning needs SciPy: pip install 'scorefield[tune]'.") from None
    if not isinstance(nfe, Integral) or nfe < 2:
        raise ValueError(f"nfe = {nfe!r}: a plan needs a number of calls of the field, at least 2.")
    general = default_plan(field, nfe)
    assert isinstance(general.solver, Multistep)
    count = min(512, max(64, 4096 // math.prod(field.shape))) if noises is None else noises
    noise = _normal(field, 2 * count, seed)
    student = Student(
        field, noise, teach(field, noise), torch.arange(2 * count) % 2 == 0, general.solver
    )
    starts = _starts(field, general, nfe)
    search = _Search(student, starts[0][-1], progress)
    begin = min(starts, key=lambda levels: search.loss(_packed(levels)))
    minimize(
        search.loss,
        _packed(begin),
        method="Powell",
        options={
            "maxfev": min(40 * nfe, _MOST) if tries is None else tries,
            "xtol": 1e-3,
            "ftol": 1e-3,
        },
    )
    return _judged(field, search.best, general, count, seed)


class _Search:
    """The least error so far, and the steps that have it."""

    def __init__(self, student: Student, last: float, progress: Callable[[float], None]) -> None:
        self.student, self.last, self.progress = student, last, progress
        self.error, self.best = math.inf, Fitted((0.0, -math.inf), ((0.0, 0.0, 0.0),))

    def loss(self, packed: np.ndarray) -> float:
        """Return the error that the best steps between levels leave."""
        try:
            solver, errors = self.student.learn(_unpacked(packed, self.last))
        except ValueError:  # levels beyond the process
            return 1e9
        error = float(errors[~self.student.seen].mean())
        if not math.isfinite(error):
            return 1e9
        if error < self.error:
            self.error, self.best = error, solver
        self.progress(self.error)
        return error


def _normal(field: ScoreField, count: int, seed: int, first: int = 0) -> Tensor:
    like = template(field)
    ids = torch.arange(first, first + count, device=like.device)
    return Noise(seed, ids, stream=TUNING).draw(field.shape, like)[0]


def _starts(field: ScoreField, general: Plan, nfe: int) -> list[list[float]]:
    """Return levels to begin with: those of the general plan, and of other spacings."""
    process, c = field.process, field.data_std
    assert isinstance(general.times, Tensor)
    found = [_levels(field, general.times[:nfe])]
    for power, factor in _STARTS:
        start = time_near(process, factor * nfe**2 * c)
        times = balanced(process, nfe, start=start, data_std=c, power=power, end=process.t_min)
        found.append(_levels(field, times[:nfe]))
    return found


def _levels(field: ScoreField, times: Tensor) -> list[float]:
    """Return the levels of times, and that of the end."""
    process = field.process
    last = -math.inf
    if process.t_data is None:
        last = float(-process.half_log_snr(torch.tensor(process.t_min, dtype=torch.float64)))
    return [*(-process.half_log_snr(times)).tolist(), last]


def _packed(levels: Sequence[float]) -> np.ndarray:
    """Return numbers without bounds that stand for levels: the first, and how far each falls."""
    inner = np.array(levels[:-1])
    return np.concatenate([inner[:1], np.log(np.expm1(inner[:-1] - inner[1:]))])


def _unpacked(packed: np.ndarray, last: float) -> list[float]:
    falls = np.logaddexp(0, packed[1:])
    return [float(packed[0]), *(packed[0] - np.cumsum(falls)).tolist(), last]


def _judged(field: ScoreField, solver: Fitted, general: Plan, count: int, seed: int) -> Tuned:
    """Return the better of two plans, by fresh noises and a teacher twice as fine."""
    noise = _normal(field, count, seed, first=2 * count)
    end, coarse = teach(field, noise, 2 * NODES).end, teach(field, noise).end
    plan = Plan(solver, solver.times(field.process), finish=False)
    fitted, usual = (_error(field, p, noise, end) for p in (plan, general))
    off = float((coarse - end).norm(dim=1).mean()) / math.sqrt(end.shape[1])
    if fitted < usual:
        return Tuned(plan, fitted, usual, off)
    return Tuned(general, usual, usual, off)


@torch.no_grad()
def _error(field: ScoreField, plan: Plan, noise: Tensor, end: Tensor) -> float:
    run = prepare(field, plan)
    x = from_normal(field, noise, run.first)
    at = run(State(x, run.first, Noise(0, torch.arange(len(x), device=x.device))))
    found = field(at.x, at.t).x0 if plan.finish else at.x
    return float((found.flatten(1).double() - end).norm(dim=1).mean()) / math.sqrt(end.shape[1])
