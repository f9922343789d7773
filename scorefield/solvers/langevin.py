r"""Langevin moves: they stay at one noise level and bring ``x`` closer to its law there.

    x <- x + delta score + sqrt(2 delta) z,    delta = 2 min(alpha, 1) (snr sigma)^2   (1)

The step is a function of the time alone. Where alpha falls it is small beside ``sigma^2``, and the
moves do little; where alpha stays 1, as on VE and EDM, their ratio is constant. Song et al. (2021)
take it from the norms of score and noise, ``delta = 2 (snr |z| / |score|)^2``, averaged over the
batch, with a factor ``1 - beta`` of the single step on VP, which is nearly 1: then a sample depends
on its neighbours; and a norm per sample biases the law, the more the lower the dimension. Their
rule, without that factor, is here only for comparison.

The moves are not accepted or rejected, so their law has a bias of its own: at a Gaussian with
variance ``v`` theirs is ``v / (1 - delta / (2 v))``.

Reference: Song et al. (2021), arXiv:2011.13456, algorithms 4 and 5; Song and Ermon (2019),
arXiv:1907.05600, algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Instant, ScoreField
from scorefield.process import Coefficient, Prior, Process, mix, unstack
from scorefield.solvers.base import Move, State, transition
from scorefield.solvers.combine import Memoryless, PredictorCorrector
from scorefield.solvers.linear import LinearSolver, Past, Row, Rule


@dataclass(frozen=True)
class Langevin(Memoryless):
    """Moves (1) in place: a corrector.

    Args:
        snr: half the size of a move's noise beside the noise at this level, where ``alpha = 1``;
            above 0. Song et al. call it the signal-to-noise ratio.
        moves_per_step: how many; each calls the field once.
        compat: take the step from norms over the batch, as Song et al. do. Samples then depend on
            their batch.

    Raises:
        ValueError: numbers out of range; a step to another time.
    """

    snr: float = 0.16
    moves_per_step: int = 1
    compat: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.snr < math.inf and self.moves_per_step >= 1):
            raise ValueError(
                f"snr = {self.snr:g}, moves_per_step = {self.moves_per_step}: needs snr > 0 and at "
                "least one move."
            )

    @property
    def order(self) -> int:
        return 1

    @property
    def weak_order(self) -> int | None:
        return 1

    @property
    def calls(self) -> int:
        return self.moves_per_step

    @property
    def in_place(self) -> bool:
        return True

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        if not torch.equal(t, s):
            raise ValueError(
                "Langevin moves stay at their time: put them behind a step, as "
                "PredictorCorrector(DDIM(), Langevin())."
            )
        alpha, sigma = field.process.coefficients(t)
        deltas = unstack(2 * alpha.clamp(max=1) * (self.snr * sigma) ** 2)
        instants = field.instants(t)
        return [_Moves(field, at, delta, self) for at, delta in zip(instants, deltas, strict=True)]


@dataclass(frozen=True)
class _Moves(Move):
    field: ScoreField
    instant: Instant
    delta: Coefficient
    rule: Langevin
    history: Any = None

    def __call__(self, at: State) -> State:
        x, noise = at.x, at.noise
        for _ in range(self.rule.moves_per_step):
            found = self.field(x, self.instant)
            z, noise = noise.normal(x)
            delta = self._from_norms(found.score, z) if self.rule.compat else self.delta
            x = mix((1.0, x), (delta, found.score), ((2 * delta) ** 0.5, z))
        return State(x, at.t, noise)

    def transition(self, at: State) -> Prior:
        if self.rule.moves_per_step > 1 or self.rule.compat:
            raise ValueError("only a single Langevin move of fixed size has a density.")
        score = self.field(at.x, self.instant).score
        return transition(mix((1.0, at.x), (self.delta, score)), (2 * self.delta) ** 0.5)

    def _from_norms(self, score: Tensor, z: Tensor) -> Coefficient:
        ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        squared: Tensor = (self.rule.snr * ratio) ** 2
        return 2 * squared


@dataclass(frozen=True)
class Hold(LinearSolver):
    """Go to another noise level with the data part as it is: ``x_s = (alpha_s / alpha_t) x``.

    Of order 0: it solves nothing, and leaves all to the moves of a corrector.
    """

    @property
    def order(self) -> int:
        return 0

    @property
    def weak_order(self) -> int | None:
        return None

    @property
    def calls(self) -> int:
        return 0

    @property
    def history_length(self) -> int:
        return 0

    @property
    def error_order(self) -> float | None:
        return None

    def rule(self, process: Process, t: Tensor, s: Tensor, past: Past, error: bool) -> Rule:
        if not bool((process.alpha(t) > 0).all()):
            raise ValueError(
                f"alpha = 0 at t = {float(t.max()):g}, where there is no data part to hold: start "
                "the grid later."
            )
        return Rule((), Row(process.alpha(s) / process.alpha(t)))


def annealed_langevin(snr: float = 0.16, moves_per_step: int = 5) -> PredictorCorrector:
    """Return NCSN's sampler: at each noise level of the grid after the first, Langevin moves.

    In Song and Ermon's notation the step at level ``i`` is ``eps sigma_i^2 / sigma_L^2``; here
    ``snr = sqrt(eps) / (2 sigma_L)``.
    """
    return PredictorCorrector(Hold(), Langevin(snr, moves_per_step))
