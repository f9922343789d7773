r"""Solvers on a space: each step is one of vectors, in the coordinates around its start.

The points near ``x`` are ``exp(x, v)`` for tangent vectors ``v``, and a field reads there::

    w(v) = (d exp_x)_v^{-1} field(exp(x, v))                                        (1)

A step starts from ``v = 0`` and follows (1) as any vectors, so it keeps the order of its solver,
and ends at the point ``exp(x, v)``. With noise, which is drawn in the tangent space at ``x``, it is
a step of a geodesic random walk. On a Euclidean space (1) is the field itself.

Reference: Munthe-Kaas (1999), High order Runge-Kutta methods on manifolds; Jørgensen (1975), The
central limit problem for geodesic random walks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, ScoreField
from scorefield.noise import Noise
from scorefield.process import Coefficient
from scorefield.solvers.base import Move, Solver, State
from scorefield.solvers.linear import LinearSolver
from scorefield.solvers.one_step import OneStep


@dataclass(frozen=True)
class Geodesic(Solver):
    """A solver whose steps follow geodesics, on fields of a space; elsewhere the solver itself.

    `scorefield.sample` and the others wrap the solver of a field on a space in it.

    Args:
        solver: a solver whose steps use no earlier ones: of the ODE, or of the SDE to weak order 1.

    Raises:
        ValueError: another solver.
    """

    solver: Solver

    def __post_init__(self) -> None:
        solver = self.solver
        plain = isinstance(solver, LinearSolver | OneStep) and not solver.in_place
        if not plain or solver.history_length or (solver.weak_order or 1) > 1 or solver.order < 1:
            raise ValueError(
                f"solver={solver!r}: cannot step on a manifold, where vectors at two points do not "
                "add. Use Euler, Heun, RK4, Dopri5, Tsit5 or Singlestep, or EulerMaruyama with "
                "noise."
            )

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def weak_order(self) -> int | None:
        return self.solver.weak_order

    @property
    def calls(self) -> int:
        return self.solver.calls

    @property
    def error_order(self) -> float | None:
        return self.solver.error_order

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        if field.process.space is None:
            return self.solver.moves(field, t, s, history, error=error)
        if error:  # one by one: no step uses a call of another
            steps = range(len(t))
            one = [self.solver.moves(field, t[k : k + 1], s[k : k + 1], error=True) for k in steps]
            return [_Step(field, move) for (move,) in one]
        return [_Step(field, move) for move in self.solver.moves(field, t, s)]


@dataclass(frozen=True)
class _Step(Move):
    field: ScoreField
    move: Any  # with a field, as those of both kinds of solvers have

    def __call__(self, state: State) -> State:
        space, x = self.field.process.space, state.x
        noise = _Tangent(space, x, state.noise)
        around = replace(self.move, field=_Around(self.field, x))
        end: State = around(State(torch.zeros_like(x), state.t, noise))  # type: ignore[arg-type]
        return end._replace(x=space.exp(x, end.x), noise=end.noise.noise, memory=None)  # type: ignore[attr-defined]


class _Around(ScoreField):
    """A field of tangent vectors at points ``x``, by (1)."""

    def __init__(self, base: ScoreField, x: Tensor) -> None:
        process: Any = base.process
        super().__init__(process.flat, base.shape)
        self.base, self.x = base, x

    @property
    def stackable(self) -> bool:
        return False

    def prepare_times(self, t: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[Instant]:
        return self.base.instants(t)

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        instant = at.prepared if at.process is self.process else at
        space = self.base.process.space
        eps = self.base(space.exp(self.x, x), instant, **condition).eps
        flat = Instant(self.process, at.t, at.alpha, at.sigma)
        return Estimate.from_eps(x, flat, space.pull_back(self.x, x, eps))


@dataclass(frozen=True)
class _Tangent:
    """Noise whose draws are tangent vectors at ``x``."""

    space: Any
    x: Tensor
    noise: Noise

    def normal(self, like: Tensor) -> tuple[Tensor, _Tangent]:
        z, noise = self.noise.normal(like)
        return self.space.standard_normal(self.x, z), replace(self, noise=noise)

    def increment(
        self, start: Coefficient, end: Coefficient, like: Tensor
    ) -> tuple[Tensor, _Tangent]:
        z, noise = self.noise.increment(start, end, like)
        return self.space.standard_normal(self.x, z), replace(self, noise=noise)
