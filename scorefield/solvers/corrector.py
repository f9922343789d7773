r"""Correctors: moves that stay at one noise level, and the solver that combines them with a step.

Langevin moves bring ``x`` closer to its distribution at that level::

    x <- x + delta score + sqrt(2 delta) z,    delta = 2 min(alpha, 1) (snr sigma)^2   (1)

Their size is a function of the time alone. Where alpha falls it is small compared to ``sigma^2``,
and the moves do little; where alpha stays 1, as on VE and EDM, the ratio is constant. Song et al.
(2021) compute it from the norms of score and noise, ``delta = 2 (snr |z| / |score|)^2``, averaged
over the batch, with a factor ``1 - beta`` of the single step on VP, which is nearly 1. A sample
then depends on its batch; and a norm per sample biases the distribution, the more the lower the
dimension. Their rule, without that factor, is here for comparison only.

The moves are not accepted or rejected, so their distribution has a bias: at a Gaussian of variance
``v`` it has the variance ``v / (1 - delta / (2 v))``.

Reference: Song et al. (2021), arXiv:2011.13456, algorithms 4 and 5, and appendix G; Song and Ermon
(2019), arXiv:1907.05600, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import Instant, ScoreField
from scorefield.process import Coefficient, Prior, check_positive, check_whole, mix, unstack
from scorefield.solvers.base import Memory, Move, Solver, State, check_solver, transition
from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """A step of one solver, then one of another that changes ``x`` in place at the step's end.

    The distribution converges to the one that the corrector's moves preserve.

    Args:
        predictor: any solver.
        corrector: one that stays at its time, as `Langevin` does.

    Raises:
        ValueError: an argument that is not a solver, or a corrector that leaves its time.
    """

    weak_order = 1
    predictor: Solver
    corrector: Solver

    def __post_init__(self) -> None:
        check_solver("predictor", self.predictor)
        check_solver("corrector", self.corrector)
        if not self.corrector.in_place:
            raise ValueError(
                f"corrector={self.corrector!r}: give one that changes x in place, such as "
                "Langevin()."
            )

    @property
    def order(self) -> int:
        return min(self.predictor.order, self.corrector.order)

    @property
    def calls(self) -> int:
        return self.predictor.calls + self.corrector.calls

    @property
    def history_length(self) -> int:
        return self.predictor.history_length

    @property
    def in_place(self) -> bool:
        return self.predictor.in_place

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        moves: list[Move] = []
        corrections = self.corrector.moves(field, s, s)
        for start, end, correct in zip(t, s, corrections, strict=True):
            (predict,) = self.predictor.moves(field, start[None], end[None], history)
            history = self.predictor.forget(predict.history, end)
            moves.append(_Corrected(self, predict, correct, end, history))
        return moves

    def forget(self, history: Any, t: Tensor) -> Any:
        return self.predictor.forget(history, t)

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        inner = self.predictor.moved(memory, x, t)
        return None if inner is None else inner._replace(owner=self)


@dataclass(frozen=True)
class _Corrected(Move):
    owner: PredictorCorrector
    predict: Move
    correct: Move
    s: Tensor
    history: Any

    def __call__(self, state: State) -> State:
        between = self.predict(state)
        end = self.correct(between._replace(memory=None))
        memory = between.memory
        if memory is not None:
            memory = self.owner.moved(memory, end.x, self.s)
        return end._replace(memory=memory)


@dataclass(frozen=True)
class Langevin(Solver):
    """Moves (1) in place: a corrector.

    Args:
        snr: half the size of a move's noise relative to the noise at this level, where ``alpha =
            1``; above 0. Song et al. call it the signal-to-noise ratio.
        moves_per_step: the number of moves; each calls the field once.
        compat: compute the size from norms over the batch, as Song et al. do. Samples then depend
            on their batch.

    Raises:
        ValueError: numbers out of range; a step to another time.
    """

    weak_order = 1
    in_place = True
    snr: float = 0.16
    moves_per_step: int = 1
    compat: bool = False

    def __post_init__(self) -> None:
        check_positive(snr=self.snr)
        check_whole(moves_per_step=self.moves_per_step)

    @property
    def calls(self) -> int:
        return self.moves_per_step

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        if not torch.equal(t, s):
            raise ValueError(
                "Langevin moves stay at their time: combine them with a step, as in "
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

    def __call__(self, state: State) -> State:
        x, noise = state.x, state.noise
        for _ in range(self.rule.moves_per_step):
            score = self.field(x, self.instant).score
            z, noise = noise.normal(x)
            delta = self._from_norms(score, z) if self.rule.compat else self.delta
            x = mix((1.0, x), (delta, score), ((2 * delta) ** 0.5, z))
        return State(x, state.t, noise)

    def transition(self, state: State) -> Prior:
        if self.rule.moves_per_step > 1 or self.rule.compat:
            raise ValueError("only a single Langevin move of fixed size has a density.")
        score = self.field(state.x, self.instant).score
        return transition(mix((1.0, state.x), (self.delta, score)), (2 * self.delta) ** 0.5)

    def _from_norms(self, score: Tensor, z: Tensor) -> Coefficient:
        ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        squared: Tensor = (self.rule.snr * ratio) ** 2
        return 2 * squared


@dataclass(frozen=True)
class Hold(LinearSolver):
    """Go to another noise level with a constant data part: ``x_s = (alpha_s / alpha_t) x``.

    Of order 0: it does not solve the ODE; a corrector's moves do all the work.
    """

    order = 0
    calls = 0

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        if not bool((t.alpha > 0).all()):
            raise ValueError(
                f"alpha = 0 at t={float(t.t.max()):g}, where x has no data part: start the grid at "
                "an earlier time."
            )
        return Rule((), Row(s.alpha / t.alpha))


def annealed_langevin(snr: float = 0.16, moves_per_step: int = 5) -> PredictorCorrector:
    """Return NCSN's sampler: at each noise level of the grid after the first, Langevin moves.

    In Song and Ermon's notation the step at level ``i`` is ``eps sigma_i^2 / sigma_L^2``, which is
    ``snr = sqrt(eps) / (2 sigma_L)``.
    """
    return PredictorCorrector(Hold(), Langevin(snr, moves_per_step))
