r"""Multistep exponential integrators: one class, one coefficient routine.

A step integrates equation (2) of `scorefield.solvers.prediction` with a polynomial through the
last values of the prediction ``F``. The polynomial interpolates the difference ``F - G``, where
``G(u)`` is ``F`` with the latest means ``x0`` and ``eps`` held constant. So, on the ODE, a step is
DDIM plus a correction, and order 1 is DDIM itself::

    x_s = alpha_s x0 + sigma_s eps + n_s sum_j w_j (F_j - G_j)                      (1)

No large terms cancel, at either end. With ``eta > 0``, towards the SDE, ``G`` is integrated too.

The corrector (UniC) improves a step once the field has been called at its end: it adds the
difference that this estimate, as one more node, makes to the step's correction. The next step uses
the same call, so the corrector costs no call and raises the order by one.

Start-up: a method of order 3 corrects its first step within the step, and the second step uses the
call at its end; orders 4 and 5 begin with one and two steps of the classical Runge-Kutta method in
the noise angle. So the order holds from the first step on. ``start="rising"`` spends no such calls:
order 1, 2, 3, ... as published methods do; the error from it is small if the path starts in noise.

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

from scorefield.process import check_one_level
from scorefield.solvers.base import check_towards_data
from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule
from scorefield.solvers.prediction import AnglePrediction, Exact, Prediction, Quadrature, departures

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Multistep(LinearSolver):
    """The multistep method (1); one call a step.

    Estimates of earlier steps remain in use after something else changed ``x``.

    Args:
        order: 1 (DDIM) to 5. With the corrector, the prediction itself has one order less.
        prediction: the interpolated quantity.
        quadrature: the rule of integration; by default exact in the prediction's own variable.
        corrector: whether each step is corrected in the next.
        eta: 0 for the ODE, 1 for the reverse SDE, or another number >= 0. With noise, steps go
            towards data only, the start is a rising one, and the distribution converges at order
            2 at most.
        start: ``"full"`` has the order from the first step on, ``"rising"`` spends no calls.

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
            raise ValueError(f"order={self.order!r}: Multistep has the orders 1 to 5.")
        if callable(self.eta) or not 0 <= self.eta < math.inf:
            raise ValueError(
                f"eta={self.eta!r}: give 0 (the ODE), 1 (the SDE) or another number; only "
                "EulerMaruyama and StochasticHeun take a function of time."
            )
        if self.start not in ("full", "rising"):
            raise ValueError(f'start={self.start!r}: give "full" or "rising".')
        if self.corrector and (self.order == 1 or self.eta):
            raise ValueError(
                f"corrector=True: needs order >= 2 and the ODE, not order={self.order} with "
                f"eta={self.eta:g}."
            )

    @property
    def weak_order(self) -> int | None:
        return min(self.order, 2) if self.eta else None

    @property
    def history_length(self) -> int:
        return self.order - 1

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        if self.eta:
            check_towards_data("a multistep with noise", t.t, s.t)
        width = self.order - self.corrector  # the number of values that the prediction uses
        at_start = past.starts_at(t)
        nodes = (t, *past.levels[at_start:])[:width]
        calls = () if at_start else ((t, None),)
        # at the start a step may err by h^(nodes + 1), corrected by one power less
        enough = self.order if self.start == "full" and not self.eta else 0
        if len(nodes) == width or len(nodes) + 1 + self.corrector >= enough:
            end = self._row(t, s, nodes, past)
            keep = slice(min(width - (not self.corrector), len(nodes)))
            return Rule(calls, end, bool(self.eta), keep=keep, predicted=self.corrector)
        if len(nodes) + 2 >= enough:
            ahead = self._row(t, s, nodes, past)
            end = self._row(t, s, (s, *nodes), past)
            return Rule((*calls, (s, ahead)), end, keep=slice(len(nodes) + 1))
        return _runge_kutta(t, s, calls, len(nodes))

    def _row(self, t: Level, s: Level, nodes: Sequence[Level], past: Past) -> Row:
        """Return (1) with the polynomial through the nodes; the last step's correction included."""
        prediction, n = self.prediction, self.prediction.norm(s)
        weights = self.quadrature(prediction, nodes, t, s, self.eta)
        latest = int(len(nodes) > 1 and nodes[0] is s)
        pairs = departures(prediction, nodes, weights, latest, n)
        if past.predicted and not past.starts_at(t):
            before = past.levels[: self.order - self.corrector]
            after = (t, *before)
            old = self.quadrature(prediction, before, before[0], t, self.eta)
            new = self.quadrature(prediction, after, before[0], t, self.eta)
            repair = [new[0], *(b - a for a, b in zip(old, new[1:], strict=True))]
            pairs = _sum(pairs, departures(prediction, after, repair, 1, n))
        return self._onto_base(t, s, pairs, latest, past)

    def _onto_base(self, t: Level, s: Level, pairs: Pairs, latest: int, past: Past) -> Row:
        """Add the part with the latest means constant: DDIM on the ODE, and the noise."""
        prediction, alpha, sigma = self.prediction, s.alpha, s.sigma
        n_t, n = prediction.norm(t), prediction.norm(s)
        of_x, std = torch.zeros_like(n), torch.zeros_like(n)
        if self.eta:
            u, end = (prediction.variable(level.log_ratio) for level in (t, s))
            of_x = n / n_t * prediction.decay(u, end) ** self.eta**2
            alpha, sigma = prediction.constant(u, end, self.eta)
            alpha, sigma = n * alpha, n * sigma
            std = n * prediction.spread(u, end, self.eta)
        elif past.starts_at(t):  # the estimate was not made at x itself
            of_x = n / n_t
            alpha, sigma = alpha - of_x * t.alpha, sigma - of_x * t.sigma
        pairs[latest] = pairs[latest][0] + alpha, pairs[latest][1] + sigma
        return Row(of_x, tuple(pairs), std)


def _sum(one: Pairs, other: Pairs) -> Pairs:
    """Return the sum of two lists of coefficients, the shorter one continued by zeros."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    added = [(a + c, b + d) for (a, b), (c, d) in zip(long, short, strict=False)]
    return added + long[len(short) :]


def _runge_kutta(
    t: Level, s: Level, calls: tuple[tuple[Level, Row | None], ...], stored: int
) -> Rule:
    """Return a step of the classical method in the noise angle; it keeps the stored estimates."""
    check_one_level('Multistep: order 4 or 5 with start="full" (write start="rising")', t.process)
    angle = AnglePrediction()
    start, end = (angle.variable(level.log_ratio) for level in (t, s))
    half = t.process.time(-angle.log_ratio(0.5 * (start + end)))
    middle = Level(t.process, half, *t.process.coefficients(half))
    h, n_t = end - start, angle.norm(t)
    slopes = [angle.value(level) for level in (t, middle, middle, s)]

    def row(goal: Level, *weights: float) -> Row:
        n = angle.norm(goal)
        pairs = [(n * w * h * a, n * w * h * b) for w, (a, b) in zip(weights, slopes, strict=False)]
        return Row(n / n_t, tuple(reversed(pairs)))

    points = (
        (middle, row(middle, 0.5)),
        (middle, row(middle, 0.0, 0.5)),
        (s, row(s, 0.0, 0.0, 1.0)),
    )
    final = row(s, 1 / 6, 1 / 3, 1 / 3, 1 / 6)
    return Rule((*calls, *points), final, keep=slice(3, 3 + stored))
