r"""The steps of a solver along times, its network calls, and the times at which runs may start.

A run may start at any call, as pipelines do that begin with a noised image or change the sample
between steps. It has no history, so its first steps may differ from those of a full run. They are
prepared separately, until they leave the same history as the full run; the remaining steps are
shared. If the start of a multistep method would make more calls than there are timesteps, a start
of rising order is used instead. Where no step of the solver starts, or a table of fitted steps
needs the estimates before, the run goes down the times of the remaining calls by a `Multistep` of
rising order.

A pipeline of a flow starts with noise as the sample at ``t = 1``. If the solver cannot step from
there, where ``alpha = 0``, its first step is DDIM's, which can. If the times of a plan start lower,
DDIM steps down to them, at the cost of one more call. If they start just below, the noise is scaled
to the deviation ``n(t)`` of standardised data there, and the first output is read at the sample
that the network was called with. The posterior mean of standardised data changes by ``(alpha /
sigma)^2`` of a deviation by this.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Instant, ScoreField
from scorefield.interop.replay import Progress, Step, recorded
from scorefield.solvers import DDIM, Multistep, Solver, State

_NEAR = 1e-6  # relative difference of times up to rounding
_NOISY = 100.0  # noise levels that count as noise alone: the square is the inverse error of an x0
_DESCENT = Multistep(2, start="rising")


@dataclass(frozen=True, eq=False)
class Course:
    """A solver's steps between times.

    Args:
        field: a `replay_field`, or a wrapper of one.
        solver: any solver.
        times: decreasing, one or more.
        finish: end with the denoiser's estimate at the last time.
        lead: DDIM makes the first step.
        shrink: the scale of the first sample, which the network is called with unscaled.

    Attributes:
        steps: from the first time to the end.
        calls: the times of the network calls, in order.
        instants: the same, prepared for the field.

    Raises:
        ValueError: times that the solver cannot step between.
    """

    field: ScoreField
    solver: Solver
    times: Tensor
    finish: bool
    lead: bool = False
    shrink: float = 1.0
    steps: tuple[Step, ...] = field(init=False)
    calls: tuple[float, ...] = field(init=False)
    instants: tuple[Instant, ...] = field(init=False)
    _histories: tuple[Any, ...] = field(init=False)
    _step_of: list[int] = field(init=False)

    def __post_init__(self) -> None:
        steps, histories = self._moves()
        if self.finish:
            end = self.field.instants(self.times[-1:])[0]
            steps.append(partial(_finish, self.field, end))
        if not self._calls_first(steps, 0):
            # a pipeline calls the network with the first sample before any step: ignore that call
            first = self.field.instants(self.times[:1])[0]
            steps.insert(0, partial(_ignore_call, self.field, first))
        calls, step_of = self._trial(steps, 0)
        instants = self.field.instants(torch.tensor(calls, dtype=torch.float64))
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "calls", tuple(calls))
        object.__setattr__(self, "instants", tuple(instants))
        object.__setattr__(self, "_histories", histories)
        object.__setattr__(self, "_step_of", step_of)

    @classmethod
    def from_noise(cls, field: ScoreField, solver: Solver, times: Tensor, finish: bool) -> Course:
        """Return the course of a sample that is noise at the end of the process.

        Raises:
            ValueError: times that the solver cannot step between.
        """
        process = field.process
        last = torch.tensor([process.t_max], dtype=torch.float64)
        widths = process.prior(t=torch.cat([last, times[:1]])).std
        if torch.allclose(widths[0], widths[1], rtol=_NEAR):
            return cls.or_lead(field, solver, times, finish)
        if bool(-process.half_log_snr(times[0]) >= math.log(_NOISY)):
            return cls(field, solver, times, finish, shrink=float(widths[1] / widths[0]))
        return cls(field, solver, torch.cat([last, times]), finish, lead=True)

    @classmethod
    def or_lead(cls, field: ScoreField, solver: Solver, times: Tensor, finish: bool) -> Course:
        """Return the course of a sample at the first of the times.

        Raises:
            ValueError: times that the solver cannot step between.
        """
        try:
            return cls(field, solver, times, finish)
        except ValueError:
            if len(times) < 2 or bool(field.process.alpha(times[0]) > 0):
                raise
            return cls(field, solver, times, finish, lead=True)

    def _moves(self) -> tuple[list[Step], tuple[Any, ...]]:
        """Return the steps between the times, and the history before and after each."""
        t, s = self.times[:-1], self.times[1:]
        steps: list[Step] = []
        if self.lead:
            (move,) = DDIM().moves(self.field, t[:1], s[:1])
            steps.append(partial(_forget, move))
            t, s = t[1:], s[1:]
        moves = self.solver.moves(self.field, t, s) if len(t) else []
        steps.extend(moves)
        return steps, (None, *[None] * self.lead, *(move.history for move in moves))

    def start(self, x: Tensor, call: int) -> Progress:
        """Return the progress of a new sample ``x`` at a call, without history."""
        t, times, noise = self.calls[call], self.times.tolist(), _NO_NOISE
        if call == 0 and self.shrink != 1:
            x = self.shrink * x
        if t in times:
            k = times.index(t)
            for course in (self, self._rising):
                try:
                    steps, calls = course.steps_from(k)
                except ValueError:  # of fitted steps, which need the estimates before
                    break
                if _near(calls, self.calls[call:]):
                    return Progress(steps, State(x, self.times[k], noise), x, t=t)
        at = State(x, torch.tensor(t, dtype=torch.float64), noise)
        return Progress(self._descent(call), at, x, t=t)

    def reread(self, output: Tensor, sample: Tensor) -> Tensor:
        """Return the first output as if the network was called with the scaled first sample.

        It gives the same posterior mean of the data.
        """
        if self.shrink == 1:
            return output
        at = self.instants[0]
        while isinstance(at.prepared, Instant):
            at = at.prepared  # of a field that wraps the denoiser
        skip, out = at.prepared.of_x0
        result: Tensor = output + (1 - self.shrink) * skip / out * sample
        return result

    def x0(self, x: Tensor, call: int, output: Tensor) -> Tensor:
        """Return the posterior mean of the data from an output."""
        with recorded([output]):
            x0: Tensor = self.field(x, self.instants[call]).x0
        return x0

    def steps_from(self, k: int) -> tuple[tuple[Step, ...], tuple[float, ...]]:
        """Return the steps from the ``k``-th time to the end, and their calls.

        The calls are empty if the first one is not at the sample itself.
        """
        if k == 0:
            return self.steps, self.calls
        own: list[Step] = []
        history, met = None, k
        while met < self._last and not _alike(history, self._histories[met]):
            ends = self.times[met, None], self.times[met + 1, None]
            (move,) = self.solver.moves(self.field, *ends, history)
            history, met = move.history, met + 1
            own.append(move)
        shared = len(self.steps) - self.finish - self._last + met
        steps = (*own, *self.steps[shared:])
        if not self._calls_first(steps, k):
            return steps, ()
        return steps, (*self._trial(own, k)[0], *self.calls[bisect_left(self._step_of, shared) :])

    @property
    def _last(self) -> int:
        return len(self.times) - 1

    @cached_property
    def _rising(self) -> Course:
        """The same with starts of rising order, which make no additional calls."""
        solver: Solver = rising(self.solver)
        if solver == self.solver:
            return self
        make = partial(Course, lead=True) if self.lead else Course.or_lead
        return make(self.field, solver, self.times, self.finish)

    def _calls_first(self, steps: Sequence[Step], k: int) -> bool:
        """Return whether the first call is at the sample at the ``k``-th time."""
        first = self._first(steps, k)
        return first.t == float(self.times[k]) and torch.allclose(first.x, _ANY)

    def _trial(self, steps: Sequence[Step], k: int) -> tuple[list[float], list[int]]:
        """Return the times of the calls of steps from the ``k``-th time, and the step of each."""
        calls, step_of = [], []
        progress = self._first(steps, k)
        while progress.t is not None:
            calls.append(progress.t)
            step_of.append(progress.done)
            progress = progress.after(torch.zeros_like(progress.x), _numbers)
        return calls, step_of

    def _first(self, steps: Sequence[Step], k: int) -> Progress:
        at = State(_ANY, self.times[k], _NO_NOISE)
        return Progress(tuple(steps), at, _ANY).resumed(_numbers)

    def _descent(self, call: int) -> tuple[Step, ...]:
        """Return steps of rising order from a call to the end, one or none for each call.

        They step between the remaining times that fall. The outputs of other calls are ignored.
        """
        rows = [call]
        for k in range(call + 1, len(self.calls)):
            if self.calls[k] < self.calls[rows[-1]] * (1 - _NEAR):
                rows.append(k)
        times = [self.calls[k] for k in rows]
        end = float(self.times[-1])
        if not self.finish and end < times[-1]:
            times.append(end)
        grid = torch.tensor(times, dtype=torch.float64)
        moves: list[Step] = [*_DESCENT.moves(self.field, grid[:-1], grid[1:])]
        if self.finish:
            moves.append(partial(_finish, self.field, self.instants[rows[-1]]))
        rest = range(call, len(self.calls))
        by_row: dict[int, Step] = dict(zip(rows, moves, strict=False))
        ignored: Step
        for k in rest:
            ignored = partial(_ignore_call, self.field, self.instants[k])
            by_row.setdefault(k, ignored)
        return tuple(by_row[k] for k in rest)


def rising(value: Any) -> Any:
    """Return a solver whose starts, and those of its parts, have rising order."""
    if isinstance(value, tuple):
        return tuple(map(rising, value))
    if not isinstance(value, Solver) or not is_dataclass(value):
        return value
    parts = {part.name: rising(getattr(value, part.name)) for part in fields(value)}
    if "start" in parts:
        parts["start"] = "rising"
    return replace(value, **parts)


def _alike(one: Any, other: Any) -> bool:
    """Return whether two histories of a solver are equal."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _near(calls: Sequence[float], expected: Sequence[float]) -> bool:
    """Return whether calls have the expected times."""
    one, other = (torch.tensor(times, dtype=torch.float64) for times in (calls, expected))
    return one.shape == other.shape and torch.allclose(one, other, rtol=_NEAR, atol=_NEAR)


def _finish(field: ScoreField, last: Instant, at: State) -> State:
    return at._replace(x=field(at.x, last).x0)


def _forget(move: Step, at: State) -> State:
    """Make a step whose memory is of no use to the next."""
    return move(at)._replace(memory=None)


def _ignore_call(field: ScoreField, first: Instant, at: State) -> State:
    field(at.x, first)
    return at


def _numbers(like: Tensor) -> Tensor:
    """Return arbitrary numbers without using torch's generators."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


_ANY = _numbers(torch.empty(2, 4))
_NO_NOISE: Any = None
