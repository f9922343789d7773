r"""Solvers that are handed the network's outputs, one by one, by whoever calls the network.

A solver calls the field. Where the calls are made outside, a step is replayed: begun anew with all
outputs pushed so far, it stops at the first call that none of them answers, and where it stopped is
where the network is wanted next. A step of ``k`` calls costs its own arithmetic ``k`` times, the
network no more than ever, and the solver knows nothing of it.

`Place` is a value, all that one request has come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from scorefield.field import Denoiser, Parametrization, time_label
from scorefield.process import Process
from scorefield.solvers import State

Draw = Callable[[Tensor], Tensor]
Step = Callable[[State], State]

_OUTPUTS: ContextVar[Iterator[Tensor]] = ContextVar("outputs")


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
