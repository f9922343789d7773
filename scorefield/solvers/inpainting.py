r"""Inpainting by replacement: known entries are put in place at every noise level.

With the data's entries ``y`` known where ``m = 1``, and ``z`` fresh noise of each level::

    x <- m (alpha y + sigma z) + (1 - m) x                                          (1)

The other entries then see the known ones through the field, but noised anew at each level, so that
what they have adapted to changes under them. Where the known entries tell nothing of the others,
these follow the posterior; elsewhere their law lies between it and that of the data, and finer
steps do not help. Of two normal numbers with correlation 0.8, one of them known to be 1, the other
has mean 0.8 and variance 0.36; after 50 steps of `DDIM` with replacement 0.33 and 0.55, and of
``DDIM(1)`` 0.48 and 0.46. `RePaint` goes back up after each step and comes down again, by which the
entries adapt further: by ``DDIM(1)`` and 10 repeats 0.76 and 0.31, the variance of such steps being
too small (``tests/test_inverse.py``).

Where ``y`` is noisy itself, of deviation ``s``, the noise in (1) has variance ``sigma^2 - alpha^2
s^2``, and nothing is put in place where that is negative: a solver of the SDE then goes on to what
is likely given ``y``, one of the ODE to a single value.

Reference: Song et al. (2021), arXiv:2011.13456, appendix I.2 (imputation); Lugmayr et al. (2022),
arXiv:2201.09865 (RePaint).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import Coefficient, mix, unstack
from scorefield.solvers.base import Move, Solver, State, check_solver, check_towards_data
from scorefield.solvers.corrector import PredictorCorrector


@dataclass(frozen=True, eq=False)
class Replacement(Solver):
    """Put the known entries in place (1): a corrector, behind any step.

    ``PredictorCorrector(DDIM(), Replacement(observed, y))`` is the replacement method.

    Args:
        observed: which entries are known, bool, to broadcast with a batch of samples.
        y: their values, for all samples alike or ``(B, *sample)``; elsewhere anything.
        noise_std: of the noise in them, not negative; a number or a value for each entry.

    Raises:
        ValueError: negative noise, values that are not finite where they are known; a step to
            another time, or samples that do not broadcast.
    """

    order = 0
    weak_order = 0
    calls = 0
    in_place = True
    observed: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    noise_std: float | Tensor = 0.0

    def __post_init__(self) -> None:
        if not bool((torch.as_tensor(self.noise_std) >= 0).all()):
            raise ValueError(f"noise_std = {self.noise_std}: give a deviation, 0 or more.")
        if self.observed.dtype != torch.bool or bool((self.observed & ~self.y.isfinite()).any()):
            raise ValueError(
                f"observed has type {self.observed.dtype}, of y with shape {tuple(self.y.shape)}: "
                "give torch.bool, and finite values of y where it is true."
            )

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        if not torch.equal(t, s):
            raise ValueError(
                "Replacement stays at its time: put it behind a step, as "
                "PredictorCorrector(DDIM(), Replacement(observed, y))."
            )
        for name, given in (("observed", self.observed.shape), ("y", self.y.shape)):
            sides = zip(reversed(given), reversed(field.shape), strict=False)
            if len(given) > len(field.shape) + 1 or not all(a in (1, b) for a, b in sides):
                raise ValueError(
                    f"{name} has shape {tuple(given)}, which does not broadcast with samples of "
                    f"shape {field.shape}."
                )
        alphas, sigmas = (unstack(c) for c in field.process.coefficients(t))
        return [_Replaced(self, *pair) for pair in zip(alphas, sigmas, strict=True)]


@dataclass(frozen=True, eq=False)
class _Replaced(Move):
    rule: Replacement
    alpha: Coefficient
    sigma: Coefficient

    def __call__(self, state: State) -> State:
        z, noise = state.noise.normal(state.x)
        own = torch.as_tensor(self.rule.noise_std, dtype=torch.float64)
        left = torch.as_tensor(self.sigma**2 - self.alpha**2 * own**2).to(z)
        placed = mix((self.alpha, self.rule.y.to(z)), (1.0, left.clamp(min=0).sqrt() * z))
        known = self.rule.observed.to(z.device) & (left >= 0)
        return State(torch.where(known, placed, state.x), state.t, noise)


@dataclass(frozen=True, eq=False)
class RePaint(Solver):
    """Each step with the known entries put in place, then back up and down again.

    A sample has 2^10 noise paths, so ``repeats`` times the number of steps stays below that for a
    base that adds noise.

    Args:
        base: the solver that steps down, one without memory; Lugmayr et al. take `DDPM`.
        replacement: the known entries.
        repeats: how often each step is taken, their ``r``; 1 is the replacement method.

    Raises:
        ValueError: a base that rests on earlier steps; fewer than one repeat.
    """

    order = 0
    weak_order = 0
    base: Solver
    replacement: Replacement
    repeats: int = 10

    def __post_init__(self) -> None:
        check_solver("RePaint's base", self.base)
        if self.base.history_length or self.base.in_place or self.repeats < 1:
            raise ValueError(
                f"RePaint goes back up between the steps of {self.base!r}, {self.repeats} "
                "repeat(s): use a single step, such as DDIM(eta=1) or Heun(), and 1 or more."
            )

    @property
    def calls(self) -> int:
        return self.repeats * self.base.calls

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        process = field.process
        check_towards_data("RePaint", t, s)
        down = PredictorCorrector(self.base, self.replacement).moves(field, t, s)
        keep = unstack(process.alpha(t) / process.alpha(s))
        stds = unstack(process.kernel_std(s, t))
        rows = zip(down, keep, stds, t, strict=True)
        return [_Again(*row, self.repeats) for row in rows]


@dataclass(frozen=True, eq=False)
class _Again(Move):
    down: Move
    keep: Coefficient
    std: Coefficient
    t: Tensor
    repeats: int

    def __call__(self, state: State) -> State:
        state = self.down(state)
        for _ in range(self.repeats - 1):
            z, noise = state.noise.normal(state.x)
            state = self.down(State(mix((self.keep, state.x), (self.std, z)), self.t, noise))
        return state
