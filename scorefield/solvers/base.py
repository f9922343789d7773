r"""What a solver is: a rule that answers where a state stands at another time.

A step has two parts. Its coefficients depend on times alone; they are worked out beforehand, in
float64 and for a whole grid at once, and make a `Move`. The move then carries states across the
step, as often as wanted, and is nothing but arithmetic on ``x`` and calls of the field.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import Noise
from scorefield.process import Coefficient, Prior, Process, align


class Memory(NamedTuple):
    """State that a solver carries to its next step.

    ``history`` holds times only, so that coefficients can be computed before any state exists;
    ``tensors`` are used when the step runs.
    ``owner`` is the solver, the only one that reads it; ``x`` is where it left the state, to tell
    whether something moved it since.
    """

    history: Any
    tensors: Any
    x: Tensor
    owner: Solver


class State(NamedTuple):
    """Where a batch of trajectories stands.

    Attributes:
        x: ``(B, ...)``.
        t: the time, in the form `scorefield.process.align` returns.
        noise: the random numbers to come. What goes back to more noise and comes down again is on
            a new Brownian path from there.
        memory: what the solver that made this state wants to find at its next step; None at the
            start. Only that solver reads it.
        error: an estimate of the step's error, shaped like ``x``, where one was asked for.
    """

    x: Tensor
    t: Tensor
    noise: Noise
    memory: Memory | None = None
    error: Tensor | None = None


class Move(ABC):
    """One step of a solver on one field, between two times, with its coefficients worked out.

    Attributes:
        history: the `Memory.history` it leaves behind.
    """

    history: Any

    @abstractmethod
    def __call__(self, at: State) -> State:
        """Carry a state that stands at the first time to the second."""

    @abstractmethod
    def transition(self, at: State) -> Prior:
        """Return the law of the new ``x`` given ``at``: a Gaussian, coordinates independent.

        Its `Prior.log_prob` is the transition's log-probability.

        Raises:
            ValueError: the step adds no noise, or adds some before its last call of the field.
        """


class Solver(ABC):
    """A rule for one step. Subclasses are frozen dataclasses and keep no state of their own."""

    @property
    @abstractmethod
    def order(self) -> int:
        """The order of convergence on the probability-flow ODE."""

    @property
    @abstractmethod
    def weak_order(self) -> int | None:
        """The order at which the law of the samples converges; None if no noise is added."""

    @property
    @abstractmethod
    def calls(self) -> int:
        """Field calls per step, start-up aside."""

    @property
    @abstractmethod
    def history_length(self) -> int:
        """How many estimates of earlier steps a step rests on."""

    @property
    @abstractmethod
    def error_order(self) -> float | None:
        """The order in the step size of the error that `State.error` estimates; None without."""

    @property
    @abstractmethod
    def in_place(self) -> bool:
        """Whether it stays at its time and moves ``x`` there, as a corrector does."""

    @abstractmethod
    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        """Return the moves of ``N`` steps, the ``k``-th from ``t[k]`` to ``s[k]``.

        Args:
            t, s: ``(N, ...)``, each time in the form `scorefield.process.align` returns.
            history: `Memory.history` of the state that the first step starts from, or None.
            error: fill `State.error`; for solvers that have an `error_order`.

        Raises:
            ValueError: times the solver cannot step between.
        """

    @abstractmethod
    def forget(self, history: Any, t: Tensor) -> Any:
        """Return the part of the history still valid at ``t`` after ``x`` was changed there."""

    @abstractmethod
    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        """Return what of a memory still holds at ``t`` now that the state stands at ``x``."""

    @abstractmethod
    def choose(self, mask: Tensor, new: State, old: State, x: Tensor) -> Memory | None:
        """Return the memory of the new state for the samples in ``mask``, of the old for the rest.

        Both states have a time per sample; ``x`` is where the samples now stand. Asked of solvers
        that have an `error_order`.
        """

    def settled(self, at: State) -> State:
        """Return the state with a memory that is this solver's and holds where the state stands."""
        memory = at.memory
        if memory is None or (memory.x is at.x and memory.owner == self):
            return at
        kept = self.moved(memory, at.x, at.t) if memory.owner == self else None
        return at._replace(memory=kept)

    def advance(self, field: ScoreField, at: State, s: Tensor, *, error: bool = False) -> State:
        """Return the state at time ``s``, given the state ``at`` another time.

        ``s`` has the form of ``at.t`` and may lie to either side of it unless the solver says
        otherwise.

        Raises:
            ValueError: ``s`` lies outside the process's interval and is not `Process.t_data`; an
                error is asked of a solver that estimates none; or as `moves`.
        """
        if error and self.error_order is None:
            raise ValueError(f"{self!r} has no error estimate.")
        t, s = align(at.t, at.x), align(s, at.x)
        process = field.process
        if s.is_cpu and not process.contains(s) and not bool((s == _data(process)).all()):
            outside = float(s.min() if bool(s.min() < process.t_min) else s.max())
            raise ValueError(
                f"s = {outside} is outside [{process.t_min}, {process.t_max}] of {process!r}."
            )
        at = self.settled(at if t is at.t else at._replace(t=t))
        history = None if at.memory is None else at.memory.history
        return self.moves(field, at.t[None], s[None], history, error=error)[0](at)


def _data(process: Process) -> float:
    """Return the time of the data, or no number."""
    return math.nan if process.t_data is None else process.t_data


def transition(mean: Tensor, std: Coefficient) -> Prior:
    """Return the Gaussian law of a step.

    Raises:
        ValueError: it adds no noise, for some sample.
    """
    wide = torch.as_tensor(std, dtype=torch.float64)
    if not bool((wide > 0).all()):
        raise ValueError("the step adds no noise: its law has no density.")
    return Prior(mean, wide)


def check_solver(name: str, given: object) -> None:
    """Refuse what is no solver: a class that was not called, times in the wrong place."""
    if not isinstance(given, Solver):
        what = f"the class {given.__name__}" if isinstance(given, type) else repr(given)
        raise ValueError(f"{name} = {what}: give a solver, such as Heun() or DDIM(eta=0.5).")


def check_towards_data(name: str, t: Tensor, s: Tensor) -> None:
    """Refuse steps towards noise."""
    if bool((s > t).any()):
        raise ValueError(
            f"{name} goes towards data, not from t = {float(t.min()):g} to {float(s.max()):g}: "
            "use a solver of the ODE, or process.diffuse."
        )
