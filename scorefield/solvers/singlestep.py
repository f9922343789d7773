r"""Single-step exponential integrators: DPM-Solver's 2S and 3S, for any prediction.

With ``u_i = u_t + c_i (u_s - u_t)``, the prediction at each stage is interpolated by a line through
the step's start and the stage before, and integrated as `Multistep` does::

    order 2:  c = 0, 1/2         order 3:  c = 0, 1/3, 2/3

so that a step is DDIM plus corrections. Two and three calls a step, no memory; the difference to
the result of one order less, from the same calls, estimates the error.

Reference: Lu et al. (2022), arXiv:2206.00927, algorithms 1 and 2; arXiv:2211.01095.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.field import Pair
from scorefield.process import Process
from scorefield.solvers.linear import LinearSolver, Past, Row, Rule
from scorefield.solvers.prediction import DataPrediction, Exact, Prediction, Quadrature, departures

_STAGES = {2: (0.5,), 3: (1 / 3, 2 / 3)}


@dataclass(frozen=True)
class Singlestep(LinearSolver):
    """DPM-Solver-2S or -3S; with `DataPrediction` DPM-Solver++.

    Args:
        order: 2 or 3: as many calls a step.
        prediction: what is interpolated.
        quadrature: how the lines are integrated; exactly unless given.

    Raises:
        ValueError: another order.
    """

    order: int = 2
    prediction: Prediction = DataPrediction()
    quadrature: Quadrature = Exact()

    def __post_init__(self) -> None:
        if self.order not in _STAGES:
            raise ValueError(f"order = {self.order}: Singlestep has the orders 2 and 3.")

    @property
    def weak_order(self) -> int | None:
        return None

    @property
    def calls(self) -> int:
        return self.order

    @property
    def history_length(self) -> int:
        return 0

    @property
    def error_order(self) -> float | None:
        return self.order

    def rule(self, process: Process, t: Tensor, s: Tensor, past: Past, error: bool) -> Rule:
        start, end = (self.prediction.variable(-process.half_log_snr(u)) for u in (t, s))
        times = [
            process.time(-self.prediction.log_ratio(start + c * (end - start)))
            for c in _STAGES[self.order]
        ]
        rows = [Row(0.0, (process.coefficients(times[0]),))]
        for stage, goal in zip(times, [*times[1:], s], strict=True):
            rows.append(self._line(process, t, stage, goal, between=len(rows) - 1))
        calls = tuple(zip((t, *times), (None, *rows), strict=False))
        if not error:
            return Rule(calls, rows[-1])
        lower: Sequence[Pair] = (process.coefficients(s),)
        if self.order == 3:
            lower = self._line(process, t, times[0], s, between=0).means
        zero = torch.zeros_like(t)
        return Rule(calls, rows[-1], error=_difference(rows[-1], Row(0.0, ((zero, zero), *lower))))

    def _line(self, process: Process, t: Tensor, stage: Tensor, goal: Tensor, between: int) -> Row:
        """Return the row from t to a goal, by the line through t and a stage.

        The stages called ``between`` have no part in it.
        """
        nodes, (alpha, sigma) = (stage, t), process.coefficients(goal)
        n = self.prediction.norm(alpha, sigma)
        weights = self.quadrature(self.prediction, process, nodes, t, goal, 0.0)
        last, base = departures(self.prediction, process, nodes, weights, 1, n)
        zero = torch.zeros_like(t)
        return Row(0.0, (last, *[(zero, zero)] * between, (base[0] + alpha, base[1] + sigma)))


def _difference(one: Row, other: Row) -> Row:
    pairs = zip(one.means, other.means, strict=True)
    return Row(0.0, tuple((a - c, b - d) for (a, b), (c, d) in pairs))
