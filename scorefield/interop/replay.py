r"""Solvers whose network is called by someone else, such as a pipeline.

A solver calls the field. If the calls are made outside, the solver's step is replayed: it is run
again with all outputs so far, and stops at the first call without an output. The input of that call
is where the network is needed next. A step of ``k`` calls costs its own arithmetic ``k`` times, but
no additional network calls. The solver does not have to support this.

`Progress` is a value: the whole state of one request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.field import Coefficients, Denoiser, Parametrization, time_label
from scorefield.process import Process
from scorefield.solvers import State

Draw = Callable[[Tensor], Tensor]
Step = Callable[[State], State]

_OUTPUTS: ContextVar[Iterator[Tensor]] = ContextVar("outputs")


class OutputNeeded(Exception):
    """A call of the network, at ``x`` and time ``t``, without an output so far."""

    def __init__(self, x: Tensor, t: float) -> None:
        super().__init__(f"the network is needed at t = {t:g}")
        self.x, self.t = x, t


class Recorded(nn.Module):
    """A network that returns the recorded outputs of the present replay."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for output in _OUTPUTS.get():
            return output
        raise OutputNeeded(x, float(t[0]))


@dataclass(frozen=True)
class Unscaled(Parametrization):
    """A parametrization whose network is called with scaled samples outside."""

    base: Parametrization

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        skip, out, scale = self.base(alpha, sigma)
        return Coefficients(skip, out, torch.ones_like(scale))


class _Replayed(Denoiser):
    """A denoiser whose network is called for one state at a time."""

    stackable = False


def replay_field(process: Process, parametrization: Parametrization) -> Denoiser:
    """Return the field of a network that is called outside, with samples in its own scale.

    Raises:
        ValueError: the parametrization has infinite coefficients at an end of the process.
    """
    unscaled = Unscaled(parametrization)
    return _Replayed(Recorded(), process, unscaled, shape=(1,), label=time_label)


@contextmanager
def recorded(outputs: Sequence[Tensor]) -> Iterator[None]:
    """Use these outputs in the fields of `replay_field`, in this thread."""
    token = _OUTPUTS.set(iter(outputs))
    try:
        yield
    finally:
        _OUTPUTS.reset(token)


@dataclass(frozen=True)
class Draws:
    """Noise from outside instead of `scorefield.noise.Noise`, recorded for the next replay."""

    draw: Draw
    drawn: list[Tensor]
    count: int = 0

    def normal(self, like: Tensor) -> tuple[Tensor, Draws]:
        """Return standard normal numbers like ``like``."""
        if self.count == len(self.drawn):
            self.drawn.append(self.draw(like))
        return self.drawn[self.count], replace(self, count=self.count + 1)

    def increment(self, start: Any, end: Any, like: Tensor) -> tuple[Tensor, Draws]:
        """Return normal numbers: the increments of a one-way path are independent."""
        return self.normal(like)

    def skipped(self) -> Draws:
        """Return the same noise, which has no counter."""
        return self


class Progress(NamedTuple):
    """The progress of a request: waiting for an output of the network.

    Attributes:
        steps: the steps from the start of the request to its end.
        at: the state at the start of the present step, the ``done``-th one.
        outputs, drawn: outputs and noise of the present step so far.
        x, t: input of the next network call; at the end the result, and None.
    """

    steps: tuple[Step, ...]
    at: State
    x: Tensor
    done: int = 0
    outputs: tuple[Tensor, ...] = ()
    drawn: tuple[Tensor, ...] = ()
    t: float | None = None

    def after(self, output: Tensor, draw: Draw) -> Progress:
        """Return the progress at the next call, given the output of the present one."""
        return self._replace(outputs=(*self.outputs, output)).resumed(draw)

    def resumed(self, draw: Draw) -> Progress:
        """Return the progress at the first call without an output."""
        progress = self
        while progress.done < len(progress.steps):
            drawn = list(progress.drawn)
            noise: Any = Draws(draw, drawn)
            try:
                with recorded(progress.outputs):
                    at = progress.steps[progress.done](progress.at._replace(noise=noise))
            except OutputNeeded as call:
                return progress._replace(drawn=tuple(drawn), x=call.x, t=call.t)
            progress = Progress(progress.steps, at, at.x, progress.done + 1)
        return progress
