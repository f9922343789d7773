r"""The contract of a solver: a rule that steps a state from one time to another.

A step has two parts. Its coefficients depend on times alone; they are computed first, in float64
and for a whole grid at once, and make a `Move`. The move then carries states across the step, as
often as needed; it is arithmetic on ``x`` and calls of the field, and nothing else.

A solver of your own is easiest as a `OneStep`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.field.base import NO_SCORE
from scorefield.noise import Noise
from scorefield.process import Coefficient, Prior, align, check_instance


class Memory(NamedTuple):
    """State that a solver carries to its next step.

    Attributes:
        history: the part that holds times only, so that coefficients can be computed before any
            state exists.
        tensors: the part that the move uses.
        x: the state's ``x`` at the end of the step; another ``x`` was changed from outside since.
        owner: the solver, the only one that reads it.
    """

    history: Any
    tensors: Any
    x: Tensor
    owner: Solver


class State(NamedTuple):
    """A batch of trajectories at one time, or each at its own.

    Attributes:
        x: ``(B, ...)``.
        t: the time, in the form that `scorefield.process.align` returns.
        noise: the source of all noise to come. A state that goes back to more noise and comes down
            again follows a new Brownian path from there.
        memory: data for the next step of the solver that made this state; None at the start.
        error: an estimate of the step's error, shaped like ``x``, if requested.
    """

    x: Tensor
    t: Tensor
    noise: Noise
    memory: Memory | None = None
    error: Tensor | None = None


class Move(ABC):
    """One step of a solver on one field between two times, with its coefficients computed.

    Attributes:
        history: the `Memory.history` after the step.
    """

    history: Any = None

    @abstractmethod
    def __call__(self, state: State) -> State:
        """Carry a state from the first time to the second."""

    def transition(self, state: State) -> Prior:
        """Return the distribution of the new ``x`` given ``state``: independent Gaussians.

        `Prior.log_prob` is the transition's log-probability.

        Raises:
            ValueError: the step adds no noise, or its distribution is not one Gaussian.
        """
        raise ValueError(
            "this step is not one Gaussian transition and has no density: use EulerMaruyama, "
            "DDIM(eta > 0), DDPM, ReverseDiffusion or a noisy Multistep."
        )


class Solver(ABC):
    """A rule for one step. Subclasses are frozen dataclasses without state of their own.

    A subclass writes `moves`. Its traits are class attributes or properties; the defaults are those
    of a deterministic method of order 1 with one call of the field a step.
    """

    @property
    def order(self) -> int:
        """The order of convergence on the probability-flow ODE."""
        return 1

    @property
    def weak_order(self) -> int | None:
        """The order at which the samples' distribution converges; None if no noise is added."""
        return None

    @property
    def calls(self) -> int:
        """Calls of the field per step, start-up not counted."""
        return 1

    @property
    def parallel(self) -> int:
        """The number of calls that a step makes at once, as one call of a larger batch."""
        return 1

    @property
    def history_length(self) -> int:
        """The number of earlier steps whose estimates a step uses."""
        return 0

    @property
    def error_order(self) -> float | None:
        """The order in the step size of the error estimate; None without an estimate."""
        return None

    @property
    def in_place(self) -> bool:
        """Whether steps stay at their time and change ``x`` only, as those of a corrector do."""
        return False

    @abstractmethod
    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        """Return the moves of ``N`` steps, the ``k``-th from ``t[k]`` to ``s[k]``.

        Args:
            t, s: ``(N, ...)``, each time in the form that `scorefield.process.align` returns.
            history: `Memory.history` of the state that the first step starts from, or None.
            error: fill `State.error`; for solvers with an `error_order`.

        Raises:
            ValueError: times that the solver cannot step between.
        """

    def forget(self, history: Any, t: Tensor) -> Any:
        """Return the part of the history still valid at ``t`` after ``x`` was changed there."""
        return None

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        """Return the part of the memory still valid at ``t`` with the changed state ``x``."""
        return None

    def choose(self, mask: Tensor, new: State, old: State, x: Tensor) -> Memory | None:
        """Return the memory of the new state for samples in ``mask``, of the old for the others.

        Both states have a time per sample, and ``x`` is the state after the choice. Called for
        solvers with an `error_order`.
        """
        return None

    def settled(self, state: State) -> State:
        """Return the state without any memory that is of another solver or no longer valid."""
        memory = state.memory
        if memory is None or (memory.x is state.x and memory.owner == self):
            return state
        own = memory.owner == self
        return state._replace(memory=self.moved(memory, state.x, state.t) if own else None)

    def advance(self, field: ScoreField, state: State, s: Tensor, *, error: bool = False) -> State:
        """Return the state at time ``s`` after one step.

        ``s`` has the form of ``state.t`` and lies on either side of it unless the solver steps in
        one direction only.

        Raises:
            ValueError: ``s`` is outside the process's interval and is not `Process.t_data`; an
                error estimate is requested from a solver without one; noise for a field without a
                score; or as `moves`.
        """
        check_noise(self, field)
        if error and self.error_order is None:
            raise ValueError(f"error=True: {self!r} has no error estimate.")
        t, s = align(state.t, state.x), align(s, state.x)
        process = field.process
        if s.is_cpu and not process.contains(s):
            end = process.t_data
            if end is None or not bool((s == end).all()):
                outside = float(s.min() if bool(s.min() < process.t_min) else s.max())
                raise ValueError(
                    f"s={outside}: outside [{process.t_min}, {process.t_max}] of {process!r}."
                )
        state = self.settled(state if t is state.t else state._replace(t=t))
        history = None if state.memory is None else state.memory.history
        t, s = (process.lift(time[None]) for time in (state.t, s))
        (move,) = self.moves(field, t, s, history, error=error)
        return move(state)


def transition(mean: Tensor, std: Coefficient) -> Prior:
    """Return the Gaussian distribution of a step.

    Raises:
        ValueError: a standard deviation of 0.
    """
    spread = torch.as_tensor(std, dtype=torch.float64)
    if not bool((spread > 0).all()):
        raise ValueError("the step adds no noise: its distribution has no density.")
    return Prior(mean, spread)


def check_solver(name: str, value: object) -> None:
    """Reject an argument that is not a solver, such as a class or a tensor of times."""
    check_instance(name, value, Solver, "one such as Heun()")


def check_noise(solver: Solver, field: ScoreField) -> None:
    """Reject a solver that adds noise, or does not follow the ODE, for a field without a score."""
    if not field.has_score and (solver.weak_order is not None or solver.order < 1):
        raise ValueError(
            f"solver={solver!r}: needs a field with a score, and {NO_SCORE}. Use a solver of the "
            "ODE, such as Multistep(), Heun() or DDIM()."
        )


def check_towards_data(name: str, t: Tensor, s: Tensor) -> None:
    """Reject steps towards noise."""
    if bool((s > t).any()):
        raise ValueError(
            f"{name} goes towards data, not from t={float(t.min()):g} to s={float(s.max()):g}: "
            "use a solver of the ODE, or process.diffuse."
        )
