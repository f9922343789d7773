r"""Multistep exponential integrators: one class, one coefficient routine.

A step integrates equation (2) of `scorefield.solvers.prediction` with a polynomial through the
last values of the prediction ``F``. What is interpolated is the departure ``F - G`` from the value
``G(u)`` that the latest means ``x0`` and ``eps``, held fixed, would give; so, on the ODE, a step is
DDIM plus a correction, of order 1 DDIM itself::

    x_s = alpha_s x0 + sigma_s eps + n_s sum_j w_j (F_j - G_j)                      (1)

Nothing large cancels, at either end. With ``eta > 0``, towards the SDE, ``G`` is integrated too.

The corrector (UniC) repairs a step once the field has been called at its end: it adds the
difference that this estimate, as one more node, makes to the step's correction. The call serves the
next step too, so the corrector costs none and raises the order by one.

Start-up: a method of order 3 corrects its first step within the step, and the call at its end then
serves the second; orders 4 and 5 begin with one and two steps of the classical Runge-Kutta method
in the noise angle. So the order holds from the first step on. ``start="rising"`` spends no such
calls: order 1, 2, 3, ... as published methods do; the error it leaves is small where the path
starts in noise.

Reference: Lu et al. (2022), arXiv:2211.01095; Zhang and Chen (2022), arXiv:2204.13902; Zhao et al.
(2023), arXiv:2302.04867 (the corrector).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from scorefield.process import Process
from scorefield.solvers.base import check_towards_data
from scorefield.solvers.linear import LinearSolver, Past, Row, Rule, known_at
from scorefield.solvers.prediction import AnglePrediction, Exact, Prediction, Quadrature, departures

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Multistep(LinearSolver):
    """The multistep method (1); one call a step.

    Estimates of earlier steps serve also if something else moved ``x`` since.

    Args:
        order: 1 (DDIM) to 5. With the corrector, the prediction itself has one order less.
        prediction: what is interpolated.
        quadrature: how it is integrated; exactly, in the prediction's own variable, unless given.
        corrector: whether each step is corrected in the next.
        eta: 0 for the ODE, 1 for the reverse SDE, or another number >= 0. With noise, steps go
            towards data only, the start is a rising one, and the law converges at order 2 at most.
        start: ``"full"`` keeps the order from the first step on, ``"rising"`` spends no calls.

    Raises:
        ValueError: another order, eta or start; a corrector with order 1 or ``eta > 0``; at a time
            where the polynomial's variable is infinite (log-SNR at ``alpha = 0``).
    """

    order: int = 3
    prediction: Prediction = AnglePrediction()
    quadrature: Quadrature = Exact()
    corrector: bool = False
    eta: float = 0.0
    start: Literal["full", "rising"] = "full"

    def __post_init__(self) -> None:
        if self.order not in range(1, 6) or not isinstance(self.order, Integral):
            raise ValueError(f"order = {self.order!r}: Multistep has the orders 1 to 5.")
        if callable(self.eta) or not 0 <= self.eta < math.inf:
            raise ValueError(
                f"eta = {self.eta!r}: give 0 (the ODE), 1 (the SDE) or another number; only "
                "EulerMaruyama and StochasticHeun take a function of time."
            )
        if self.start not in ("full", "rising"):
            raise ValueError(f'start = {self.start!r}: give "full" or "rising".')
        if self.corrector and (self.order == 1 or self.eta):
            raise ValueError(
                f"a corrector needs order >= 2 and the ODE, not order = {self.order} with eta = "
                f"{self.eta:g}: leave one of them out."
            )

    @property
    def weak_order(self) -> int | None:
        return min(self.order, 2) if self.eta else None

    @property
    def calls(self) -> int:
        return 1

    @property
    def history_length(self) -> int:
        return self.order - 1

    @property
    def error_order(self) -> float | None:
        return None

    @property
    def _width(self) -> int:
        """How many values the prediction rests on."""
        return self.order - self.corrector

    def rule(self, process: Process, t: Tensor, s: Tensor, past: Past, error: bool) -> Rule:
        if self.eta:
            check_towards_data("a multistep with noise", t, s)
        known = known_at(past, t)
        nodes = (t, *past.times[known:])[: self._width]
        calls = () if known else ((t, None),)
        # on the way a step errs by h^(nodes + 1), corrected by one power less; order is enough
        enough = self.order if self.start == "full" and not self.eta else 0
        if len(nodes) == self._width or len(nodes) + 1 + self.corrector >= enough:
            end = self._row(process, t, s, nodes, known, past)
            kept = self._width - (not self.corrector)
            keep = slice(min(kept, len(nodes)))
            return Rule(calls, end, bool(self.eta), keep=keep, predicted=self.corrector)
        if len(nodes) + 2 >= enough:
            ahead = self._row(process, t, s, nodes, known, past)
            end = self._row(process, t, s, (s, *nodes), known, past)
            return Rule((*calls, (s, ahead)), end, keep=slice(len(nodes) + 1))
        return _runge_kutta(process, t, s, calls, len(nodes))

    def _row(
        self,
        process: Process,
        t: Tensor,
        s: Tensor,
        nodes: Sequence[Tensor],
        known: bool,
        past: Past,
    ) -> Row:
        """Return (1) with the polynomial through the nodes; the last step's correction included."""
        n = self.prediction.norm(*process.coefficients(s))
        weights = self.quadrature(self.prediction, process, nodes, t, s, self.eta)
        now = len(nodes) > 1 and nodes[0] is s
        pairs = departures(self.prediction, process, nodes, weights, int(now), n)
        if past.predicted and not known:
            before = past.times[: self._width]
            after = (t, *before)
            old = self.quadrature(self.prediction, process, before, before[0], t, self.eta)
            new = self.quadrature(self.prediction, process, after, before[0], t, self.eta)
            repair = [new[0], *(b - a for a, b in zip(old, new[1:], strict=True))]
            pairs = _sum(pairs, departures(self.prediction, process, after, repair, 1, n))
        return self._onto_base(process, t, s, pairs, int(now), known)

    def _onto_base(
        self, process: Process, t: Tensor, s: Tensor, pairs: Pairs, latest: int, known: bool
    ) -> Row:
        """Add what the latest means, held fixed, give: DDIM on the ODE, and the noise."""
        prediction = self.prediction
        (alpha_t, sigma_t), (alpha, sigma) = process.coefficients(t), process.coefficients(s)
        n_t, n = prediction.norm(alpha_t, sigma_t), prediction.norm(alpha, sigma)
        of_x, std = torch.zeros_like(n), torch.zeros_like(n)
        if self.eta:
            u, end = (prediction.variable(-process.half_log_snr(v)) for v in (t, s))
            of_x = n / n_t * prediction.decay(u, end) ** self.eta**2
            alpha, sigma = prediction.held(u, end, self.eta)
            alpha, sigma = n * alpha, n * sigma
            std = n * prediction.spread(u, end, self.eta)
        elif known:  # the estimate was not made at x itself
            of_x = n / n_t
            alpha, sigma = alpha - of_x * alpha_t, sigma - of_x * sigma_t
        pairs[latest] = pairs[latest][0] + alpha, pairs[latest][1] + sigma
        return Row(of_x, tuple(pairs), std)


def _sum(one: Pairs, other: Pairs) -> Pairs:
    """Return the sum of two lists of coefficients, the shorter one continued by zeros."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    added = [(a + c, b + d) for (a, b), (c, d) in zip(long, short, strict=False)]
    return added + long[len(short) :]


def _runge_kutta(
    process: Process,
    t: Tensor,
    s: Tensor,
    calls: tuple[tuple[Tensor, Row | None], ...],
    known: int,
) -> Rule:
    """Return a step of the classical method in the noise angle, that keeps what was known at t."""
    angle = AnglePrediction()
    start, end = (angle.variable(-process.half_log_snr(time)) for time in (t, s))
    middle, h = process.time(-angle.log_ratio(0.5 * (start + end))), end - start
    n_t, n_m, n_s = (angle.norm(*process.coefficients(time)) for time in (t, middle, s))
    slopes = [angle.value(*process.coefficients(time)) for time in (t, middle, middle, s)]

    def row(n: Tensor, *weights: float) -> Row:
        pairs = [(n * w * h * a, n * w * h * b) for w, (a, b) in zip(weights, slopes, strict=False)]
        return Row(n / n_t, tuple(reversed(pairs)))

    points = (
        (middle, row(n_m, 0.5)),
        (middle, row(n_m, 0.0, 0.5)),
        (s, row(n_s, 0.0, 0.0, 1.0)),
    )
    final = row(n_s, 1 / 6, 1 / 3, 1 / 3, 1 / 6)
    return Rule((*calls, *points), final, keep=slice(3, 3 + known))
