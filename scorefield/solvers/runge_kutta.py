r"""Runge-Kutta methods on the probability-flow ODE, in the process's own time.

A method is a tableau ``(a, b, c)``. With ``h = s - t``::

    k_i = velocity(x + h sum_j a_ij k_j, t + c_i h)
    x_s = x + h sum_i b_i k_i

A method with an embedded one, of weights ``b^``, estimates its error as ``h sum_i (b_i - b^_i)
k_i``. If ``b^`` has one entry more, the last one is the weight of the slope at ``(x_s, s)``, which
is then the first slope of the next step ("first same as last").

For EDM's time and scale: ``field.under(EDM())``.

Reference: Hairer, Nørsett and Wanner (1993), Solving Ordinary Differential Equations I, chapter II.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: stages ``a``, weights ``b``, nodes ``c``, and its order.

    ``embedded`` are the weights ``b^`` of a method of one order less, if there is one. A share
    ``q``, `through`, of the end may start from the last stage's point ``x_m`` instead of ``x``, so
    that one slope cancels: ``x_s = (1 - q) x + q x_m + h sum_j (b_j - q a_mj) k_j``.
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    embedded: tuple[float, ...] = ()
    through: float = 0.0


class RungeKutta(LinearSolver, ABC):
    """A solver made of one tableau."""

    tableau: ClassVar[Tableau]

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def calls(self) -> int:
        return len(self.tableau.b)

    @property
    def error_order(self) -> float | None:
        return self.order if self.tableau.embedded else None

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        tableau, process, h = self.tableau, t.process, s.t - t.t
        # at c = 0 and 1 the step's own ends, so that no call leaves the interval by rounding
        ends = {0.0: t, 1.0: s}
        levels = [
            ends.get(node) or Level(process, at, *process.coefficients(at))
            for node, at in ((node, t.t + node * h) for node in tableau.c)
        ]
        rates = [level.rates for level in levels]

        def row(of_x: float, weights: Sequence[float]) -> Row:
            slopes = [(h * w * a, h * w * b) for w, (a, b) in zip(weights, rates, strict=False)]
            return Row(of_x, tuple(reversed(slopes)))

        points = [None, *(row(1.0, weights) for weights in tableau.a[1:])]
        calls, end = list(zip(levels, points, strict=True)), row(1.0, tableau.b)
        if past.starts_at(t):
            calls = calls[1:]
        if tableau.through:
            share, last = tableau.through, levels[-1]
            rest = [b - share * a for a, b in zip_longest(tableau.a[-1], tableau.b, fillvalue=0.0)]
            newest, *before = row(1 - share, rest).means
            newest = newest[0] + share * last.alpha, newest[1] + share * last.sigma
            end = Row(1 - share, (newest, *before))
        if not error:
            return Rule(calls, end)
        weights = [b - other for b, other in zip_longest(tableau.b, tableau.embedded, fillvalue=0)]
        if len(weights) == len(rates):
            return Rule(calls, end, error=row(0.0, weights))
        rates.append(s.rates)
        return Rule((*calls, (s, end)), None, error=row(0.0, weights), keep=slice(1))


_EULER = Tableau(order=1, a=((),), b=(1.0,), c=(0.0,))
_MIDPOINT = Tableau(2, a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5), embedded=(1.0, 0.0))
_HEUN = Tableau(2, a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0), embedded=(1.0, 0.0), through=0.5)
_BOSH3 = Tableau(
    order=3,
    a=((), (0.5,), (0.0, 0.75)),
    b=(2 / 9, 1 / 3, 4 / 9),
    c=(0.0, 0.5, 0.75),
    embedded=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
)
_RK4 = Tableau(
    order=4,
    a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 0.5, 0.5, 1.0),
)
_DOPRI5 = Tableau(
    order=5,
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    embedded=(
        5179 / 57600,
        0.0,
        7571 / 16695,
        393 / 640,
        -92097 / 339200,
        187 / 2100,
        1 / 40,
    ),
)
_TSIT5 = Tableau(
    order=5,
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ),
    ),
    b=(
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
    ),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
    embedded=(
        0.09468075576583945,
        0.009183565540343254,
        0.4877705284247616,
        1.234297566930479,
        -2.7077123499835256,
        1.866628418170587,
        1 / 66,
    ),
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


@dataclass(frozen=True)
class Dopri5(RungeKutta):
    """Dormand and Prince's method (1980), order 5, six calls a step."""

    tableau: ClassVar[Tableau] = _DOPRI5


@dataclass(frozen=True)
class Tsit5(RungeKutta):
    """Tsitouras's method (2011), order 5, six calls a step, with the smaller error of the two."""

    tableau: ClassVar[Tableau] = _TSIT5
