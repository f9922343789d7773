r"""Steps that are linear in the state, the posterior means and the noise: a table of numbers.

Every rule here combines what it holds with coefficients of the times alone::

    x_i = a_i x + sum_j (b_ij x0_j + c_ij eps_j) + d_i z    points at which the field is called  (1)
    x_s = a x + sum_j (b_j x0_j + c_j eps_j) + d z                                               (2)

where ``j`` runs over the estimates at hand, newest first: those of this step, then those kept from
earlier ones; and ``z`` is the step's part of the Brownian path, of unit variance. A solver writes
the coefficients, as tensors with one value per step of a grid; this module runs them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.field import Estimate, Instant, Pair, ScoreField
from scorefield.noise import clock
from scorefield.process import Coefficient, Prior, Process, mix, unstack
from scorefield.solvers.base import Memory, Move, Solver, State, transition


class Row(NamedTuple):
    """The coefficients of one combination: of ``x``, of both means of each estimate, of ``z``."""

    x: Coefficient
    means: Sequence[Pair] = ()
    z: Coefficient = 0.0

    def of(self, x: Tensor, found: Sequence[Estimate], z: Tensor | None) -> Tensor:
        """Return the combination of ``x``, the estimates, newest first, and the noise if any."""
        of_x, means, of_z = self
        terms = []
        for (of_x0, of_eps), (_, _, (u, w), (p, q), (p_eps, q_eps)) in zip(
            means, found, strict=False
        ):
            if u is x:
                of_x = of_x + (of_x0 * p + of_eps * p_eps)
            else:
                terms.append((of_x0 * p + of_eps * p_eps, u))
            terms.append((of_x0 * q + of_eps * q_eps, w))
        if z is not None:
            terms.append((of_z, z))
        return mix((of_x, x), *terms)


class Past(NamedTuple):
    """The history of a linear solver: the times of the estimates it keeps, newest first.

    ``predicted`` tells that the last step was a prediction which the next is to correct, and
    ``reached`` where it ended.
    """

    times: tuple[Tensor, ...] = ()
    predicted: bool = False
    reached: Tensor | None = None


class Rule(NamedTuple):
    """A step as numbers. Coefficients and times have the shape ``(N, ...)`` of ``N`` steps.

    Attributes:
        calls: in order, the time of each call of the field and the point (1) it is made at; None
            stands for ``x`` itself.
        end: (2), or None if it is the last of the points (1).
        noisy: ``z`` is used.
        error: the combination that estimates the step's error, or None.
        keep: the estimates to keep, newest first.
        predicted: the next step is to correct this one.
    """

    calls: tuple[tuple[Tensor, Row | None], ...]
    end: Row | None
    noisy: bool = False
    error: Row | None = None
    keep: slice = slice(0)
    predicted: bool = False


@dataclass(frozen=True)
class Linear(Move):
    """One step of a `Rule`; ``kick`` is the stretch of the Brownian path that its noise is."""

    field: ScoreField
    calls: tuple[tuple[Instant, Row | None], ...]
    end: Row | None
    kick: tuple[Coefficient, Coefficient] | None
    error: Row | None
    keep: slice
    s: Tensor
    history: Past
    held: int
    owner: Solver

    def __call__(self, at: State) -> State:
        z, noise = None, at.noise
        if self.kick is not None:
            z, noise = noise.increment(*self.kick, at.x)
        x, found = self._walk(at, z)
        kept = found[self.keep]
        memory = Memory(self.history, kept, x, self.owner) if kept else None
        error = None if self.error is None else self.error.of(at.x, found, z)
        return State(x, self.s, noise, memory, error)

    def transition(self, at: State) -> Prior:
        early = any(row is not None and uses(row.z) for _, row in self.calls)
        if self.end is None or not uses(self.end.z) or early:
            raise ValueError(
                f"the step from t = {float(at.t.max()):g} to {float(self.s.max()):g} adds no "
                "noise, or adds it before a call of the field: its law is not one Gaussian. Use "
                "EulerMaruyama, DDIM(eta > 0), DDPM, ReverseDiffusion or a noisy Multistep."
            )
        return transition(self._walk(at, None)[0], self.end.z)

    def _walk(self, at: State, z: Tensor | None) -> tuple[Tensor, Sequence[Estimate]]:
        """Return (2), without noise if ``z`` is None, and the estimates at hand, newest first."""
        found: tuple[Estimate, ...] = () if at.memory is None else at.memory.tensors
        if len(found) != self.held:
            raise ValueError(
                f"a move of {self.owner!r} rests on {self.held} earlier estimates and the state "
                f"brings {len(found)}: give it the state that the move before it left."
            )
        x = start = at.x
        for instant, point in self.calls:
            x = start if point is None else point.of(start, found, z)
            found = (self.field(x, instant), *found)
        return x if self.end is None else self.end.of(start, found, z), found


def uses(coefficient: Coefficient) -> bool:
    """Tell whether a term with the coefficient may be other than 0."""
    return isinstance(coefficient, Tensor) or coefficient != 0


class LinearSolver(Solver):
    """A solver made of rows: subclasses write `rule`."""

    @property
    def in_place(self) -> bool:
        return False

    @abstractmethod
    def rule(self, process: Process, t: Tensor, s: Tensor, past: Past, error: bool) -> Rule:
        """Return the rule of steps from ``t`` to ``s``, tensors of one shape ``(N, ...)``.

        ``past`` holds times of that shape, of one estimate for each step kept by the step before.
        One made at ``t`` itself comes first, and the field need not be called there again.
        """

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        past: Past = Past() if history is None else history
        made: list[Move] = []
        kind = None
        while len(made) < len(t):
            k, before = len(made), kind
            kind = len(past.times), past.predicted, known_at(past, t[k])
            # the first steps differ while the history fills; the others are worked out together
            alone = kind != before and bool(self.history_length or error or past.times)
            stop = k + 1 if alone else len(t)
            past_times = _windows(past.times, t[k:stop], kind[2])
            rule = self.rule(field.process, t[k:stop], s[k:stop], Past(past_times, kind[1]), error)
            made += _moves(self, field, t[k:stop], s[k:stop], rule, past_times)
            past = made[-1].history
        return made

    def forget(self, history: Any, t: Tensor) -> Any:
        past: Past | None = history
        if past is None or past.reached is None or not _same(past.reached, t):
            return None
        times = past.times[known_at(past, t) :]
        return past._replace(times=times) if times else None

    def moved(self, memory: Memory, x: Tensor, t: Tensor) -> Memory | None:
        history = self.forget(memory.history, t)
        return (
            None
            if history is None
            else Memory(history, memory.tensors[-len(history.times) :], x, self)
        )

    def choose(self, mask: Tensor, new: State, old: State, x: Tensor) -> Memory | None:
        if new.memory is None or old.memory is None:
            all_new = new.memory is not None and bool(mask.all())
            return Memory(*new.memory[:2], x, self) if new.memory and all_new else None
        (after, kept, *_), (before, kept_before, *_) = new.memory, old.memory
        times = tuple(
            torch.where(mask, a, b) for a, b in zip(after.times, before.times, strict=True)
        )
        reached = torch.where(mask, after.reached, before.reached)
        estimates = tuple(a.where(mask, b) for a, b in zip(kept, kept_before, strict=True))
        return Memory(after._replace(times=times, reached=reached), estimates, x, self)


def known_at(past: Past, t: Tensor) -> bool:
    """Tell whether the newest estimate at hand was made at ``t``."""
    return bool(past.times) and _same(past.times[0], t)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and torch.equal(one, other)


def _windows(times: Sequence[Tensor], t: Tensor, known: bool) -> tuple[Tensor, ...]:
    """Return the times at hand before each of the steps that start at ``t`` ``(N, ...)``.

    ``times`` are those before the first of them. Each step keeps one more: the estimate at its
    start, or at its end where that is where the next one starts.
    """
    line = torch.stack([*reversed(times), *(t[1:] if known else t[:-1])]) if times else t
    return tuple(line[k : k + len(t)] for k in reversed(range(len(times))))


def _moves(
    solver: Solver, field: ScoreField, t: Tensor, s: Tensor, rule: Rule, past: Sequence[Tensor]
) -> list[Move]:
    """Return one move per step of a rule."""
    count, process = len(t), field.process
    times = (*[time for time, _ in reversed(rule.calls)], *past)
    kept = times[rule.keep]
    plans = [Past(tuple(k[n] for k in kept), rule.predicted, s[n]) for n in range(count)]
    points = [_split(row, count) for _, row in rule.calls]
    views = [field.instants(time) for time, _ in rule.calls]
    kicks: Sequence[tuple[Coefficient, Coefficient] | None] = [None] * count
    if rule.noisy:
        ends = (unstack(clock(process.half_log_snr(time))) for time in (t, s))
        kicks = list(zip(*ends, strict=True))
    return [
        Linear(
            field,
            tuple((view[n], point[n]) for view, point in zip(views, points, strict=True)),
            end,
            kick,
            error,
            rule.keep,
            s[n],
            history,
            len(past),
            solver,
        )
        for n, (end, kick, error, history) in enumerate(
            zip(_split(rule.end, count), kicks, _split(rule.error, count), plans, strict=True)
        )
    ]


def _split(row: Row | None, count: int) -> list[Any]:
    """Return the rows of the single steps, or Nones."""
    if row is None:
        return [None] * count
    x = _each(row.x, count)
    z = _each(row.z, count)
    means = [zip(_each(a, count), _each(b, count), strict=True) for a, b in row.means]
    return [Row(of_x, tuple(pairs), of_z) for of_x, of_z, *pairs in zip(x, z, *means, strict=True)]


def _each(coefficient: Coefficient, count: int) -> list[Coefficient]:
    return unstack(coefficient) if isinstance(coefficient, Tensor) else [coefficient] * count
