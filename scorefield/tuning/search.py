r"""The search for noise levels: Powell's method, from changes of all to changes of single ones.

Levels ``l_0 > l_1 > ... > l_{n-1}`` are written by the first and by how far each falls,
``l_{i-1} - l_i = log(1 + e^{g_i})``, and the ``g_i`` by their cosine transform, so that the first
directions of the search change all steps alike, and the last single ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence

import numpy as np

from scorefield.solvers import Fitted
from scorefield.tuning.student import Student

Levels = tuple[float, ...]
_OUTSIDE = 1e9  # for levels that the process does not reach


class Search:
    """The least error so far, and the levels that have it.

    Args:
        student: what fits steps between levels.
        last: the last level, which stays.
        tried: the errors of levels, added to; those in it are not tried again.
        progress: called after each try, with the least error so far.
    """

    def __init__(
        self,
        student: Student,
        last: float,
        tried: MutableMapping[Levels, float],
        progress: Callable[[float], None],
    ) -> None:
        self.student, self.last = student, last
        self.tried, self.progress = tried, progress
        self.error = math.inf
        self.best: Levels = ()

    def loss(self, packed: np.ndarray) -> float:
        """Return the error that the best steps between levels leave."""
        levels = unpacked(packed, self.last)
        if levels not in self.tried:
            self.tried[levels] = self._error(levels)
        error = self.tried[levels]
        if error < self.error:
            self.error, self.best = error, levels
        self.progress(self.error)
        return error

    def _error(self, levels: Levels) -> float:
        try:
            error = float(self.student.learn(levels).error[~self.student.seen].mean())
        except ValueError:  # levels beyond the process
            return _OUTSIDE
        return error if math.isfinite(error) else _OUTSIDE

    def run(self, starts: Sequence[Sequence[float]], tries: int) -> Fitted:
        """Return the best steps that Powell's method finds, from the best of the starts.

        Where it ends before all tries are spent, it begins again from the next.

        Args:
            tries: of levels in all; the starts that come after as many are left out.
        """
        from scipy.optimize import minimize

        begins = sorted(map(packed, starts[:tries]), key=self.loss)
        left = tries - len(begins)
        for begin in begins:
            if left < len(begin):
                break
            options = {"maxfev": left, "xtol": 1e-3, "ftol": 1e-3}
            left -= minimize(self.loss, begin, method="Powell", options=options).nfev
        return self.student.learn(self.best).solver


def packed(levels: Sequence[float]) -> np.ndarray:
    """Return numbers without bounds that stand for all levels but the last."""
    inner = np.array(levels[:-1])
    falls = np.log(np.expm1(inner[:-1] - inner[1:]))
    return np.concatenate([inner[:1], _cosines(len(falls)).T @ falls])


def unpacked(numbers: np.ndarray, last: float) -> Levels:
    """Return the levels that `packed` made numbers of, and the last one."""
    falls = np.logaddexp(0, _cosines(len(numbers) - 1) @ numbers[1:])
    return (float(numbers[0]), *(numbers[0] - np.cumsum(falls)).tolist(), last)


def _cosines(n: int) -> np.ndarray:
    """Return the orthonormal cosine transform, a column for each wave, ``(n, n)``."""
    k = np.arange(n)
    waves = np.cos(np.pi * (k[:, None] + 0.5) * k / max(n, 1)) * math.sqrt(2 / max(n, 1))
    waves[:, :1] /= math.sqrt(2)
    return waves
