r"""A solver's way along times: the calls of the network that it makes, and where runs may begin.

A run that begins late knows nothing of what came before, so its first steps may be others than
those of a run that comes by. They are made anew until what they leave for the next step is what is
found there anyway; from there on the steps of the way serve. Where a start that spends calls would
make more of them than are listed from there, a rising one is taken.
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
from scorefield.interop.replay import Place, Step, answering
from scorefield.solvers import Solver, State

_NEAR = 1e-6  # by how much rounding may move a time, relative to it


@dataclass(frozen=True, eq=False)
class Course:
    """A solver's steps between times.

    Args:
        field: a `pushed_field`.
        solver: any solver.
        times: falling, one or more.
        finish: end with the denoiser's call at the last time.

    Attributes:
        steps: from the first time to the end.
        calls: the times of the calls of the network, in order.
        instants: the same, as the field takes them.

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
    _made_in: list[int] = field(init=False)

    def __post_init__(self) -> None:
        moves = self.solver.moves(self.field, self.times[:-1], self.times[1:]) if self._last else []
        steps: list[Step] = [*moves]
        if self.finish:
            end = self.field.instants(self.times[-1:])[0]
            steps.append(partial(_finished, self.field, end))
        if not self._calls_at_once(steps, 0):
            # the sample that comes first is seen by the network before any step: that call is spent
            steps.insert(0, partial(_looked, self.field, self.field.instants(self.times[:1])[0]))
        calls, made_in = self._tried(steps, 0)
        instants = self.field.instants(torch.tensor(calls, dtype=torch.float64))
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "calls", tuple(calls))
        object.__setattr__(self, "instants", tuple(instants))
        object.__setattr__(self, "_histories", (None, *(move.history for move in moves)))
        object.__setattr__(self, "_made_in", made_in)

    def begin(self, x: Tensor, call: int) -> Place:
        """Return the place of ``x`` at a call, where nothing is known of what came before.

        Raises:
            ValueError: no step begins at that call, or none that makes the calls listed from there.
        """
        t, times = self.calls[call], self.times.tolist()
        if t not in times:
            raise ValueError(f"t = {t:g} is inside a step of {self.solver!r}")
        k = times.index(t)
        noise: Any = None
        for course in (self, self._rising):
            steps, calls = course.steps_from(k)
            if _near(calls, self.calls[call:]):
                return Place(steps, State(x, self.times[k], noise), x, t=t)
        raise ValueError(
            f"{self.solver!r} begun at t = {t:g} does not make the calls that are listed from there"
        )

    def x0(self, x: Tensor, call: int, output: Tensor) -> Tensor:
        """Return the posterior mean of the data that an output stands for."""
        with answering([output]):
            found: Tensor = self.field(x, self.instants[call]).x0
        return found

    def steps_from(self, k: int) -> tuple[tuple[Step, ...], tuple[float, ...]]:
        """Return what leads from the ``k``-th time to the end, and its calls.

        There are none if the sample that stands there is not what is seen first.
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
        if not self._calls_at_once(steps, k):
            return steps, ()
        return steps, (*self._tried(own, k)[0], *self.calls[bisect_left(self._made_in, shared) :])

    @property
    def _last(self) -> int:
        return len(self.times) - 1

    @cached_property
    def _rising(self) -> Course:
        """The same with starts that spend no calls."""
        solver: Solver = rising(self.solver)
        if solver == self.solver:
            return self
        return Course(self.field, solver, self.times, self.finish)

    def _calls_at_once(self, steps: Sequence[Step], k: int) -> bool:
        """Tell whether the first call is made at the sample that stands at the ``k``-th time."""
        first = self._start(steps, k)
        return first.t == float(self.times[k]) and torch.allclose(first.x, _ANY)

    def _tried(self, steps: Sequence[Step], k: int) -> tuple[list[float], list[int]]:
        """Return the times of the calls of steps from the ``k``-th time, and each one's step."""
        calls, made_in = [], []
        place = self._start(steps, k)
        while place.t is not None:
            calls.append(place.t)
            made_in.append(place.done)
            place = place.answered(torch.zeros_like(place.x), _numbers)
        return calls, made_in

    def _start(self, steps: Sequence[Step], k: int) -> Place:
        noise: Any = None
        return Place(tuple(steps), State(_ANY, self.times[k], noise), _ANY).onwards(_numbers)


def rising(found: Any) -> Any:
    """Return a solver in which every ``start`` is a rising one, those of its parts as well."""
    if isinstance(found, tuple):
        return tuple(map(rising, found))
    if not isinstance(found, Solver) or not is_dataclass(found):
        return found
    parts = {part.name: rising(getattr(found, part.name)) for part in fields(found)}
    if "start" in parts:
        parts["start"] = "rising"
    return replace(found, **parts)


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two histories of a solver are the same."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _near(calls: Sequence[float], listed: Sequence[float]) -> bool:
    """Tell whether calls are those that are listed."""
    one, other = (torch.tensor(times, dtype=torch.float64) for times in (calls, listed))
    return one.shape == other.shape and torch.allclose(one, other, rtol=_NEAR, atol=_NEAR)


def _finished(field: Denoiser, last: Instant, at: State) -> State:
    return at._replace(x=field(at.x, last).x0)


def _looked(field: Denoiser, first: Instant, at: State) -> State:
    field(at.x, first)
    return at


def _numbers(like: Tensor) -> Tensor:
    """Return numbers of no meaning that leave torch's generators as they are."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


_ANY = _numbers(torch.empty(2, 4))
