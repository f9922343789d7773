r"""Steps by a table of numbers that was fitted to one field.

In ``y = x / alpha`` and ``r = sigma / alpha`` the probability-flow ODE is the same for every
process, and so is a step that is linear in the state and in all the estimates so far::

    y_{i+1} = a_i y_i + sum_j (b_ij x0_j + c_ij eps_j)                              (1)

with ``j`` newest first. The coefficients belong to the noise levels that they were fitted at, and
to their order: such a solver runs from its first level to its last, once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.process import Process
from scorefield.solvers.linear import LinearSolver, Past, Row, Rule, known_at

_NEAR = 1e-6  # in log r


@dataclass(frozen=True)
class Fitted(LinearSolver):
    """The steps (1); one call each.

    Args:
        levels: ``log r`` of the times a run visits, falling, ``N + 1`` of them; the last may be
            ``-inf``, the data.
        table: of each of the ``N`` steps ``a_i``, then ``b_ij`` and ``c_ij`` for each ``j``.

    Raises:
        ValueError: levels that do not fall, or a table of another form; at other times than those
            of the levels, or out of order.
    """

    levels: tuple[float, ...]
    table: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in itertools.pairwise(self.levels))
        sizes = [len(row) for row in self.table]
        if not falling or sizes != [3 + 2 * i for i in range(len(self.levels) - 1)] or not sizes:
            raise ValueError(
                f"{len(self.levels)} levels and rows of {sizes} numbers: give falling levels, and "
                "for the steps between them 3, 5, 7, ... numbers."
            )

    @property
    def order(self) -> int:
        return 1

    @property
    def weak_order(self) -> int | None:
        return None

    @property
    def calls(self) -> int:
        return 1

    @property
    def history_length(self) -> int:
        return len(self.table) - 1

    @property
    def error_order(self) -> float | None:
        return None

    def times(self, process: Process) -> Tensor:
        """Return the times of the levels on a process, float64 ``(N + 1,)``.

        Raises:
            ValueError: see `level_times`.
        """
        return level_times(process, self.levels)

    def rule(self, process: Process, t: Tensor, s: Tensor, past: Past, error: bool) -> Rule:
        step = len(past.times)
        if step >= len(self.table) or known_at(past, t):
            raise ValueError(f"a fitted solver takes its {len(self.table)} steps once.")
        self._check(process, t, step)
        self._check(process, s, step + 1)
        alpha_t, alpha = process.coefficients(t)[0], process.coefficients(s)[0]
        of_y, *rest = self.table[step]
        pairs = tuple((alpha * b, alpha * c) for b, c in zip(rest[::2], rest[1::2], strict=True))
        return Rule(((t, None),), Row(alpha / alpha_t * of_y, pairs), keep=slice(step + 1))

    def _check(self, process: Process, t: Tensor, place: int) -> None:
        level = self.levels[place]
        if level == -math.inf:
            fits = process.t_data is not None and bool((t == process.t_data).all())
        else:
            fits = bool(((-process.half_log_snr(t) - level).abs() < _NEAR).all())
        if not fits:
            raise ValueError(
                f"step {place} of a fitted solver stands at sigma/alpha = {_ratio(level):.6g}, "
                f"not at t = {float(t.flatten()[0]):g}: use its own times."
            )


def _ratio(level: float) -> float:
    """Return the largest number there is for what is larger."""
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
        raise ValueError(f"levels = {list(levels)}: give falling ones.")
    if levels[0] > highest + _NEAR or least < lowest - _NEAR:
        raise ValueError(
            f"the levels go from sigma/alpha = {_ratio(levels[0]):.3g} to {_ratio(least):.3g}, "
            f"and {process!r} has {_ratio(highest):.3g} to {_ratio(lowest):.3g}."
        )
    finite = inner if last == -math.inf else levels
    depth = torch.tensor(finite, dtype=torch.float64).clamp(lowest, highest)
    times = process.time(-depth)
    if last > -math.inf:
        return times
    if process.t_data is None:
        raise ValueError(f"the last level is the data, which {process!r} does not reach.")
    return torch.cat([times, times.new_tensor([process.t_data])])
