r"""Steps that are linear in the state, the posterior means and the noise: a table of numbers.

Every rule here combines the tensors at hand with coefficients of the times alone::

    x_i = a_i x + sum_j (b_ij x0_j + c_ij eps_j) + d_i z    points at which the field is called  (1)
    x_s = a x + sum_j (b_j x0_j + c_j eps_j) + d z                                               (2)

where ``j`` runs over the estimates, newest first: those of this step, then those of earlier steps;
and ``z`` is the step's increment of the Brownian path, of unit variance. A solver writes the
coefficients, as tensors with one value per step of a grid; this module runs them.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, Pair, ScoreField
from scorefield.noise import clock
from scorefield.process import Coefficient, Prior, Process, mix, unstack
from scorefield.solvers.base import Memory, Move, Solver, State, transition


@dataclass(eq=False)
class Level:
    """The noise level at the times ``t`` ``(N, ...)`` of ``N`` steps, computed once.

    Attributes:
        process, t: the process and its times.
        alpha, sigma: the coefficients there.
    """

    process: Process
    t: Tensor
    alpha: Tensor
    sigma: Tensor

    def part(self, first: int, count: int) -> Level:
        """Return the level of some of the steps."""
        steps = slice(first, first + count)
        return Level(self.process, self.t[steps], self.alpha[steps], self.sigma[steps])

    @cached_property
    def log_ratio(self) -> Tensor:
        """``log(sigma / alpha)``."""
        return -(self.alpha.log() - self.sigma.log())

    @property
    def clock(self) -> Tensor:
        """The time of the Brownian path, the same for all coordinates."""
        if not self.process.coordinates:
            return clock(-self.log_ratio)
        u = clock(self.process.half_log_snr(self.t))
        return u.flatten() if len(u) == u.numel() else u

    @cached_property
    def rates(self) -> tuple[Tensor, Tensor]:
        """``alpha'`` and ``sigma'``."""
        return self.process.rates(self.t)


class Past(NamedTuple):
    """The results of earlier steps that a rule may use.

    Attributes:
        levels: those of the stored estimates, newest first. If the newest was made at the start of
            this step, it is the very `Level` of ``t``, and the field need not be called there.
        predicted: the last step was a prediction, which this step corrects.
    """

    levels: tuple[Level, ...] = ()
    predicted: bool = False

    def starts_at(self, t: Level) -> bool:
        """Return whether the newest estimate was made at ``t``."""
        return bool(self.levels) and self.levels[0] is t


class Row(NamedTuple):
    """The coefficients of one combination: of ``x``, of both means of each estimate, of ``z``."""

    x: Coefficient
    means: Sequence[Pair] = ()
    z: Coefficient = 0.0

    def of(self, x: Tensor, estimates: Sequence[Estimate], z: Tensor | None) -> Tensor:
        """Return the combination of ``x``, the estimates, newest first, and the noise if any."""
        of_x, means, of_z = self
        terms = []
        # an estimate's means are combinations of its basis (u, w): two terms, or one where u is x
        for (of_x0, of_eps), (_, _, (u, w), (p, q), (p_eps, q_eps), _) in zip(
            means, estimates, strict=False
        ):
            if u is x:
                of_x = of_x + (of_x0 * p + of_eps * p_eps)
            else:
                terms.append((of_x0 * p + of_eps * p_eps, u))
            terms.append((of_x0 * q + of_eps * q_eps, w))
        if z is not None:
            terms.append((of_z, z))
        return mix((of_x, x), *terms)


class Rule(NamedTuple):
    """A step as numbers. Coefficients and times have the shape ``(N, ...)`` of ``N`` steps.

    Attributes:
        calls: in order, the level of each call of the field and its point (1); None is ``x``.
        end: (2), or None if it is the last of the points (1).
        noisy: ``z`` is used.
        error: the combination that estimates the step's error, or None.
        keep: the estimates to store, newest first.
        predicted: the next step corrects this one.
        at_once: no point (1) uses the estimates of this step, so all calls are made at once; their
            estimates come in the order of the calls.
    """

    calls: Sequence[tuple[Level, Row | None]]
    end: Row | None
    noisy: bool = False
    error: Row | None = None
    keep: slice = slice(0)
    predicted: bool = False
    at_once: bool = False


class History(NamedTuple):
    """The `Memory.history` of a linear solver.

    Attributes:
        times: those of the stored estimates, newest first.
        predicted: as in `Past`.
        end: the time at which the last step ended.
    """

    times: tuple[Tensor, ...] = ()
    predicted: bool = False
    end: Tensor | None = None

    def starts_at(self, t: Tensor) -> bool:
        """Return whether the newest of the estimates, if any, was made at ``t``."""
        return bool(self.times) and _same(self.times[0], t)


@dataclass(frozen=True)
class Linear(Move):
    """One step of a `Rule`; ``kick`` is the part of the Brownian path that is its noise."""

    field: ScoreField
    calls: tuple[tuple[Instant, Row | None], ...]
    end: Row | None
    kick: tuple[Coefficient, Coefficient] | None
    error: Row | None
    keep: slice
    s: Tensor
    stored: int
    owner: Solver
    history: History
    at_once: bool = False

    def __call__(self, state: State) -> State:
        z, noise = None, state.noise
        if self.kick is not None:
            z, noise = noise.increment(*self.kick, state.x)
        estimates: tuple[Estimate, ...] = () if state.memory is None else state.memory.tensors
        if len(estimates) != self.stored:
            raise ValueError(
                f"a move of {self.owner!r} needs {self.stored} earlier estimates and the state has "
                f"{len(estimates)}: pass the state that the previous move returned."
            )
        x = start = state.x
        if self.at_once:
            points = [start if p is None else p.of(start, estimates, z) for _, p in self.calls]
            instants = [instant for instant, _ in self.calls]
            estimates = (*self.field.at_once(points, instants), *estimates)
        else:
            for instant, point in self.calls:
                x = start if point is None else point.of(start, estimates, z)
                estimates = (self.field(x, instant), *estimates)
        if self.end is not None:
            x = self.end.of(start, estimates, z)
        store = estimates[self.keep]
        memory = Memory(self.history, store, x, self.owner) if store else None
        error = None if self.error is None else self.error.of(start, estimates, z)
        return State(x, self.s, noise, memory, error)

    def transition(self, state: State) -> Prior:
        early = any(row is not None and uses(row.z) for _, row in self.calls)
        if self.end is None or not uses(self.end.z) or early:
            raise ValueError(
                f"the step from t={float(state.t.max()):g} to s={float(self.s.max()):g} adds no "
                "noise, or adds it before a call of the field, so its distribution is not one "
                "Gaussian: use EulerMaruyama, DDIM(eta > 0), DDPM, ReverseDiffusion or a noisy "
                "Multistep."
            )
        mean = replace(self, kick=None)(state).x
        return transition(mean, self.end.z)


def uses(coefficient: Coefficient) -> bool:
    """Return whether a term with the coefficient may differ from 0."""
    return isinstance(coefficient, Tensor) or coefficient != 0


class LinearSolver(Solver):
    """A solver made of rows: subclasses write `rule`."""

    @abstractmethod
    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        """Return the rule of steps from ``t`` to ``s``, levels of one shape ``(N, ...)``.

        The levels of ``past`` have that shape too: one estimate for each that the previous step
        stored. ``error`` requests `Rule.error`.
        """

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        past: History = History() if history is None else history
        if field.process.coordinates:
            t, s = field.process.lift(t), field.process.lift(s)
        moves: list[Move] = []
        kind = None
        while len(moves) < len(t):
            k, last = len(moves), kind
            kind = len(past.times), past.predicted, bool(past.times) and past.starts_at(t[k])
            # the first steps differ while the history fills; the others are computed together
            alone = kind != last and bool(error or past.times or self.history_length)
            stop = k + 1 if alone else len(t)
            moves += self._alike(field, t[k:stop], s[k:stop], past, error)
            past = moves[-1].history
        return moves

    def _alike(
        self, field: ScoreField, t: Tensor, s: Tensor, history: History, error: bool
    ) -> list[Move]:
        """Return the moves of steps that have one rule."""
        steps = _steps(self, field.process, t, s, history, error)
        rule, instants = steps.rule, [field.instants(times) for times in steps.calls]
        return [
            Linear(
                field,
                tuple(
                    (views[n], rows[n]) for views, rows in zip(instants, steps.points, strict=True)
                ),
                steps.ends[n],
                steps.kicks[n],
                steps.errors[n],
                rule.keep,
                s[n],
                len(history.times),
                self,
                steps.histories[n]._replace(end=s[n]),
                rule.at_once,
            )
            for n in range(len(t))
        ]

    def forget(self, history: Any, t: Tensor) -> Any:
        past: History | None = history
        if past is None or past.end is None or not _same(past.end, t):
            return None
        times = past.times[past.starts_at(t) :]
        return past._replace(times=times) if times else None

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        history = self.forget(memory.history, t)
        if history is None:
            return None
        return Memory(history, memory.tensors[-len(history.times) :], x, self)

    def choose(self, mask: Tensor, new: State, old: State, x: Tensor) -> Memory | None:
        if new.memory is None or old.memory is None:
            all_new = new.memory is not None and bool(mask.all())
            return Memory(*new.memory[:2], x, self) if new.memory and all_new else None
        (after, estimates, *_), (before, estimates_before, *_) = new.memory, old.memory
        times = tuple(
            torch.where(mask, a, b) for a, b in zip(after.times, before.times, strict=True)
        )
        end = torch.where(mask, after.end, before.end)
        pairs = zip(estimates, estimates_before, strict=True)
        chosen = tuple(a.where(mask, b) for a, b in pairs)
        return Memory(after._replace(times=times, end=end), chosen, x, self)


class Steps(NamedTuple):
    """Steps that have one rule: all of their moves that does not depend on the field.

    Attributes:
        rule: the rule.
        calls: the times of each of its calls.
        points, ends, errors: its rows for each step; the points for each call first.
        kicks, histories: `Linear.kick` and `Linear.history` of each step.
    """

    rule: Rule
    calls: list[Tensor]
    points: list[list[Any]]
    ends: list[Any]
    errors: list[Any]
    kicks: Sequence[tuple[Coefficient, Coefficient] | None]
    histories: list[History]

    @classmethod
    def of(
        cls,
        solver: LinearSolver,
        process: Process,
        t: Tensor,
        s: Tensor,
        past: History,
        error: bool,
    ) -> Steps:
        count = len(t)
        end = Level(process, s, process.alpha(s), process.sigma(s))
        levels: tuple[Level, ...] = ()
        if past.times:
            start, levels = _levels(process, t, past)
        else:
            start = Level(process, t, process.alpha(t), process.sigma(t))
        rule = solver.rule(start, end, Past(levels, past.predicted), error)
        order = rule.calls if rule.at_once else reversed(rule.calls)
        stored = (*[level for level, _ in order], *levels)[rule.keep]
        kicks: Sequence[tuple[Coefficient, Coefficient] | None] = [None] * count
        if rule.noisy:
            places = (unstack(level.clock) for level in (start, end))
            kicks = list(zip(*places, strict=True))
        return cls(
            rule,
            [level.t for level, _ in rule.calls],
            [_rows(row, count) for _, row in rule.calls],
            _rows(rule.end, count),
            _rows(rule.error, count),
            kicks,
            [History(tuple(level.t[n] for level in stored), rule.predicted) for n in range(count)],
        )


def _steps(
    solver: LinearSolver, process: Process, t: Tensor, s: Tensor, past: History, error: bool
) -> Steps:
    """Return the steps; those of the same solver, process and grid are computed once."""
    ends = () if past.end is None else (past.end,)
    if torch.compiler.is_compiling() or not (
        all(v.is_cpu and v.ndim == 1 and not v.requires_grad for v in (t, s))
        and all(v.is_cpu and v.ndim == 0 for v in (*past.times, *ends))
        and constant(solver)
        and constant(process)
    ):
        return Steps.of(solver, process, t, s, past, error)
    times = tuple(float(v) for v in past.times)
    return cached_steps(
        solver, process, t.dtype, (*t.tolist(),), (*s.tolist(),), times, past.predicted, error
    )


@lru_cache(maxsize=64)
def cached_steps(
    solver: LinearSolver,
    process: Process,
    dtype: torch.dtype,
    t: tuple[float, ...],
    s: tuple[float, ...],
    times: tuple[float, ...],
    predicted: bool,
    error: bool,
) -> Steps:
    """Return the steps for times that are numbers, the same ones for the same arguments."""

    def tensor(values: Any) -> Tensor:
        return torch.tensor(values, dtype=dtype, device="cpu")

    with torch.inference_mode(False), torch.no_grad():  # so that any run can use them
        past = History(tuple(tensor(v) for v in times), predicted)
        return Steps.of(solver, process, tensor(t), tensor(s), past, error)


def constant(value: Any) -> bool:
    """Return whether a value is made of numbers, texts and frozen dataclasses alone."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if isinstance(value, tuple):
        kinds = set(map(type, value))
        return kinds <= {float, int} or all(map(constant, value))
    if not is_dataclass(value) or isinstance(value, type):
        return False
    names = {part.name for part in fields(value)}
    own = "__dataclass_params__" in vars(type(value)) or set(vars(value)) <= names
    by_value = type(value).__hash__ is not object.__hash__
    return own and by_value and all(constant(getattr(value, name)) for name in names)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and torch.equal(one, other)


def _levels(process: Process, t: Tensor, history: History) -> tuple[Level, tuple[Level, ...]]:
    """Return the levels of the starts ``t``, and of the estimates stored before each step.

    The history has the times before the first step. Each step stores one more: the estimate at its
    start, or the one at its end where the next step starts there.
    """
    times = history.times
    at_start = history.starts_at(t[0])
    every = torch.stack([*reversed(times), *t[int(at_start) :]])
    line = Level(process, every, *process.coefficients(every))
    start, *before = (line.part(k, len(t)) for k in reversed(range(len(times) - at_start + 1)))
    return start, (start, *before) if at_start else tuple(before)


def _rows(row: Row | None, count: int) -> list[Any]:
    """Return the rows of the single steps, or Nones."""
    if row is None:
        return [None] * count
    columns = [
        unstack(column) if isinstance(column, Tensor) else [column] * count
        for column in (row.x, row.z, *itertools.chain(*row.means))
    ]
    return [
        Row(x, tuple(zip(means[::2], means[1::2], strict=True)), z)
        for x, z, *means in zip(*columns, strict=True)
    ]
