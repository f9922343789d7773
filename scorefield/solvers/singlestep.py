r"""Single-step exponential integrators: DPM-Solver's 2S and 3S, for any prediction.

With ``u_i = u_t + c_i (u_s - u_t)``, the prediction at each stage is interpolated by a line through
the step's start and the stage before, and integrated as `Multistep` does::

    order 2:  c = 0, 1/2         order 3:  c = 0, 1/3, 2/3

so that a step is DDIM plus corrections. A step makes two or three calls and stores nothing. The
error estimate is the difference to the result of one order less, from the same calls.

Reference: Lu et al. (2022), arXiv:2206.00927, algorithms 1 and 2; arXiv:2211.01095.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scorefield.field import Pair
from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule
from scorefield.solvers.prediction import DataPrediction, Exact, Prediction, Quadrature, departures

_STAGES = {2: (0.5,), 3: (1 / 3, 2 / 3)}


@dataclass(frozen=True)
class Singlestep(LinearSolver):
    """DPM-Solver-2S or -3S; with `DataPrediction` DPM-Solver++.

    Args:
        order: 2 or 3: as many calls a step.
        prediction: the interpolated quantity.
        quadrature: how the lines are integrated.

    Raises:
        ValueError: another order.
    """

    order: int = 2
    prediction: Prediction = DataPrediction()
    quadrature: Quadrature = Exact()

    def __post_init__(self) -> None:
        if self.order not in _STAGES:
            raise ValueError(f"order={self.order}: Singlestep has the orders 2 and 3.")

    @property
    def calls(self) -> int:
        return self.order

    @property
    def error_order(self) -> float | None:
        return self.order

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        u, process = self.prediction, t.process
        start, end = (u.variable(-process.half_log_snr(level.t)) for level in (t, s))
        inner = (start + c * (end - start) for c in _STAGES[self.order])
        times = [process.time(-u.log_ratio(place)) for place in inner]
        stages = [Level(process, at, *process.coefficients(at)) for at in times]
        rows = [Row(0.0, ((stages[0].alpha, stages[0].sigma),))]
        for stage, goal in zip(stages, [*stages[1:], s], strict=True):
            rows.append(self._line(t, stage, goal, between=len(rows) - 1))
        calls = tuple(zip((t, *stages), (None, *rows), strict=False))
        if not error:
            return Rule(calls, rows[-1])
        lower: Sequence[Pair] = ((s.alpha, s.sigma),)
        if self.order == 3:
            lower = self._line(t, stages[0], s, between=0).means
        zero = torch.zeros_like(t.t)
        return Rule(calls, rows[-1], error=_difference(rows[-1], Row(0.0, ((zero, zero), *lower))))

    def _line(self, t: Level, stage: Level, goal: Level, between: int) -> Row:
        """Return the row from t to a goal, by the line through t and a stage.

        ``between`` counts the stages between t and that one, which the line does not use.
        """
        nodes = (stage, t)
        weights = self.quadrature(self.prediction, nodes, t, goal, 0.0)
        last, base = departures(self.prediction, nodes, weights, 1, self.prediction.norm(goal))
        zero = torch.zeros_like(t.t)
        constant = base[0] + goal.alpha, base[1] + goal.sigma
        return Row(0.0, (last, *[(zero, zero)] * between, constant))


def _difference(one: Row, other: Row) -> Row:
    pairs = zip(one.means, other.means, strict=True)
    return Row(0.0, tuple((a - c, b - d) for (a, b), (c, d) in pairs))
