r"""The search for noise levels, by Powell's method.

Levels ``l_0 > l_1 > ... > l_{n-1}`` are parametrized by the first level and the differences
``l_{i-1} - l_i = log(1 + e^{g_i})``, and the ``g_i`` by their cosine transform. So the first
directions of the search change all steps in the same way, and the last ones single steps.
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
    """A search, with the least error so far and its levels.

    Args:
        student: fits the steps between levels.
        last: the last level, which does not change.
        tried: the errors of levels that were tried; new ones are added.
        progress: called after each try, with the least error so far.
        first: the first level, if it does not change.
    """

    def __init__(
        self,
        student: Student,
        last: float,
        tried: MutableMapping[Levels, float],
        progress: Callable[[float], None],
        first: float | None = None,
    ) -> None:
        self.student, self.last, self.first = student, last, first
        self.tried, self.progress = tried, progress
        self.error = math.inf
        self.best: Levels = ()

    def loss(self, packed: np.ndarray) -> float:
        """Return the error of the best steps between levels."""
        levels = self._levels(packed)
        if levels not in self.tried:
            self.tried[levels] = self._error(levels)
        error = self.tried[levels]
        if error < self.error:
            self.error, self.best = error, levels
        self.progress(self.error)
        return error

    def _levels(self, numbers: np.ndarray) -> Levels:
        first = numbers[:0] if self.first is None else np.array([self.first])
        return unpacked(np.concatenate([first, numbers]), self.last)

    def _free(self, levels: Sequence[float]) -> np.ndarray:
        """Return the parameters of levels that may change."""
        return packed(levels)[self.first is not None :]

    def _error(self, levels: Levels) -> float:
        try:
            error = float(self.student.learn(levels).error[~self.student.fitted].mean())
        except ValueError:  # levels beyond the process
            return _OUTSIDE
        return error if math.isfinite(error) else _OUTSIDE

    def run(self, starts: Sequence[Sequence[float]], tries: int) -> Fitted:
        """Return the best steps of Powell's method, from the best of the starts.

        If it converges before all tries are used, it starts again from the next one.

        Args:
            tries: of levels in total; at most as many starts are used.
        """
        from scipy.optimize import minimize

        begins = sorted(map(self._free, starts[:tries]), key=self.loss)
        left = tries - len(begins)
        for begin in begins:
            if not 0 < len(begin) <= left:
                break
            options = {"maxfev": left, "xtol": 1e-3, "ftol": 1e-3}
            left -= minimize(self.loss, begin, method="Powell", options=options).nfev
        return self.student.learn(self.best).solver

    def others(self, starts: Sequence[Sequence[float]]) -> list[Fitted]:
        """Return the steps of the best start from each first free level, of those tried."""
        levels = [self._levels(self._free(start)) for start in starts]
        free, best = int(self.first is not None), dict[float, Levels]()
        for each in sorted((k for k in levels if k in self.tried), key=self.tried.__getitem__):
            best.setdefault(round(each[free], 6), each)
        return [self.student.learn(each).solver for each in best.values()]


def packed(levels: Sequence[float]) -> np.ndarray:
    """Return unbounded parameters of all levels but the last."""
    inner = np.array(levels[:-1])
    falls = np.log(np.expm1(inner[:-1] - inner[1:]))
    return np.concatenate([inner[:1], _cosines(len(falls)).T @ falls])


def unpacked(numbers: np.ndarray, last: float) -> Levels:
    """Return the levels of the parameters that `packed` returns, and the last level."""
    falls = np.logaddexp(0, _cosines(len(numbers) - 1) @ numbers[1:])
    return (float(numbers[0]), *(numbers[0] - np.cumsum(falls)).tolist(), last)


def _cosines(n: int) -> np.ndarray:
    """Return the orthonormal cosine transform, one wave in each column, ``(n, n)``."""
    k = np.arange(n)
    waves = np.cos(np.pi * (k[:, None] + 0.5) * k / max(n, 1)) * math.sqrt(2 / max(n, 1))
    waves[:, :1] /= math.sqrt(2)
    return waves
