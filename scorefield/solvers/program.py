r"""Programs: one solver above a noise level, another below it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import Prior, Process
from scorefield.solvers.base import Memory, Move, Solver, State, check_solver

SLACK = 1e-9  # the rounding error allowed in the logarithm of a noise level


@dataclass(frozen=True)
class Program(Solver):
    """Several solvers in turn, switched at noise levels.

    A step belongs to the segment of its noisier end, so a program runs both ways.

    Args:
        solvers: from most noise to least.
        levels: falling values of ``sigma / alpha``, one fewer than solvers: at ``levels[k]`` comes
            the change from ``solvers[k]`` to ``solvers[k + 1]``.

    Raises:
        ValueError: the numbers of solvers and levels do not fit, or levels do not fall to 0.
    """

    solvers: tuple[Solver, ...]
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("solvers", "levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for k, solver in enumerate(self.solvers):
            check_solver(f"solvers[{k}]", solver)
        if len(self.levels) + 1 != len(self.solvers):
            raise ValueError(
                f"levels={self.levels}: {len(self.solvers)} solvers need one level fewer, at which "
                "one solver follows another."
            )
        ends = (math.inf, *self.levels, 0.0)
        if not all(a > b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"levels={self.levels}: give falling values of sigma/alpha above 0.")

    @property
    def order(self) -> int:
        return min(solver.order for solver in self.solvers)

    @property
    def weak_order(self) -> int | None:
        if all(solver.weak_order is None for solver in self.solvers):
            return None
        return min(solver.weak_order or solver.order for solver in self.solvers)

    @property
    def calls(self) -> int:
        return max(solver.calls for solver in self.solvers)

    @property
    def history_length(self) -> int:
        return max(solver.history_length for solver in self.solvers)

    @property
    def in_place(self) -> bool:
        return all(solver.in_place for solver in self.solvers)

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        segments = self._segments(field.process, torch.maximum(t, s))
        moves: list[Move] = []
        for segment, run in itertools.groupby(range(len(t)), lambda k: segments[k]):
            steps = list(run)
            inner = history[1] if history is not None and history[0] == segment else None
            parts = self.solvers[segment].moves(field, t[steps], s[steps], inner)
            moves += [_InSegment(self, segment, part, (segment, part.history)) for part in parts]
            history = moves[-1].history
        return moves

    def forget(self, history: Any, t: Tensor) -> Any:
        if history is None:
            return None
        segment, inner = history
        return segment, self.solvers[segment].forget(inner, t)

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        if memory.tensors is None:
            return memory
        segment = memory.history[0]
        inner = self.solvers[segment].moved(memory.tensors, x, t)
        return Memory((segment, None if inner is None else inner.history), inner, x, self)

    def _segments(self, process: Process, t: Tensor) -> list[int]:
        """Return the places of the solvers for steps whose noisier ends are ``t`` ``(N,)``."""
        log_ratio = -process.half_log_snr(t)
        place = torch.zeros_like(t, dtype=torch.long)
        for level in self.levels:
            place = place + (log_ratio <= math.log(level) + SLACK)
        if place.numel() > len(place):
            raise ValueError("a program needs one time for the batch: give a grid.")
        places: list[int] = place.flatten().tolist()
        return places


@dataclass(frozen=True)
class _InSegment(Move):
    """A move of one of the solvers. The memory's tensors are that solver's own `Memory`."""

    owner: Program
    segment: int
    move: Move
    history: Any

    def __call__(self, state: State) -> State:
        end = self.move(self._inner(state))
        return end._replace(memory=Memory(self.history, end.memory, end.x, self.owner))

    def transition(self, state: State) -> Prior:
        return self.move.transition(self._inner(state))

    def _inner(self, state: State) -> State:
        memory = state.memory
        same = memory is not None and memory.history[0] == self.segment
        return state._replace(memory=memory.tensors if memory is not None and same else None)
