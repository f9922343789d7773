r"""The steps of a solver along times, its network calls, and the times at which runs may start.

A run that starts late has no history, so its first steps may differ from those of a full run. They
are prepared separately, until they leave the same history as the full run; the remaining steps are
shared. If the start of a multistep method would make more calls than there are timesteps, a start
of rising order is used instead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Denoiser, Instant
from scorefield.interop.replay import Progress, Step, recorded
from scorefield.solvers import Solver, State

_NEAR = 1e-6  # relative difference of times up to rounding


@dataclass(frozen=True, eq=False)
class Course:
    """A solver's steps between times.

    Args:
        field: a `replay_field`.
        solver: any solver.
        times: decreasing, one or more.
        finish: end with the denoiser's estimate at the last time.

    Attributes:
        steps: from the first time to the end.
        calls: the times of the network calls, in order.
        instants: the same, prepared for the field.

    Raises:
        ValueError: times that the solver cannot step between.
    """

    field: Denoiser
    solver: Solver
    times: Tensor
    finish: bool
    steps: tuple[Step, ...] = field(init=False)
    calls: tuple[float, ...] = field(init=False)
    instants: tuple[Instant, ...] = field(init=False)
    _histories: tuple[Any, ...] = field(init=False)
    _step_of: list[int] = field(init=False)

    def __post_init__(self) -> None:
        moves = self.solver.moves(self.field, self.times[:-1], self.times[1:]) if self._last else []
        steps: list[Step] = [*moves]
        if self.finish:
            end = self.field.instants(self.times[-1:])[0]
            steps.append(partial(_finish, self.field, end))
        if not self._calls_first(steps, 0):
            # a pipeline calls the network with the first sample before any step: ignore that call
            steps.insert(
                0, partial(_ignore_call, self.field, self.field.instants(self.times[:1])[0])
            )
        calls, step_of = self._trial(steps, 0)
        instants = self.field.instants(torch.tensor(calls, dtype=torch.float64))
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "calls", tuple(calls))
        object.__setattr__(self, "instants", tuple(instants))
        object.__setattr__(self, "_histories", (None, *(move.history for move in moves)))
        object.__setattr__(self, "_step_of", step_of)

    def start(self, x: Tensor, call: int) -> Progress:
        """Return the progress of a new sample ``x`` at a call, without history.

        Raises:
            ValueError: no step starts at that call, or the calls from there would differ.
        """
        t, times = self.calls[call], self.times.tolist()
        if t not in times:
            raise ValueError(f"t = {t:g} is inside a step of {self.solver!r}")
        k = times.index(t)
        noise: Any = None
        for course in (self, self._rising):
            steps, calls = course.steps_from(k)
            if _near(calls, self.calls[call:]):
                return Progress(steps, State(x, self.times[k], noise), x, t=t)
        raise ValueError(
            f"the calls of {self.solver!r} started at t = {t:g} are not those of the timesteps"
        )

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
        return Course(self.field, solver, self.times, self.finish)

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
        noise: Any = None
        return Progress(tuple(steps), State(_ANY, self.times[k], noise), _ANY).resumed(_numbers)


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


def _finish(field: Denoiser, last: Instant, at: State) -> State:
    return at._replace(x=field(at.x, last).x0)


def _ignore_call(field: Denoiser, first: Instant, at: State) -> State:
    field(at.x, first)
    return at


def _numbers(like: Tensor) -> Tensor:
    """Return arbitrary numbers without using torch's generators."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


_ANY = _numbers(torch.empty(2, 4))
