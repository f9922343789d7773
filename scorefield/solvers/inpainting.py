r"""Inpainting by replacement: known entries are replaced at every noise level.

With data ``y`` known where ``m = 1``, and new noise ``z`` at each level::

    x <- m (alpha y + sigma z) + (1 - m) x                                          (1)

The other entries then depend on the known ones through the field. But the known ones have new noise
at each level, so the others adapt to values that change. If the known entries are independent of
the others, these follow the posterior; otherwise their distribution is between it and that of the
data, and finer steps do not help. Of two normal numbers with correlation 0.8, one of them known to
be 1, the other has mean 0.8 and variance 0.36. After 50 steps of `DDIM` with replacement these are
0.33 and 0.55, with ``DDIM(1)`` 0.48 and 0.46. `RePaint` goes back up after each step and down
again, so that the entries adapt further: with ``DDIM(1)`` and 10 repeats 0.76 and 0.31, since the
variance of such steps is too small (``tests/test_inverse.py``).

If ``y`` is noisy, with deviation ``s``, the noise in (1) has variance ``sigma^2 - alpha^2 s^2``.
Where that is negative no entry is replaced: a solver of the SDE then continues to likely values
given ``y``, one of the ODE to a single value.

Reference: Song et al. (2021), arXiv:2011.13456, appendix I.2 (imputation); Lugmayr et al. (2022),
arXiv:2201.09865 (RePaint).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import Coefficient, check_whole, mix, unstack
from scorefield.solvers.base import Move, Solver, State, check_solver, check_towards_data
from scorefield.solvers.corrector import PredictorCorrector


@dataclass(frozen=True, eq=False)
class Replacement(Solver):
    """Replace the known entries, (1): a corrector for any step.

    ``PredictorCorrector(DDIM(), Replacement(observed, y))`` is the replacement method.

    Args:
        observed: bool, true for the known entries, to broadcast with a batch of samples.
        y: their values, one sample's or ``(B, *sample)``; the others are not read.
        noise_std: the deviation of the noise in them, >= 0; a number or one for each entry.

    Raises:
        ValueError: negative noise, known values that are not finite; a step to another time, or
            samples that do not broadcast.
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
            raise ValueError(f"noise_std={self.noise_std}: give a deviation >= 0.")
        if self.observed.dtype != torch.bool or bool((self.observed & ~self.y.isfinite()).any()):
            raise ValueError(
                f"observed: has type {self.observed.dtype}; give torch.bool, and finite values "
                f"of y (shape {tuple(self.y.shape)}) where it is true."
            )

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        if not torch.equal(t, s):
            raise ValueError(
                "Replacement stays at its time: combine it with a step, as in "
                "PredictorCorrector(DDIM(), Replacement(observed, y))."
            )
        for name, shape in (("observed", self.observed.shape), ("y", self.y.shape)):
            sides = zip(reversed(shape), reversed(field.shape), strict=False)
            if len(shape) > len(field.shape) + 1 or not all(a in (1, b) for a, b in sides):
                raise ValueError(
                    f"{name}: has shape {tuple(shape)}, which does not broadcast with samples of "
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
        replaced = self.rule.observed.to(z.device) & (left >= 0)
        return State(torch.where(replaced, placed, state.x), state.t, noise)


@dataclass(frozen=True, eq=False)
class RePaint(Solver):
    """Each step with the known entries replaced, then back up and down again.

    Args:
        base: the solver that steps down, without memory; Lugmayr et al. use `DDPM`.
        replacement: the known entries.
        repeats: the number of times each step is made, their ``r``; 1 is the replacement method.

    Raises:
        ValueError: a base that uses earlier steps; fewer than one repeat.
    """

    order = 0
    weak_order = 0
    base: Solver
    replacement: Replacement
    repeats: int = 10

    def __post_init__(self) -> None:
        check_solver("base", self.base)
        if self.base.history_length or self.base.in_place:
            raise ValueError(
                f"base={self.base!r}: RePaint goes back up between its steps; use a single step, "
                "such as DDIM(eta=1) or Heun()."
            )
        check_whole(repeats=self.repeats)

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
