r"""What a solver is: a rule that answers where a state stands at another time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import Noise


@dataclass(frozen=True)
class State:
    """Where a batch of trajectories stands.

    Attributes:
        x: ``(B, ...)``.
        t: the time, in the form `scorefield.process.align` returns.
        noise: the random numbers to come.
        memory: what the solver that made this state wants to find at its next step; None at the
            start. Only that solver reads it.
        error: an estimate of the step's error, shaped like ``x``, from solvers that have one.
    """

    x: Tensor
    t: Tensor
    noise: Noise
    memory: Any = None
    error: Tensor | None = None


class Solver(ABC):
    """A rule for one step. Subclasses are frozen dataclasses and keep no state of their own."""

    @property
    @abstractmethod
    def order(self) -> int:
        """The order of convergence: strong for the ODE's solvers, weak for the SDE's."""

    @property
    @abstractmethod
    def calls(self) -> int:
        """Field calls per step, start-up aside."""

    @abstractmethod
    def step(self, field: ScoreField, at: State, s: Tensor) -> State:
        """Return the state at time ``s``, given the state ``at`` another time.

        ``s`` has the form of ``at.t`` and may lie to either side of it unless the solver says
        otherwise.
        """
