r"""Runge-Kutta methods on the probability-flow ODE, in the process's own time.

A method is a tableau ``(a, b, c)``. With ``h = s - t``::

    k_i = velocity(x + h sum_j a_ij k_j, t + c_i h)
    x_s = x + h sum_i b_i k_i

On EDM's clock and scale: ``field.under(EDM())``.

Reference: Hairer, Nørsett and Wanner (1993), Solving Ordinary Differential Equations I, chapter II.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import cast
from scorefield.solvers.base import Solver, State


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: stages ``a``, weights ``b``, nodes ``c``, and its order."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]


class RungeKutta(Solver, ABC):
    """A solver made of one tableau."""

    tableau: ClassVar[Tableau]

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def calls(self) -> int:
        return len(self.tableau.b)

    def step(self, field: ScoreField, at: State, s: Tensor) -> State:
        h = s - at.t
        slopes: list[Tensor] = []
        for row, node in zip(self.tableau.a, self.tableau.c, strict=True):
            # t + c h exactly s at c = 1, so that no call leaves the interval by rounding
            t = s if node == 1 else at.t + node * h
            slopes.append(field(_advance(at.x, h, row, slopes), t).velocity)
        x = _advance(at.x, h, self.tableau.b, slopes)
        return replace(at, x=x, t=s, memory=None, error=None)


def _advance(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + cast(h * weight, x) * slope
    return x


_EULER = Tableau(order=1, a=((),), b=(1.0,), c=(0.0,))
_MIDPOINT = Tableau(order=2, a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5))
_HEUN = Tableau(order=2, a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0))
_BOSH3 = Tableau(order=3, a=((), (0.5,), (0.0, 0.75)), b=(2 / 9, 1 / 3, 4 / 9), c=(0.0, 0.5, 0.75))
_RK4 = Tableau(
    order=4,
    a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 0.5, 0.5, 1.0),
)


@dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method, order 1, one call a step."""

    tableau: ClassVar[Tableau] = _EULER


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    """The explicit midpoint rule, order 2, two calls a step."""

    tableau: ClassVar[Tableau] = _MIDPOINT


@dataclass(frozen=True)
class Heun(RungeKutta):
    """The explicit trapezoidal rule, order 2, two calls a step."""

    tableau: ClassVar[Tableau] = _HEUN


@dataclass(frozen=True)
class Bosh3(RungeKutta):
    """Bogacki and Shampine's method (1989), order 3, three calls a step."""

    tableau: ClassVar[Tableau] = _BOSH3


@dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical method, order 4, four calls a step."""

    tableau: ClassVar[Tableau] = _RK4
