"""Tuning: from a field to a plan for each number of network calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

import scorefield
from scorefield._internal.errors import NumericalError, UsageError
from scorefield.field import ScoreField, check_flat, check_starts_at_noise, digest
from scorefield.process import (
    balanced,
    check_one_level,
    check_positive,
    check_whole,
    time_near,
)
from scorefield.sampling import Plan, Tuning, check_evaluating, default_plan, noisiest, template
from scorefield.solvers import Fitted
from scorefield.tuning.insert import insertion_calls, lengthened
from scorefield.tuning.noises import distances, draw, mean_distance
from scorefield.tuning.polish import iteration_calls, polished, usual_iterations
from scorefield.tuning.search import Levels, Search
from scorefield.tuning.student import Student
from scorefield.tuning.teacher import NODES, Teacher, ends, teach
from scorefield.tuning.widen import widened

_STARTS = [(q, f) for q in (3.0, 4.0, 5.0) for f in (0.3, 0.75, 2.0)]
_HIGH = 4  # of the spacings, below the highest level
_PATHS = 2**24  # numbers of the teacher's paths
_HUGE = 2**15  # coordinates above which fewer noises suffice
_LEVEL = 0.95  # of the confidence interval


class Cost(NamedTuple):
    """Evaluations of the field for single samples, and their seconds on this machine."""

    evaluations: int
    seconds: float

    def __str__(self) -> str:
        minutes, seconds = f"{self.seconds / 60:.0f} minutes", f"{self.seconds:.0f} seconds"
        took = minutes if self.seconds >= 90 else seconds
        return f"about {self.evaluations:,} evaluations of the field, {took}"


class Tuner:
    """Fits plans to one field, all to the same noises.

    Memory: the states of six times ``noises`` paths, ``2 nfe`` estimates of a third of them, and
    2^25 numbers for the teacher's paths.

    Args:
        field: to fit to.
        noises: that the steps are fitted to; as many others choose the levels, and four times as
            many measure the error. By default 32 to 512, by the dimension.
        conditions: of the field, ``(K, ...)`` each; the noises have them in turn. A plan is valid
            for the field under any condition, and best for these.
        seed: determines the noises.
        batch_size: samples per call of the field; by default 64 to 512, by the dimension.
        first: ``sigma / alpha`` of the first call, by default any; 1e4 for samples that start as
            noise alone at the end of a flow, as in pipelines.

    Raises:
        UsageError: SciPy is missing.
        ValueError: fewer than 8 noises, ``batch_size < 1``, conditions of different lengths,
            ``first`` not positive, a network whose dropout or batch normalisation is in training, a
            field of which no `digest` can be made.
    """

    def __init__(
        self,
        field: ScoreField,
        *,
        noises: int | None = None,
        conditions: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        first: float | None = None,
    ) -> None:
        if find_spec("scipy") is None:
            raise UsageError("tuning needs SciPy: pip install 'scorefield[tune]'.")
        check_evaluating(field)
        check_flat("tune", field)
        check_one_level("tuning", field.process)
        check_starts_at_noise(field)
        check_whole(8, noises=8 if noises is None else noises)
        check_whole(batch_size=1 if batch_size is None else batch_size)
        if first is not None:
            check_positive(first=first)
        self.field, self.seed, self.first = field, seed, first
        self.digests = digest(field), digest(field.process)
        self._single: dict[tuple[object, ...], list[Fitted]] = {}  # steps of one call each
        dim = math.prod(field.shape)
        self.batch_size = (
            min(512, max(64, 2**14 // max(1, dim))) if batch_size is None else batch_size
        )
        usual = min(512, max(32 if dim > _HUGE else 64, 8192 // max(1, dim)))
        self.count = usual if noises is None else noises
        every = draw(field, 6 * self.count, conditions or {}, seed, self.batch_size)
        self.learned = every.where(slice(0, 2 * self.count))
        self.fresh = every.where(slice(2 * self.count, None))

    def tune(
        self,
        nfe: int,
        *,
        rounds: int | None = None,
        tries: int | None = None,
        polish: int | None = None,
        shorter: Plan | None = None,
        tried: MutableMapping[Levels, float] | None = None,
        progress: Callable[[float], None] = lambda error: None,
    ) -> Plan:
        """Return the best plan of ``nfe`` network calls; the default plan if that is better.

        `cost` estimates the evaluations of single samples and the time that it needs.

        Args:
            rounds: of calls that are made at once, ``nfe / rounds`` in each; by default ``nfe``,
                one call after another. A plan takes the time of its rounds where a larger batch
                takes no longer. The default plan that it must be better than has ``rounds`` calls.
            tries: of noise levels; by default 400 / rounds, and at least 40.
            polish: iterations of `polished` at the end, which move levels and steps together; by
                default 32, and fewer above 7 calls. They stop when they gain little. With several
                calls a round, first those of one call, then those of all.
            shorter: a plan of fewer calls that was fitted to the same field. The search begins
                there too, with calls inserted, and a plan of one call after another is at least as
                good. Default plans and those of several calls at once are ignored.
            tried: errors of levels from an interrupted search, to which new ones are added; the
                search resumes, and ends with the same plan.
            progress: called after each try with the least error so far, and after each iteration
                with its error.

        Raises:
            ValueError: as `scorefield.default_plan` and `effort`; ``first`` is not above the other
                levels; the field's digest changes when it is called.
            NumericalError: the field's paths do not end in finite numbers.
        """
        tries, polish, further = self.effort(nfe, tries, polish, rounds)
        rounds = rounds or nfe
        default = default_plan(self.field, rounds)
        first = None if self.first is None else math.log(self.first)
        starts = _starts(self.field, rounds, first)
        self._check_digest()
        if not bool(self._truth[0].isfinite().all()):
            raise NumericalError(
                "field: its paths end in values that are not finite, so a plan cannot be fitted; "
                "check the network."
            )
        half = torch.arange(2 * self.count) % 2 == 0
        student = Student(self.learned, self._teacher, self._chosen, half)
        before = _fitted(shorter, rounds)
        if (key := (rounds, tries, polish, before)) not in self._single:
            longer = [] if before is None else lengthened(student, before, rounds)
            search = Search(student, starts[0][-1], {} if tried is None else tried, progress, first)
            steps = search.run(starts, tries)
            if polish:
                begins = [steps, *longer, *search.others(starts)]
                steps = polished(student, begins, polish, progress, first)
            self._single[key] = [steps, *longer]
        fitted = self._single[key]
        if rounds < nfe:
            student = replace(student, parallel=nfe // rounds)
            fitted = [polished(student, widened(student, fitted[0]), further, progress, first)]
        plans = [Plan(each, each.times(self.field.process), finish=False) for each in fitted]
        return self._better(plans, default)

    def effort(
        self, nfe: int, tries: int | None, polish: int | None, rounds: int | None = None
    ) -> tuple[int, int, int]:
        """Return the numbers of tries and of iterations, with the defaults of `tune` for Nones.

        The last number is of iterations with all calls of a round, 0 for one call.

        Raises:
            ValueError: ``nfe < 2``, ``rounds < 2`` or not a divisor of ``nfe``, ``tries < 1`` or
                ``polish < 0``.
        """
        rounds = check_rounds(nfe, rounds)
        tries = max(40, 400 // rounds) if tries is None else tries
        check_whole(tries=tries)
        one, all_calls = (
            usual_iterations(calls, rounds) if polish is None else polish for calls in (rounds, nfe)
        )
        check_whole(0, polish=one)
        return tries, one, all_calls if rounds < nfe else 0

    def cost(
        self,
        nfe: int,
        *,
        rounds: int | None = None,
        tries: int | None = None,
        polish: int | None = None,
        shorter: Plan | None = None,
    ) -> Cost:
        """Return the approximate cost of `tune`, with the paths if no plan was tuned before.

        It measures the time of one batch.

        Raises:
            ValueError: as `effort`.
        """
        tries, polish, further = self.effort(nfe, tries, polish, rounds)
        rounds = rounds or nfe
        count = self.count * (2 * rounds * tries + iteration_calls(rounds, rounds) * polish)
        count += self.count * iteration_calls(nfe, rounds) * further
        count += (nfe + rounds) * len(self.fresh)
        if (before := _fitted(shorter, rounds)) is not None:
            count += 2 * self.count * insertion_calls(len(before.table), rounds)
            count += nfe * len(self.fresh) if rounds == nfe else 0
        if "_teacher" not in vars(self):
            count += NODES * len(self.learned) + (NODES + NODES // 2) * len(self.fresh)
        return Cost(count, count * self._seconds)

    @cached_property
    def _seconds(self) -> float:
        """The time of one evaluation of a single sample, in a batch."""
        self._call()  # which may prepare
        began = time.perf_counter()
        self._call()
        return (time.perf_counter() - began) / min(self.batch_size, len(self.fresh))

    @torch.no_grad()
    def _call(self) -> None:
        """Call the field on one batch, at a middle time."""
        noises, process = self.fresh.where(slice(0, self.batch_size)), self.field.process
        middle = torch.tensor([(process.t_min + process.t_max) / 2], dtype=torch.float64)
        (at,) = self.field.instants(middle)
        float(noises.denoised(noises.z, at).sum())

    def _check_digest(self) -> None:
        """Reject a field that a plan could not be matched to after the search."""
        self._call()
        if digest(self.field) != self.digests[0]:
            raise ValueError(
                "field: its digest changes when it is called, so a plan could not be matched to "
                "it; give what its calls change, such as a counter, a name that begins with _."
            )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All inputs of the errors of levels except the conditions, in JSON's types."""
        return {
            "version": scorefield.__version__,
            "torch": torch.__version__,
            "device": template(self.field).device.type,
            "field": digest(self.field),
            "noises": self.count,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }

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
        """The ends of the paths of fresh noises, and the mean distance of half the nodes' ends."""
        end, coarse = ends(self.fresh), ends(self.fresh, NODES // 2)
        return end, float(distances(coarse, end).mean())

    def _better(self, fitted: Sequence[Plan], default: Plan) -> Plan:
        """Return the best of the plans on fresh noises, with the measured errors."""
        end, teacher = self._truth
        every = [default, *fitted]
        means = [mean_distance(self.fresh.carried(plan), end, _LEVEL) for plan in every]
        mean, best = min(zip(means, every, strict=True), key=lambda pair: pair[0].value)
        assert isinstance(best.times, Tensor)
        tuning = Tuning(
            *self.digests,
            levels=tuple((-self.field.process.half_log_snr(best.times)).tolist()),
            nfe=(len(best.times) - 1) * best.solver.parallel + best.finish,
            error=mean.value,
            low=mean.low,
            high=mean.high,
            default=means[0].value,
            teacher=teacher,
            noises=self.count,
            seed=self.seed,
        )
        return replace(best, tuning=tuning)


def check_rounds(nfe: int, rounds: int | None = None) -> int:
    """Return the number of rounds, by default one for each call.

    Raises:
        ValueError: as `Tuner.effort`.
    """
    check_whole(2, nfe=nfe)
    if rounds is None:
        return nfe
    check_whole(2, rounds=rounds)
    if nfe % rounds:
        raise ValueError(
            f"nfe={nfe}, rounds={rounds}: each round has the same number of calls; give a multiple "
            f"of the rounds, such as nfe={2 * rounds}."
        )
    return rounds


def _fitted(plan: Plan | None, rounds: int) -> Fitted | None:
    """Return the steps of a plan if they are fitted, of one call each and fewer than rounds."""
    if plan is None or not isinstance(steps := plan.solver, Fitted) or steps.nodes:
        return None
    return steps if 1 < len(steps.table) < rounds else None


def longest_below(plans: Mapping[int, Plan], nfe: int) -> Plan | None:
    """Return the plan of the most calls below ``nfe``, if there is one."""
    return plans.get(max((calls for calls in plans if calls < nfe), default=0))


def _starts(field: ScoreField, nfe: int, first: float | None) -> list[list[float]]:
    """Return starting levels: those of the default plan, of other spacings, and below a first one.

    Without a given first level, that is the highest of the field: a call far above the data can be
    worth more on a network than another one near it.

    Raises:
        ValueError: no spacing is below the first level.
    """
    if first is None:
        highest = _levels(field, torch.tensor([noisiest(field)], dtype=torch.float64))[0]
        below = _spacings(field, nfe - 1)[:_HIGH] if nfe > 2 else []
        return _spacings(field, nfe) + _under(highest, below)
    rest = _spacings(field, nfe - 1)
    if not (starts := _under(first, rest)):
        least = math.exp(min(levels[0] for levels in rest) + 0.5)
        raise ValueError(f"first={math.exp(first):g}: must be above {least:.3g}, such as 1e4.")
    return starts


def _under(first: float, spacings: list[list[float]]) -> list[list[float]]:
    return [[first, *levels] for levels in spacings if levels[0] < first - 0.5]


def _spacings(field: ScoreField, nfe: int) -> list[list[float]]:
    """Return the levels of the default plan, and of other spacings."""
    process, c = field.process, field.data_std
    starts = []
    # a single level has no default plan; if the process does not reach the data, the default plan's
    # last call is at the last level
    if nfe > 1 and process.t_data is not None:
        default = default_plan(field, nfe)
        assert isinstance(default.times, Tensor)
        starts.append(_levels(field, default.times[:nfe]))
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
