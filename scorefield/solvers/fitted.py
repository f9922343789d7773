r"""Steps by a table of numbers fitted to one field.

In ``y = x / alpha`` and ``r = sigma / alpha`` the probability-flow ODE is the same for every
process, and so is a step that is linear in the state and in all the estimates so far::

    y_{i+1} = a_i y_i + sum_j (b_ij x0_j + c_ij eps_j)                              (1)

with ``j`` newest first. A step may call the field at several states and noise levels at once::

    y_ik = a_ik y_i + sum_j (b_ikj x0_j + c_ikj eps_j)                              (2)

where ``j`` runs over the estimates of earlier steps alone. All of its estimates enter (1). The
coefficients are valid at the noise levels they were fitted for and in their order: such a solver
runs once, from its first level to its last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.process import Process, check_one_level
from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule

_NEAR = 1e-6  # in log r


@dataclass(frozen=True)
class Fitted(LinearSolver):
    """The steps (1): a round of one or more calls each, made at once.

    Args:
        levels: ``log r`` of the ``N + 1`` times, falling; the last may be ``-inf``, the data.
        table: for each of the ``N`` steps ``a_i``, then ``b_ij`` and ``c_ij`` for each ``j``. The
            estimates of a step are in order: at ``y_i``, then at each state (2).
        nodes: for each step, the same number of states (2) besides ``y_i``, each as its level
            ``log r``, then ``a_ik``, then ``b_ikj`` and ``c_ikj`` for each ``j``; empty if there
            are none.

    Raises:
        ValueError: levels that do not fall, or a table of another form; steps between other times
            or out of order.
    """

    levels: tuple[float, ...]
    table: tuple[tuple[float, ...], ...]
    nodes: tuple[tuple[tuple[float, ...], ...], ...] = ()

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in itertools.pairwise(self.levels))
        sizes, steps, calls = [len(row) for row in self.table], len(self.table), self.parallel
        expected = [1 + 2 * calls * (i + 1) for i in range(len(self.levels) - 1)]
        if not falling or sizes != expected or not sizes:
            raise ValueError(
                f"table: has rows of {sizes} numbers for {len(self.levels)} levels; give falling "
                f"levels, and for the steps between them {expected or [3, 5, 7]} numbers."
            )
        rows = [[len(row) for row in step] for step in self.nodes]
        if rows and rows != [[2 + 2 * calls * i] * (calls - 1) for i in range(steps)]:
            raise ValueError(
                f"nodes: has rows of {rows} numbers; give each step as many, and each node of step "
                f"i 2 + {2 * calls} i numbers."
            )

    @property
    def calls(self) -> int:
        return self.parallel

    @property
    def parallel(self) -> int:
        return 1 + len(self.nodes[0]) if self.nodes else 1

    @property
    def history_length(self) -> int:
        return len(self.table) - 1

    def times(self, process: Process) -> Tensor:
        """Return the times of the levels on a process, float64 ``(N + 1,)``.

        Raises:
            ValueError: see `level_times`.
        """
        return level_times(process, self.levels)

    def rule(self, t: Level, s: Level, past: Past, error: bool) -> Rule:
        check_one_level("Fitted", t.process)
        step = len(past.levels) // self.parallel
        if step >= len(self.table) or past.starts_at(t):
            raise ValueError(f"a fitted solver takes its {len(self.table)} steps once, in order.")
        self._check(t, step)
        self._check(s, step + 1)
        calls: list[tuple[Level, Row | None]] = [(t, None)]
        for level, *row in self.nodes[step] if self.nodes else ():
            at = _level(t, level)
            calls.append((at, _row(at, t, row)))
        keep = slice((step + 1) * self.parallel)
        return Rule(calls, _row(s, t, self.table[step]), keep=keep, at_once=len(calls) > 1)

    def _check(self, at: Level, place: int) -> None:
        level, data = self.levels[place], at.process.t_data
        if level == -math.inf:
            fits = data is not None and bool((at.t == data).all())
        else:
            fits = bool(((at.log_ratio - level).abs() < _NEAR).all())
        if not fits:
            raise ValueError(
                f"step {place} of a fitted solver starts at sigma/alpha = {_ratio(level):.6g}, "
                f"not at t={float(at.t.flatten()[0]):g}: use the solver's own times."
            )


def _level(like: Level, level: float) -> Level:
    """Return the same level ``log r`` for all steps.

    Raises:
        ValueError: the process does not reach it.
    """
    process = like.process
    t = process.time(torch.full_like(like.t, -level))
    return Level(process, t, process.alpha(t), process.sigma(t))


def _row(to: Level, start: Level, numbers: Sequence[float]) -> Row:
    """Return the row of ``x`` at a level, from the coefficients of ``y`` of (1) or (2)."""
    of_y, *rest = numbers
    pairs = tuple((to.alpha * b, to.alpha * c) for b, c in zip(rest[::2], rest[1::2], strict=True))
    return Row(to.alpha / start.alpha * of_y, pairs)


def _ratio(level: float) -> float:
    """Return ``e^level``, or the largest float."""
    return math.exp(min(level, 709.0))


def level_times(process: Process, levels: Sequence[float]) -> Tensor:
    """Return the times of levels ``log r``, the last perhaps ``-inf``: float64 ``(N + 1,)``.

    Raises:
        ValueError: levels that do not fall, or that the process does not reach.
    """
    *inner, last = levels
    ends = torch.tensor([process.t_max, process.t_min], dtype=torch.float64)
    highest, lowest = (-process.half_log_snr(ends)).tolist()
    least = inner[-1] if last == -math.inf else last
    if any(a <= b for a, b in itertools.pairwise(levels)):
        raise ValueError(f"levels={list(levels)}: give falling ones.")
    if levels[0] > highest + _NEAR or least < lowest - _NEAR:
        raise ValueError(
            f"levels: go from sigma/alpha = {_ratio(levels[0]):.3g} to {_ratio(least):.3g}, and "
            f"{process!r} has {_ratio(highest):.3g} to {_ratio(lowest):.3g}."
        )
    finite = inner if last == -math.inf else levels
    depth = torch.tensor(finite, dtype=torch.float64).clamp(lowest, highest)
    times = process.time(-depth)
    if last > -math.inf:
        return times
    if process.t_data is None:
        raise ValueError(f"levels: the last is the data, which {process!r} does not reach.")
    return torch.cat([times, times.new_tensor([process.t_data])])
