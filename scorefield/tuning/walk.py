r"""Derivatives of the end of fitted steps, by differences, for `scorefield.tuning.polish`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.field import Instant
from scorefield.process import wide
from scorefield.sampling import from_normal
from scorefield.solvers import Fitted
from scorefield.tuning.noises import Noises

_H = 0.01  # of the differences: in log(sigma / alpha), and of the root mean square of the state
_RIDGE = 1e-6  # of the correlations

Pairs = tuple[tuple[Tensor, Tensor], ...]


class Walk:
    """The steps of a fitted solver, with the derivatives of their end."""

    def __init__(self, noises: Noises, solver: Fitted) -> None:
        self.noises, self.table = noises, solver.table
        self.rows = [[row for _, *row in step] for step in nodes_of(solver)]
        process = noises.field.process
        times = solver.times(process)
        self.alpha_end = float(process.coefficients(times[-1])[0])
        own = -process.half_log_snr(times[:-1])
        nodes = [[level for level, *_ in step] for step in nodes_of(solver)]
        further = torch.tensor(nodes, dtype=torch.float64)
        half_log_snr = -torch.cat([own[:, None], further], 1).flatten()
        near = (half_log_snr + _H).clamp(max=process.half_log_snr_range[1])
        self.instants, self.near = (self._instants(v) for v in (half_log_snr, near))

    def _instants(self, half_log_snr: Tensor) -> list[list[Instant]]:
        """Return the instants of the calls of each step."""
        field, count = self.noises.field, 1 + len(self.rows[0])
        instants = field.instants(field.process.time(half_log_snr))
        return [instants[k : k + count] for k in range(0, len(instants), count)]

    def derivatives(self, place: slice, units: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the samples ``(N, d)`` and their derivatives.

        These are, by step: by the level of the first call; for each further call by its level and
        its coefficients; by the coefficients of the step. Fills ``units``, the directions of the
        coefficients, if they are empty.
        """
        y, pairs = self._first(place, self.instants[0][0]), Pairs()
        ends: list[tuple[Tensor, float]] = []
        directions = iter(tuple(units))

        def unit_of(columns: Tensor) -> Tensor:
            if (unit := next(directions, None)) is None:
                units.append(unit := _uncorrelated(columns))
            return unit

        for i, (instants, near) in enumerate(zip(self.instants, self.near, strict=True)):
            fresh = self._calls(place, i, y, pairs)
            columns = torch.stack([y, *(x0 for x0, _ in pairs)], -1)
            for k, (at, beyond) in enumerate(zip(instants, near, strict=True)):
                width = math.log(at.sigma / at.alpha) - math.log(beyond.sigma / beyond.alpha)
                begin, state = y, self._state(i, k, y, pairs)
                if i == k == 0:
                    begin = state = self._first(place, beyond)
                    changed = self._calls(place, i, begin, pairs)
                else:
                    changed = fresh
                moved = self._call(place, state, beyond)
                changed = (*changed[:k], moved, *changed[k + 1 :])
                ends.append((self._end(place, i, begin, (*changed, *pairs)), -max(width, 1e-9)))
                for unit in unit_of(columns).T if k else ():
                    moved = self._call(place, state + _H * (columns @ unit.to(y)), at)
                    changed = (*fresh[:k], moved, *fresh[k + 1 :])
                    ends.append((self._end(place, i, y, (*changed, *pairs)), _H))
            pairs = (*fresh, *pairs)
            columns = torch.stack([y, *(x0 for x0, _ in pairs)], -1)
            y = _combined(self.table[i], y, pairs)
            for unit in unit_of(columns).T:
                moved_y = y + _H * (columns @ unit.to(y))
                ends.append((self._rest(place, i + 1, moved_y, pairs), _H))
        y = y * self.alpha_end
        return y, [((end - y) / h).float() for end, h in ends]

    def _first(self, place: slice, at: Instant) -> Tensor:
        x = from_normal(self.noises.field, self.noises.z[place], at.t)
        result: Tensor = wide(x).flatten(1) / at.alpha
        return result

    def _call(self, place: slice, y: Tensor, at: Instant) -> tuple[Tensor, Tensor]:
        noises = self.noises
        x = (y * at.alpha).reshape(-1, *noises.field.shape).to(noises.z)
        estimate = noises.field(x, at, **noises.conditions_of(place))
        return wide(estimate.x0).flatten(1), wide(estimate.eps).flatten(1)

    def _state(self, i: int, k: int, y: Tensor, pairs: Pairs) -> Tensor:
        """Return the state of a call of a step."""
        return _combined(self.rows[i][k - 1], y, pairs) if k else y

    def _calls(self, place: slice, i: int, y: Tensor, pairs: Pairs) -> Pairs:
        """Return the estimates of a step."""
        return tuple(
            self._call(place, self._state(i, k, y, pairs), at)
            for k, at in enumerate(self.instants[i])
        )

    def _end(self, place: slice, i: int, y: Tensor, pairs: Pairs) -> Tensor:
        """Return the samples from a state whose calls are made."""
        return self._rest(place, i + 1, _combined(self.table[i], y, pairs), pairs)

    def _rest(self, place: slice, i: int, y: Tensor, pairs: Pairs) -> Tensor:
        """Return the samples from a state before its calls."""
        for k in range(i, len(self.table)):
            pairs = (*self._calls(place, k, y, pairs), *pairs)
            y = _combined(self.table[k], y, pairs)
        end: Tensor = y * self.alpha_end
        return end


def _combined(row: Sequence[float], y: Tensor, pairs: Pairs) -> Tensor:
    """Return a state from a row of a table of `Fitted`."""
    of_y, *rest = row
    y = of_y * y
    for b, c, (x0, eps) in zip(rest[::2], rest[1::2], pairs, strict=True):
        y = y + b * x0 + c * eps
    return y


def _uncorrelated(columns: Tensor) -> Tensor:
    """Return combinations of columns ``(..., k)`` of unit size and without correlation, ``(k, k)``.

    The estimates along a path are nearly alike.
    """
    rows = columns.reshape(-1, columns.shape[-1])
    gram = (rows.T @ rows / len(rows)).cpu()
    size = gram.diagonal().sqrt()
    correlation = gram / (size[:, None] * size) + _RIDGE * torch.eye(len(gram)).to(gram)
    result: Tensor = torch.linalg.inv(torch.linalg.cholesky(correlation)).T / size[:, None]
    return result


def nodes_of(solver: Fitted) -> Sequence[tuple[tuple[float, ...], ...]]:
    """Return the nodes of each step, none for steps of one call."""
    return solver.nodes or [()] * len(solver.table)
