r"""Solvers made of solvers: programs, correctors, and noise added around a step.

`Churn`, `Ancestral` and `Restart` add noise by the process's exact two-time kernel, so that with
exact steps in between the marginals hold. Levels of noise are given as ``r = sigma / alpha``, which
is EDM's sigma, on any process.

======================  ==========================================================================
`Program`               one solver above a level of noise, another below it
`PredictorCorrector`    a step, then moves in place at its end
`Churn`                 noise up by a factor, then step down (EDM's stochastic sampler)
`Ancestral`             step down too far, then noise up to the end
`Restart`               once below a level, noise up to a higher one and come down again, K times
======================  ==========================================================================

Reference: Karras et al. (2022), arXiv:2206.00364, algorithm 2; Xu et al. (2023), arXiv:2306.14878
(Restart); Song et al. (2021), arXiv:2011.13456, appendix G (predictor-corrector).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import clock
from scorefield.process import Coefficient, Prior, Process, even_log_snr, mix, unstack
from scorefield.solvers.base import (
    Memory,
    Move,
    Solver,
    State,
    check_solver,
    check_towards_data,
    transition,
)
from scorefield.solvers.linear import uses

_SLACK = 1e-9  # by how much rounding may move a level of noise, in its logarithm


class Combined(Solver, ABC):
    """A solver made of others, that estimates no error."""

    @property
    def error_order(self) -> float | None:
        return None

    def choose(self, mask: Tensor, new: State, old: State, x: Tensor) -> Memory | None:
        return None


class Memoryless(Combined, ABC):
    """A combination that leaves nothing to remember."""

    @property
    def history_length(self) -> int:
        return 0

    def forget(self, history: Any, t: Tensor) -> Any:
        return None

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        return None


class Around(Memoryless, ABC):
    """A combination around single steps of a base."""

    @property
    def in_place(self) -> bool:
        return False


@dataclass(frozen=True)
class Program(Combined):
    """Several solvers in turn, switched at levels of noise.

    A step belongs to the segment in which its noisier end lies, so a program runs both ways.

    Args:
        solvers: from most noise to least.
        levels: falling values of ``sigma / alpha``, one fewer than solvers: ``levels[k]`` is where
            ``solvers[k]`` hands over to ``solvers[k + 1]``.

    Raises:
        ValueError: the numbers of solvers and levels do not fit, or levels do not fall to 0.
    """

    solvers: tuple[Solver, ...]
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("solvers", "levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for solver in self.solvers:
            check_solver("a program's solver", solver)
        if len(self.levels) + 1 != len(self.solvers):
            raise ValueError(
                f"{len(self.solvers)} solvers and {len(self.levels)} levels: give one level fewer "
                "than solvers, at each of which one solver hands over to the next."
            )
        ends = (math.inf, *self.levels, 0.0)
        if not all(a > b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"levels = {self.levels}: give falling values of sigma/alpha above 0.")

    @property
    def order(self) -> int:
        return min(solver.order for solver in self.solvers)

    @property
    def weak_order(self) -> int | None:
        noisy = [solver for solver in self.solvers if solver.weak_order is not None]
        if not noisy:
            return None
        return min(solver.weak_order or solver.order for solver in self.solvers)

    @property
    def calls(self) -> int:
        return max(solver.calls for solver in self.solvers)

    @property
    def history_length(self) -> int:
        return max(solver.history_length for solver in self.solvers)

    @property
    def in_place(self) -> bool:
        return all(solver.in_place for solver in self.solvers)

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        segments = self._segments(field.process, torch.maximum(t, s))
        made: list[Move] = []
        while len(made) < len(t):
            k = len(made)
            stop = next((j for j in range(k, len(t)) if segments[j] != segments[k]), len(t))
            inner = history[1] if history is not None and history[0] == segments[k] else None
            solver = self.solvers[segments[k]]
            moves = solver.moves(field, t[k:stop], s[k:stop], inner)
            made += [
                _InSegment(move, segments[k], (segments[k], move.history), self) for move in moves
            ]
            history = made[-1].history
        return made

    def forget(self, history: Any, t: Tensor) -> Any:
        return (
            None
            if history is None
            else (history[0], self.solvers[history[0]].forget(history[1], t))
        )

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        if memory.tensors is None:
            return memory
        kept = self.solvers[memory.history[0]].moved(memory.tensors, x, t)
        return Memory((memory.history[0], None if kept is None else kept.history), kept, x, self)

    def _segments(self, process: Process, t: Tensor) -> list[int]:
        """Return the places of the solvers for steps whose noisier ends are ``t`` ``(N,)``."""
        log_ratio = -process.half_log_snr(t)
        place = torch.zeros_like(t, dtype=torch.long)
        for level in self.levels:
            place = place + (log_ratio <= math.log(level) + _SLACK)
        if place.ndim > 1:
            raise ValueError("a program needs one time for the batch: give a grid.")
        places: list[int] = place.tolist()
        return places


@dataclass(frozen=True)
class _InSegment(Move):
    move: Move
    segment: int
    history: Any
    owner: Program

    def __call__(self, at: State) -> State:
        out = self.move(self._inner(at))
        return out._replace(memory=Memory(self.history, out.memory, out.x, self.owner))

    def transition(self, at: State) -> Prior:
        return self.move.transition(self._inner(at))

    def _inner(self, at: State) -> State:
        same = at.memory is not None and at.memory.history[0] == self.segment
        return at._replace(memory=at.memory.tensors if at.memory is not None and same else None)


@dataclass(frozen=True)
class PredictorCorrector(Combined):
    """A step of one solver, then one of another that moves ``x`` in place at the step's end.

    Args:
        predictor: any solver.
        corrector: one that stays at its time, as `Langevin` does.

    Raises:
        ValueError: a predictor that is no solver, a corrector that is none.
    """

    predictor: Solver
    corrector: Solver

    def __post_init__(self) -> None:
        check_solver("predictor", self.predictor)
        check_solver("corrector", self.corrector)
        if not self.corrector.in_place:
            raise ValueError(
                f"corrector = {self.corrector!r}: give one that moves x in place, as Langevin() "
                "does."
            )

    @property
    def order(self) -> int:
        return min(self.predictor.order, self.corrector.order)

    @property
    def weak_order(self) -> int | None:
        """The order at which the law converges to the one that the corrector's moves keep."""
        return 1

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
        made: list[Move] = []
        corrections = self.corrector.moves(field, s, s)
        for start, end, correct in zip(t, s, corrections, strict=True):
            (predict,) = self.predictor.moves(field, start[None], end[None], history)
            history = self.predictor.forget(predict.history, end)
            made.append(_Corrected(self, predict, correct, end, history))
        return made

    def forget(self, history: Any, t: Tensor) -> Any:
        return self.predictor.forget(history, t)

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        kept = self.predictor.moved(memory, x, t)
        return None if kept is None else kept._replace(owner=self)


@dataclass(frozen=True)
class _Corrected(Move):
    owner: PredictorCorrector
    predict: Move
    correct: Move
    s: Tensor
    history: Any

    def __call__(self, at: State) -> State:
        between = self.predict(at)
        out = self.correct(between._replace(memory=None))
        memory = between.memory
        if memory is not None:
            memory = self.owner.moved(memory, out.x, self.s)
        return out._replace(memory=memory)

    def transition(self, at: State) -> Prior:
        raise no_density("a predictor with a corrector")


@dataclass(frozen=True)
class Churn(Around):
    """EDM's stochastic sampler around any single step: noise up by a factor, then step down.

    At ``r`` inside the window noise is added until ``r (1 + min(churn / steps, sqrt(2) - 1))``, or
    until the process's last level: none at ``t_max`` itself.

    Args:
        base: the solver of the ODE that steps down, one without memory.
        churn: EDM's ``S_churn``, >= 0.
        steps: the number of steps of the grid it is spread over, which EDM divides it by.
        window: EDM's ``(S_min, S_max)``, levels of ``sigma / alpha``.
        scale: EDM's ``S_noise``: what the deviation of the noise is multiplied by; other than 1
            the marginals no longer hold.

    Raises:
        ValueError: a base that rests on earlier steps or is noisy itself; numbers out of range.
    """

    base: Solver
    churn: float
    steps: int
    window: tuple[float, float] = (0.0, math.inf)
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_base("Churn", self.base)
        if not (0 <= self.churn < math.inf and self.steps >= 1 and 0 < self.scale < math.inf):
            raise ValueError(
                f"churn = {self.churn:g}, steps = {self.steps}, scale = {self.scale:g}: needs "
                "churn >= 0, steps >= 1 and scale > 0."
            )
        if not 0 <= self.window[0] < self.window[1]:
            raise ValueError(f"window = {self.window}: give two levels with 0 <= low < high.")

    @property
    def order(self) -> int:
        return self.base.order

    @property
    def weak_order(self) -> int | None:
        return self.base.order

    @property
    def calls(self) -> int:
        return self.base.calls

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        process = field.process
        check_towards_data("Churn", t, s)
        gain = math.log1p(min(self.churn / self.steps, math.sqrt(2) - 1))
        log_ratio = -process.half_log_snr(t)
        low, high = (math.log(w) if w > 0 else -math.inf for w in self.window)
        inside = (log_ratio >= low - _SLACK) & (log_ratio <= high + _SLACK) & (gain > 0)
        top = -process.half_log_snr(torch.tensor(process.t_max, dtype=torch.float64))
        raised = torch.minimum(log_ratio + gain, top)
        up = torch.where(inside, process.time(-raised), t)
        up = torch.maximum(up, t)
        raised_at = up > t
        # where nothing is added, alpha may be 0 and its ratio undefined
        keep = unstack(torch.where(raised_at, process.alpha(up) / process.alpha(t), 1.0))
        std = torch.where(raised_at, process.kernel_std(t, up), 0.0)
        stds = unstack(self.scale * std)
        bases = self.base.moves(field, up, s)
        if gain == 0:
            return bases
        return [_Noised(*row) for row in zip(bases, keep, stds, up, strict=True)]


@dataclass(frozen=True)
class _Noised(Move):
    base: Move
    keep: Coefficient
    std: Coefficient
    up: Tensor
    history: Any = None

    def __call__(self, at: State) -> State:
        if not uses(self.std):
            # the draw counts, so that the noise to come is the same with times of each sample
            return self.base(State(at.x, self.up, at.noise.skipped()))
        z, noise = at.noise.normal(at.x)
        x = mix((self.keep, at.x), (self.std, z))
        return self.base(State(x, self.up, noise))

    def transition(self, at: State) -> Prior:
        raise no_density("Churn")


@dataclass(frozen=True)
class Ancestral(Around):
    """Step down below the end, to ``r_down``, then noise back up to it by the exact kernel::

        r_down^2 = r_s^2 - eta^2 r_s^2 (r_t^2 - r_s^2) / r_t^2

    With `DDIM` as the base and ``eta = 1`` this is DDPM's ancestral step, as far as ``t_min``
    allows: a step that ends there adds no noise.

    Args:
        base: the solver of the ODE that steps down, one without memory.
        eta: 1 for ancestral sampling, or a number between 0 and 1 for less noise.

    Raises:
        ValueError: a base that rests on earlier steps or is noisy itself; ``eta`` outside (0, 1].
    """

    base: Solver
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_base("Ancestral", self.base)
        if not 0 < self.eta <= 1:
            raise ValueError(f"eta = {self.eta:g}: give a number above 0, up to 1 (ancestral).")

    @property
    def order(self) -> int:
        return self.base.order

    @property
    def weak_order(self) -> int | None:
        return self.base.order

    @property
    def calls(self) -> int:
        return self.base.calls

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
        return [_NoisedBack(*row) for row in rows]


@dataclass(frozen=True)
class _NoisedBack(Move):
    base: Move
    keep: Coefficient
    std: Coefficient
    start: Coefficient
    end: Coefficient
    s: Tensor
    history: Any = None

    def __call__(self, at: State) -> State:
        z, noise = at.noise.increment(self.start, self.end, at.x)
        x = mix((self.keep, self.base(at).x), (self.std, z))
        return State(x, self.s, noise)

    def transition(self, at: State) -> Prior:
        return transition(mix((self.keep, self.base(at).x)), self.std)


@dataclass(frozen=True)
class Restart(Around):
    """Once a step has come down to ``low``, noise up to ``high`` and come down again, K times.

    A grid that does not cross ``low`` has no restart.

    Args:
        base: the solver of the ODE, one without memory.
        low, high: levels of ``sigma / alpha``.
        repeats: K >= 1.
        steps: of each way down, even in log-SNR.

    Raises:
        ValueError: a base that rests on earlier steps or is noisy itself; numbers out of range.
    """

    base: Solver
    low: float
    high: float
    repeats: int = 1
    steps: int = 4

    def __post_init__(self) -> None:
        check_base("Restart", self.base)
        if not (0 < self.low < self.high < math.inf and self.repeats >= 1 and self.steps >= 1):
            raise ValueError(
                f"low = {self.low:g}, high = {self.high:g}, repeats = {self.repeats}, steps = "
                f"{self.steps}: needs 0 < low < high, repeats >= 1 and steps >= 1."
            )

    @property
    def order(self) -> int:
        return self.base.order

    @property
    def weak_order(self) -> int | None:
        return self.base.order

    @property
    def calls(self) -> int:
        """Field calls per step; a restart costs ``repeats * steps`` steps more."""
        return self.base.calls

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        process = field.process
        check_towards_data("Restart", t, s)
        level = -math.log(self.low) - _SLACK
        crosses = (process.half_log_snr(t) < level) & (process.half_log_snr(s) >= level)
        made = self.base.moves(field, t, s)
        for k in sorted(set(crosses.nonzero()[:, 0].tolist())):
            made[k] = self._again(field, made[k], s[k])
        return made

    def _again(self, field: ScoreField, first: Move, s: Tensor) -> Move:
        """Return the move that goes back up from ``s`` and down again after it came there."""
        process = field.process
        if s.ndim:
            raise ValueError("Restart needs one time for the batch: give a grid.")
        up = self._up(process)
        times = even_log_snr(process, self.steps, start=float(up), end=float(s))
        down = self.base.moves(field, times[:-1], times[1:])
        keep, std = float(process.alpha(up) / process.alpha(s)), float(process.kernel_std(s, up))
        climb = _Noised(down[0], keep, std, times[0])
        return _Repeated(first, (climb, *down[1:]), self.repeats)

    def _up(self, process: Process) -> Tensor:
        """Return the time of the level that a restart goes up to."""
        top = (-process.half_log_snr(torch.tensor(process.t_max, dtype=torch.float64))).exp()
        if self.high > float(top) * (1 + _SLACK):
            raise ValueError(
                f"Restart goes up to high = {self.high:g}, but sigma / alpha of {process!r} ends "
                f"at {float(top):g}: give a lower level."
            )
        return process.time(torch.tensor(-math.log(self.high), dtype=torch.float64))


@dataclass(frozen=True)
class _Repeated(Move):
    first: Move
    again: tuple[Move, ...]
    repeats: int
    history: Any = None

    def __call__(self, at: State) -> State:
        at = self.first(at)
        for move in self.again * self.repeats:
            at = move(at)
        return at

    def transition(self, at: State) -> Prior:
        raise no_density("Restart")


def check_base(name: str, base: Solver) -> None:
    """Refuse a base that would not see the ODE's own path between its steps."""
    check_solver(f"{name}'s base", base)
    if base.order < 1:
        raise ValueError(f"{name} needs a base that solves the ODE; {base!r} does not.")
    if base.history_length or base.weak_order is not None:
        raise ValueError(
            f"{name} puts noise between the steps of {base!r}, which "
            + ("rests on earlier ones" if base.history_length else "adds noise itself")
            + ": use a single step of the ODE, such as DDIM(), Heun() or Singlestep()."
        )


def no_density(name: str) -> ValueError:
    """Return what to raise where the law of a step is asked for, and has no density."""
    return ValueError(f"a step of {name} is not one Gaussian transition and has no density.")
