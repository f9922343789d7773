r"""Steps that are undone to the last digits.

Any single step ``Psi``, towards noise or data, gives a step of a pair of states ``(u, w)`` with an
algebraic inverse, for any step size. With the increment ``D_ts(w) = Psi_ts(w) - w`` a step towards
data is::

    u_s = u_t + D_ts(w_t),    w_s = w_t - D_st(u_s)                                  (1)

and the one back towards noise solves it for ``(u_t, w_t)``::

    w_t = w_s + D_st(u_s),    u_t = u_s - D_ts(w_t)                                  (2)

The states are ``x`` divided by the deviation of noised data, so that increments are small at every
noise level. The published method contracts the pair by a factor at every step. It is left out here,
because its inverse expands the pair, and the steps towards noise would not converge.

Reference: McCallum and Foster (2024), arXiv:2410.11648.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import Coefficient, mix, unstack
from scorefield.solvers.base import Memory, Move, Solver, State
from scorefield.solvers.renoise import check_base


@dataclass(frozen=True)
class Reversible(Solver):
    """A pair of states (1) around single steps of a base; twice the base's calls a step.

    The partner of the state is its memory: the steps back from a state with its memory end at the
    start. A state without memory begins as its own partner.

    Args:
        base: the solver of the ODE, without memory.

    Raises:
        ValueError: a base that uses earlier steps or adds noise; steps in different directions for
            different samples.
    """

    history_length = 1
    base: Solver

    def __post_init__(self) -> None:
        check_base("Reversible", self.base)

    @property
    def order(self) -> int:
        return self.base.order

    @property
    def calls(self) -> int:
        return 2 * self.base.calls

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        down = s < t
        if bool(down.any()) and not bool(down.all()):
            raise ValueError(
                "s: Reversible steps all samples in one direction, to data or to noise."
            )
        c = field.data_std if field.data_std > 0 else 1.0
        here, there = (unstack(field.process.prior(0.0, c**2, time).std) for time in (t, s))
        ways = self.base.moves(field, t, s), self.base.moves(field, s, t)
        kind = _Down if bool(down.any()) else _Up
        rows = zip(*ways, here, there, strict=True)
        return [kind(self, *row, t=a, s=b) for row, a, b in zip(rows, t, s, strict=True)]


@dataclass(frozen=True)
class _Pair(Move):
    owner: Reversible
    forth: Move
    back: Move
    here: Coefficient
    there: Coefficient
    t: Tensor
    s: Tensor

    def _increment(self, u: Tensor, noise: Any, forth: bool) -> Tensor:
        """Return ``D`` of the base's step from ``t`` to ``s``, or back."""
        move, time = (self.forth, self.t) if forth else (self.back, self.s)
        scale, other = (self.here, self.there) if forth else (self.there, self.here)
        end = move(State(mix((scale, u)), time, noise)).x
        return mix((1 / other, end), (-1.0, u))

    def _pair(self, state: State) -> tuple[Tensor, Tensor]:
        partner = state.x if state.memory is None else state.memory.tensors
        return mix((1 / self.here, state.x)), mix((1 / self.here, partner))

    def _state(self, state: State, u: Tensor, w: Tensor) -> State:
        x = mix((self.there, u))
        return State(x, self.s, state.noise, Memory(None, mix((self.there, w)), x, self.owner))


@dataclass(frozen=True)
class _Down(_Pair):
    def __call__(self, state: State) -> State:
        u, w = self._pair(state)
        u = u + self._increment(w, state.noise, forth=True)
        return self._state(state, u, w - self._increment(u, state.noise, forth=False))


@dataclass(frozen=True)
class _Up(_Pair):
    def __call__(self, state: State) -> State:
        u, w = self._pair(state)
        w = w + self._increment(u, state.noise, forth=True)
        return self._state(state, u - self._increment(w, state.noise, forth=False), w)
