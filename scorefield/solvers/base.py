r"""What a solver is: a rule that answers where a state stands at another time.

A step has two parts. Its coefficients depend on times alone; they are worked out beforehand, in
float64 and for a whole grid at once, and make a `Move`. The move then carries states across the
step, as often as wanted, and is nothing but arithmetic on ``x`` and calls of the field.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import Noise
from scorefield.process import Prior


class Memory(NamedTuple):
    """What a solver finds at its next step: ``plan`` it reads beforehand, ``kept`` in the move.

    ``plan`` is made of times alone, so that moves can be worked out before any state exists. ``x``
    is where the solver left the state, to tell whether something moved it since.
    """

    plan: Any
    kept: Any
    x: Tensor


class State(NamedTuple):
    """Where a batch of trajectories stands.

    Attributes:
        x: ``(B, ...)``.
        t: the time, in the form `scorefield.process.align` returns.
        noise: the random numbers to come.
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
        plan: the `Memory.plan` it leaves behind.
    """

    plan: Any

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
    def history(self) -> int:
        """How many estimates of earlier steps a step rests on."""

    @property
    @abstractmethod
    def error_order(self) -> int | None:
        """The order in the step size of the error that `State.error` estimates; None without."""

    @abstractmethod
    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, plan: Any = None, *, error: bool = False
    ) -> list[Move]:
        """Return the moves of ``N`` steps, the ``k``-th from ``t[k]`` to ``s[k]``.

        Args:
            t, s: ``(N, ...)``, each time in the form `scorefield.process.align` returns.
            plan: the `Memory.plan` of the state the first step starts from; None at the start.
            error: fill `State.error`; for solvers that have an `error_order`.

        Raises:
            ValueError: times the solver cannot step between.
        """

    @abstractmethod
    def forget(self, plan: Any, t: Tensor) -> Any:
        """Return what of a plan still holds at ``t`` if something has moved ``x`` there."""

    @abstractmethod
    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        """Return what of a memory still holds at ``t`` now that the state stands at ``x``."""

    def settled(self, at: State) -> State:
        """Return the state with a memory that holds where it stands, even if it was moved there."""
        if at.memory is None or at.memory.x is at.x:
            return at
        return at._replace(memory=self.moved(at.memory, at.x, at.t))

    def step(self, field: ScoreField, at: State, s: Tensor, *, error: bool = False) -> State:
        """Return the state at time ``s``, given the state ``at`` another time.

        ``s`` has the form of ``at.t`` and may lie to either side of it unless the solver says
        otherwise.
        """
        at = self.settled(at)
        plan = None if at.memory is None else at.memory.plan
        return self.moves(field, at.t[None], s[None], plan, error=error)[0](at)


def check_towards_data(name: str, t: Tensor, s: Tensor) -> None:
    """Refuse steps towards noise."""
    if bool((s > t).any()):
        raise ValueError(
            f"{name} goes towards data, not from t = {float(t.min()):g} to {float(s.max()):g}: "
            "use a solver of the ODE, or process.diffuse."
        )
