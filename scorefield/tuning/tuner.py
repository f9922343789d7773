"""Tuning: from a field to a plan for each number of network calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError, UsageError
from scorefield.field import ScoreField, digest
from scorefield.process import balanced, time_near
from scorefield.sampling import Plan, Tuning, check_evaluating, default_plan
from scorefield.solvers import Multistep
from scorefield.tuning.noises import distances, draw
from scorefield.tuning.polish import polished
from scorefield.tuning.search import Levels, Search
from scorefield.tuning.student import Student
from scorefield.tuning.teacher import NODES, Teacher, ends, teach

_STARTS = [(q, f) for q in (3.0, 4.0, 5.0) for f in (0.3, 0.75, 2.0)]
_PATHS = 2**24  # numbers of the teacher's paths
_HUGE = 2**15  # coordinates above which fewer noises suffice


class Tuner:
    """Fits plans to one field, all to the same noises.

    Memory: the states of three times ``noises`` paths, ``2 nfe`` estimates of two thirds of them,
    and 2^25 numbers for the teacher's paths.

    Args:
        field: to fit to.
        noises: that the steps are fitted to; as many others choose the levels, and as many others
            measure the error. By default 32 to 512, by the dimension.
        conditions: of the field, ``(K, ...)`` each; the noises have them in turn. A plan is valid
            for the field under any condition, and best for these.
        seed: determines the noises.
        batch_size: samples per call of the field; by default 64 to 512, by the dimension.

    Raises:
        UsageError: SciPy is missing.
        ValueError: fewer than 8 noises, ``batch_size < 1``, conditions of different lengths, a
            network whose dropout or batch normalisation is in training.
    """

    def __init__(
        self,
        field: ScoreField,
        *,
        noises: int | None = None,
        conditions: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        if find_spec("scipy") is None:
            raise UsageError("tuning needs SciPy: pip install 'scorefield[tune]'.")
        check_evaluating(field)
        if (noises is not None and noises < 8) or (batch_size is not None and batch_size < 1):
            raise ValueError(
                f"noises={noises}, batch_size={batch_size}: must be at least 8, and at least 1."
            )
        self.field, self.seed = field, seed
        dim = math.prod(field.shape)
        self.batch_size = (
            min(512, max(64, 2**14 // max(1, dim))) if batch_size is None else batch_size
        )
        usual = min(512, max(32 if dim > _HUGE else 64, 8192 // max(1, dim)))
        self.count = usual if noises is None else noises
        every = draw(field, 3 * self.count, conditions or {}, seed, self.batch_size)
        self.learned = every.where(slice(0, 2 * self.count))
        self.fresh = every.where(slice(2 * self.count, None))

    def tune(
        self,
        nfe: int,
        *,
        tries: int | None = None,
        polish: int = 0,
        tried: MutableMapping[Levels, float] | None = None,
        progress: Callable[[float], None] = lambda error: None,
    ) -> Plan:
        """Return the best plan of ``nfe`` network calls; the default plan if that is better.

        Needs about ``2 noises (nfe tries + 240)`` evaluations of single samples.

        Args:
            tries: of noise levels; by default 1200 / nfe, and at least 80.
            polish: rounds of `polished` at the end, by gradients through the network calls. Memory
                grows with ``nfe``. 30 rounds lower the error by up to a third
                (``benchmarks/plans.py``).
            tried: errors of levels from an interrupted search, to which new ones are added; the
                search resumes, and ends with the same plan.
            progress: called after each try, with the least error so far.

        Raises:
            ValueError: as `scorefield.default_plan`; ``tries < 1``.
            NumericalError: the field's paths do not end in finite numbers.
        """
        default = default_plan(self.field, nfe)
        tries = usual_tries(nfe) if tries is None else tries
        if tries < 1 or polish < 0:
            raise ValueError(f"tries={tries}, polish={polish}: must be at least 1, and at least 0.")
        if not bool(self._truth[0].isfinite().all()):
            raise NumericalError(
                "field: its paths end in values that are not finite, so a plan cannot be fitted; "
                "check the network."
            )
        assert isinstance(default.solver, Multistep)
        half = torch.arange(2 * self.count) % 2 == 0
        student = Student(self.learned, self._teacher, self._chosen, half, default.solver)
        starts = _starts(self.field, default, nfe)
        search = Search(student, starts[0][-1], {} if tried is None else tried, progress)
        fitted = search.run(starts, tries)
        if polish:
            fitted = polished(student, fitted, polish)
        return self._better(Plan(fitted, fitted.times(self.field.process), finish=False), default)

    @cached_property
    def _chosen(self) -> Tensor:
        """The coordinates of the regression; all of them if there is room."""
        dim, most = self.learned.dim, _PATHS // (NODES * 2 * self.count)
        order = torch.randperm(dim, generator=torch.Generator().manual_seed(self.seed))
        return order[: max(1, most)].sort().values

    @cached_property
    def _teacher(self) -> Teacher:
        return teach(self.learned, self._chosen)

    @cached_property
    def _truth(self) -> tuple[Tensor, float]:
        """The ends of the paths of fresh noises, and the teacher's mean distance from them."""
        end, coarse = ends(self.fresh, 2 * NODES), ends(self.fresh)
        return end, float(distances(coarse, end).mean())

    def _better(self, fitted: Plan, default: Plan) -> Plan:
        """Return the better of two plans on fresh noises, with the measured errors."""
        end, teacher = self._truth
        ours, usual = (distances(self.fresh.carried(p), end) for p in (fitted, default))
        best, error = (fitted, ours) if ours.mean() < usual.mean() else (default, usual)
        assert isinstance(best.times, Tensor)
        process = self.field.process
        levels = tuple((-process.half_log_snr(best.times)).tolist())
        tuning = Tuning(
            field=digest(self.field),
            process=digest(process),
            levels=levels,
            nfe=len(best.times) - 1 + best.finish,
            error=float(error.mean()),
            stderr=float(error.std()) / math.sqrt(len(error)),
            default=float(usual.mean()),
            teacher=teacher,
            noises=self.count,
            seed=self.seed,
        )
        return replace(best, tuning=tuning)


def usual_tries(nfe: int) -> int:
    """Return the default number of tries for a plan."""
    return max(80, 1200 // nfe)


def _starts(field: ScoreField, default: Plan, nfe: int) -> list[list[float]]:
    """Return starting levels: those of the default plan, and of other spacings."""
    process, c = field.process, field.data_std
    assert isinstance(default.times, Tensor)
    # if the process does not reach the data, the default plan's last call is at the last level
    starts = [] if process.t_data is None else [_levels(field, default.times[:nfe])]
    for power, factor in _STARTS:
        start = time_near(process, factor * nfe**2 * c)
        times = balanced(process, nfe, start=start, data_std=c, power=power, end=process.t_min)
        starts.append(_levels(field, times[:nfe]))
    return starts


def _levels(field: ScoreField, times: Tensor) -> list[float]:
    """Return the noise levels of times, and the last level."""
    process = field.process
    last = -math.inf
    if process.t_data is None:
        last = float(-process.half_log_snr(torch.tensor(process.t_min, dtype=torch.float64)))
    return [*(-process.half_log_snr(times)).tolist(), last]
