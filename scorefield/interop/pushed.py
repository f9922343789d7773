r"""Solvers that are handed the network's outputs, one by one, by whoever calls the network.

A solver calls the field. Where the calls are made outside, a step is replayed: begun anew with all
outputs pushed so far, it stops at the first call that none of them answers, and where it stopped is
where the network is wanted next. A step of ``k`` calls costs its own arithmetic ``k`` times, the
network no more than ever, and the solver knows nothing of it.

`Course` is what depends on the times alone; `Place` is a value, all that one request has come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.denoiser import Denoiser, time_label
from scorefield.field import Instant
from scorefield.parametrization import Parametrization
from scorefield.process import Process
from scorefield.solvers import Solver, State

Draw = Callable[[Tensor], Tensor]
Step = Callable[[State], State]

_OUTPUTS: ContextVar[Iterator[Tensor]] = ContextVar("outputs")
_NEAR = 1e-6  # by how much single precision may move a time, relative to it


class Asked(Exception):
    """A call of the network, at ``x`` and time ``t``, that no output answers yet."""

    def __init__(self, x: Tensor, t: float) -> None:
        super().__init__(f"the network is wanted at t = {t:g}")
        self.x, self.t = x, t


class Pushed(nn.Module):
    """A network that answers by the outputs of the replay that runs."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for output in _OUTPUTS.get():
            return output
        raise Asked(x, float(t[0]))


def pushed_field(process: Process, parametrization: Parametrization) -> Denoiser:
    """Return the field of a network that is called elsewhere.

    Raises:
        ValueError: the parametrization has no finite coefficients at one of the process's ends.
    """
    return Denoiser(Pushed(), process, parametrization, shape=(1,), label=time_label)


@contextmanager
def answering(outputs: Sequence[Tensor]) -> Iterator[None]:
    """Let the fields of `pushed_field` answer by these outputs, in this thread."""
    token = _OUTPUTS.set(iter(outputs))
    try:
        yield
    finally:
        _OUTPUTS.reset(token)


@dataclass(frozen=True)
class Draws:
    """Noise from outside, in the place of `scorefield.noise.Noise`: a replay finds it again."""

    draw: Draw
    drawn: list[Tensor]
    place: int = 0

    def normal(self, like: Tensor) -> tuple[Tensor, Draws]:
        """Return standard normal numbers like ``like``."""
        if self.place == len(self.drawn):
            self.drawn.append(self.draw(like))
        return self.drawn[self.place], replace(self, place=self.place + 1)

    def increment(self, start: Any, end: Any, like: Tensor) -> tuple[Tensor, Draws]:
        """Return normal numbers: stretches of a path that goes one way are independent."""
        return self.normal(like)

    def skipped(self) -> Draws:
        """Return the same noise: none is counted."""
        return self


class Place(NamedTuple):
    """Where a request stands: at a call of the network whose output is still to come.

    Attributes:
        steps: what it takes from a time of the course to its end.
        at: where the step that is under way began, the ``done``-th of them.
        outputs, drawn: what was pushed and drawn in that step so far.
        x, t: where the network is wanted next; at the end the result, and None.
    """

    steps: tuple[Step, ...]
    at: State
    x: Tensor
    done: int = 0
    outputs: tuple[Tensor, ...] = ()
    drawn: tuple[Tensor, ...] = ()
    t: float | None = None

    def answered(self, output: Tensor, draw: Draw) -> Place:
        """Return the place of the next call, this one's output being known."""
        return self._replace(outputs=(*self.outputs, output)).onwards(draw)

    def onwards(self, draw: Draw) -> Place:
        """Return the place of the first call that the outputs do not answer."""
        place = self
        while place.done < len(place.steps):
            drawn = list(place.drawn)
            noise: Any = Draws(draw, drawn)
            try:
                with answering(place.outputs):
                    at = place.steps[place.done](place.at._replace(noise=noise))
            except Asked as asked:
                return place._replace(drawn=tuple(drawn), x=asked.x, t=asked.t)
            place = Place(place.steps, at, at.x, place.done + 1)
        return place


@dataclass(frozen=True, eq=False)
class Course:
    """A solver's way along times, and the calls of the network that it makes.

    Args:
        field: a `pushed_field`.
        solver: any solver.
        times: falling, one or more.
        finish: end with the denoiser's call at the last time.

    Attributes:
        calls: the times of the calls, in order.

    Raises:
        ValueError: times that the solver cannot step between.
    """

    field: Denoiser
    solver: Solver
    times: Tensor
    finish: bool
    calls: tuple[float, ...] = field(init=False, default=())
    instants: tuple[Instant, ...] = field(init=False, default=())
    _steps: dict[int, tuple[Step, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        place, calls = self._tried(self.steps_from(0), 0), []
        while place.t is not None:
            calls.append(place.t)
            place = place.answered(torch.zeros_like(place.x), _numbers)
        times = torch.tensor(calls, dtype=torch.float64)
        object.__setattr__(self, "calls", tuple(calls))
        object.__setattr__(self, "instants", tuple(self.field.instants(times)))

    def begin(self, x: Tensor, call: int) -> Place:
        """Return the place of ``x`` at a call, where nothing is known of what came before.

        Raises:
            ValueError: no step begins at that call, or none that does without a memory.
        """
        t, times = self.calls[call], self.times.tolist()
        if t not in times:
            raise ValueError(f"t = {t:g} is inside a step of {self.solver!r}")
        k = times.index(t)
        noise: Any = None
        return Place(self.steps_from(k), State(x, self.times[k], noise), x, t=t)

    def next(self, place: Place, call: int, output: Tensor, draw: Draw) -> Place:
        """Return the place after a call of the list.

        Raises:
            ValueError: another call is wanted than the one that comes next in the list.
        """
        after = place.answered(output, draw)
        listed = self.calls[call + 1] if call + 1 < len(self.calls) else None
        if after.t is None or listed is None:
            same = after.t is listed
        else:
            same = abs(after.t - listed) <= _NEAR * (1 + abs(listed))
        if not same:
            wanted = "nothing" if after.t is None else f"t = {after.t:g}"
            comes = "nothing" if listed is None else f"t = {listed:g}"
            raise ValueError(f"{self.solver!r} would call at {wanted} next, where {comes} comes")
        return after

    def x0(self, x: Tensor, call: int, output: Tensor) -> Tensor:
        """Return the posterior mean of the data that an output stands for."""
        with answering([output]):
            found: Tensor = self.field(x, self.instants[call]).x0
        return found

    def steps_from(self, k: int) -> tuple[Step, ...]:
        """Return what leads from the ``k``-th time to the end, the first call made where it begins.

        Raises:
            ValueError: a solver that cannot begin there.
        """
        if k not in self._steps:
            self._steps[k] = self._made(k)
        return self._steps[k]

    def _made(self, k: int) -> tuple[Step, ...]:
        t, times = self.times[k], self.times[k:]
        steps: list[Step] = []
        if len(times) > 1:
            steps += self.solver.moves(self.field, times[:-1], times[1:])
        if self.finish:
            steps.append(partial(_finished, self.field, self.field.instants(times[-1:])[0]))
        first = self._tried(tuple(steps), k)
        if first.t == float(t) and torch.allclose(first.x, _ANY):
            return tuple(steps)
        if k > 0:
            raise ValueError(f"{self.solver!r} makes no call where a step begins")
        # the sample that comes first is seen by the network before any step, so that call is spent
        return partial(_looked, self.field, self.field.instants(t[None])[0]), *steps

    def _tried(self, steps: tuple[Step, ...], k: int) -> Place:
        """Return the place of the first call of the network, from `_ANY` at the ``k``-th time."""
        noise: Any = None
        return Place(steps, State(_ANY, self.times[k], noise), _ANY).onwards(_numbers)


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
