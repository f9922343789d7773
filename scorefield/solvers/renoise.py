r"""Solvers that add noise around the steps of a solver of the ODE.

The noise has the distribution of the process's exact two-time kernel, so with exact steps in
between the marginals hold. Noise levels are ``r = sigma / alpha``, EDM's sigma, on any process.

===========  ====================================================================================
`Churn`      noise up by a factor, then step down (EDM's stochastic sampler)
`Ancestral`  step down below the end, then noise up to the end
`Restart`    once below a level, noise up to a higher one and step down again, K times
===========  ====================================================================================

Reference: Karras et al. (2022), arXiv:2206.00364, algorithm 2; Xu et al. (2023), arXiv:2306.14878
(Restart).
"""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import clock
from scorefield.process import (
    Coefficient,
    Prior,
    Process,
    check_positive,
    check_whole,
    even_log_snr,
    mix,
    unstack,
)
from scorefield.solvers.base import (
    Move,
    Solver,
    State,
    check_solver,
    check_towards_data,
    transition,
)
from scorefield.solvers.linear import uses
from scorefield.solvers.program import SLACK


class Around(Solver, ABC):
    """A combination around single steps of a base; it stores nothing for the next step."""

    base: Solver

    @property
    def order(self) -> int:
        return self.base.order

    @property
    def weak_order(self) -> int | None:
        return self.base.order

    @property
    def calls(self) -> int:
        return self.base.calls


@dataclass(frozen=True)
class Churn(Around):
    """EDM's stochastic sampler around any single step: noise up by a factor, then step down.

    Inside the window, noise is added at level ``r`` up to ``r (1 + min(churn / steps, sqrt(2) -
    1))``, or up to the process's last level: no noise at ``t_max`` itself.

    Args:
        base: the solver of the ODE that steps down, without memory.
        churn: EDM's ``S_churn``, >= 0.
        steps: the number of steps of the grid, by which EDM divides it.
        window: EDM's ``(S_min, S_max)``, levels of ``sigma / alpha``.
        scale: EDM's ``S_noise``, a factor of the noise's deviation; with values other than 1 the
            marginals no longer hold.

    Raises:
        ValueError: a base that uses earlier steps or adds noise; numbers out of range.
    """

    base: Solver
    churn: float
    steps: int
    window: tuple[float, float] = (0.0, math.inf)
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_base("Churn", self.base)
        check_whole(steps=self.steps)
        check_positive(scale=self.scale)
        if not 0 <= self.churn < math.inf:
            raise ValueError(f"churn={self.churn:g}: needs churn >= 0.")
        if len(self.window) != 2 or not 0 <= self.window[0] < self.window[1]:
            raise ValueError(f"window={self.window}: give two levels with 0 <= low < high.")

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        process = field.process
        check_towards_data("Churn", t, s)
        gain = math.log1p(min(self.churn / self.steps, math.sqrt(2) - 1))
        log_ratio = -process.half_log_snr(t)
        low, high = (math.log(w) if w > 0 else -math.inf for w in self.window)
        inside = (log_ratio >= low - SLACK) & (log_ratio <= high + SLACK) & (gain > 0)
        top = -process.half_log_snr(torch.tensor(process.t_max, dtype=torch.float64))
        raised = torch.minimum(log_ratio + gain, top)
        up = torch.maximum(torch.where(inside, process.time(-raised), t), t)
        bases = self.base.moves(field, up, s)
        if gain == 0:
            return bases
        noisy = up > t
        # where no noise is added, alpha may be 0 and the ratio undefined
        keep = unstack(torch.where(noisy, process.alpha(up) / process.alpha(t), 1.0))
        stds = unstack(self.scale * torch.where(noisy, process.kernel_std(t, up), 0.0))
        return [_NoiseFirst(*row) for row in zip(bases, keep, stds, up, strict=True)]


@dataclass(frozen=True)
class _NoiseFirst(Move):
    base: Move
    keep: Coefficient
    std: Coefficient
    up: Tensor

    def __call__(self, state: State) -> State:
        if not uses(self.std):
            # the draw counts, so that the noise to come is the same with times of each sample
            return self.base(State(state.x, self.up, state.noise.skipped()))
        z, noise = state.noise.normal(state.x)
        return self.base(State(mix((self.keep, state.x), (self.std, z)), self.up, noise))


@dataclass(frozen=True)
class Ancestral(Around):
    """Step down below the end, to ``r_down``, then noise back up to it by the exact kernel::

        r_down^2 = r_s^2 - eta^2 r_s^2 (r_t^2 - r_s^2) / r_t^2

    With `DDIM` as the base and ``eta = 1`` this is DDPM's ancestral step, as far as ``t_min``
    allows: a step that ends there adds no noise.

    Args:
        base: the solver of the ODE that steps down, without memory.
        eta: 1 for ancestral sampling, or a number between 0 and 1 for less noise.

    Raises:
        ValueError: a base that uses earlier steps or adds noise; ``eta`` outside (0, 1].
    """

    base: Solver
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_base("Ancestral", self.base)
        if not 0 < self.eta <= 1:
            raise ValueError(f"eta={self.eta:g}: give a number above 0, up to 1 (ancestral).")

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        process = field.process
        check_towards_data("Ancestral", t, s)
        lambda_t, lambda_s = process.half_log_snr(t), process.half_log_snr(s)
        share = -(self.eta**2) * torch.expm1(2 * (lambda_t - lambda_s))
        lowest = process.half_log_snr(torch.tensor(process.t_min, dtype=torch.float64))
        down = process.time(torch.minimum(lambda_s - 0.5 * torch.log1p(-share), lowest))
        down = torch.minimum(down, s)
        keep = unstack(process.alpha(s) / process.alpha(down))
        stds = unstack(torch.where(down < s, process.kernel_std(down, s), 0.0))
        starts, ends = unstack(clock(lambda_t)), unstack(clock(lambda_s))
        bases = self.base.moves(field, t, down)
        rows = zip(bases, keep, stds, starts, ends, s, strict=True)
        return [_NoiseLast(*row) for row in rows]


@dataclass(frozen=True)
class _NoiseLast(Move):
    base: Move
    keep: Coefficient
    std: Coefficient
    start: Coefficient
    end: Coefficient
    s: Tensor

    def __call__(self, state: State) -> State:
        z, noise = state.noise.increment(self.start, self.end, state.x)
        return State(mix((self.keep, self.base(state).x), (self.std, z)), self.s, noise)

    def transition(self, state: State) -> Prior:
        return transition(mix((self.keep, self.base(state).x)), self.std)


@dataclass(frozen=True)
class Restart(Around):
    """Once a step has come down to ``low``, noise up to ``high`` and step down again, K times.

    A grid that does not cross ``low`` has no restart. A restart costs ``repeats * steps`` steps
    more than `calls` counts.

    Args:
        base: the solver of the ODE, without memory.
        low, high: levels of ``sigma / alpha``.
        repeats: K >= 1.
        steps: the number of steps from ``high`` to the end, even in log-SNR.

    Raises:
        ValueError: a base that uses earlier steps or adds noise; numbers out of range.
    """

    base: Solver
    low: float
    high: float
    repeats: int = 1
    steps: int = 4

    def __post_init__(self) -> None:
        check_base("Restart", self.base)
        check_whole(repeats=self.repeats, steps=self.steps)
        check_whole(**{"repeats * steps": self.repeats * self.steps})
        check_positive(low=self.low, high=self.high)
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g}, high={self.high:g}: needs low < high.")

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        process = field.process
        check_towards_data("Restart", t, s)
        level = -math.log(self.low) - SLACK
        crosses = (process.half_log_snr(t) < level) & (process.half_log_snr(s) >= level)
        moves = self.base.moves(field, t, s)
        for k in sorted(set(crosses.nonzero()[:, 0].tolist())):
            moves[k] = self._again(field, moves[k], s[k])
        return moves

    def _again(self, field: ScoreField, first: Move, s: Tensor) -> Move:
        """Return the first move, then those up from ``s`` and down again."""
        process = field.process
        if s.numel() > 1:
            raise ValueError("Restart needs one time for the batch: give a grid.")
        up = self._up(process)
        times = even_log_snr(process, self.steps, start=float(up), end=float(s))
        times, up = process.lift(times), up.reshape(s.shape)
        down = self.base.moves(field, times[:-1], times[1:])
        (keep,) = unstack((process.alpha(up) / process.alpha(s))[None])
        (std,) = unstack(process.kernel_std(s, up)[None])
        climb = _NoiseFirst(down[0], keep, std, times[0])
        return _Sequence((first, *(climb, *down[1:]) * self.repeats))

    def _up(self, process: Process) -> Tensor:
        """Return the time of the level ``high``."""
        top = (-process.half_log_snr(torch.tensor(process.t_max, dtype=torch.float64))).exp()
        if self.high > float(top) * (1 + SLACK):
            raise ValueError(
                f"high={self.high:g}: Restart goes up to that level, but sigma / alpha of "
                f"{process!r} ends at {float(top):g}; give a lower one."
            )
        return process.time(torch.tensor(-math.log(self.high), dtype=torch.float64))


@dataclass(frozen=True)
class _Sequence(Move):
    moves: tuple[Move, ...]

    def __call__(self, state: State) -> State:
        for move in self.moves:
            state = move(state)
        return state


def check_base(name: str, base: Solver) -> None:
    """Reject a base for which noise or other moves between its steps are not allowed."""
    check_solver("base", base)
    if base.order < 1:
        raise ValueError(f"base={base!r}: {name} needs a base that solves the ODE.")
    if base.history_length or base.weak_order is not None:
        raise ValueError(
            f"base={base!r}: {name} changes the state between its steps, and this solver "
            + ("uses earlier steps" if base.history_length else "adds noise itself")
            + "; use a single step of the ODE, such as DDIM(), Heun() or Singlestep()."
        )
