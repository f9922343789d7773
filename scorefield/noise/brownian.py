r"""The Brownian path of a sample, and how far a solver has followed it.

Solvers of the SDE take their noise from a Brownian path of each sample, in the time of a `clock` of
the noise level, so that fine steps, coarse steps and repeated steps follow the same path. A state
that has gone back to more noise and comes to a part of the path for the second time continues on a
new path. A path is Levy's construction, with a normal number ``xi`` for each halving of the
interval and one for the place inside the last::

    w(u) = u xi + sum_n 2^(-n/2) min(f_n, 1 - f_n) xi_n + 2^(-m/2) sqrt(f_m (1 - f_m)) xi_m    (1)

``f_n`` is the fractional part of ``2^n u`` and ``xi_n`` belongs to its whole part, ``n < m = 20``.
Places in different intervals of length ``2^-m`` have the exact joint distribution.

Reference: Lévy (1948).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.process import Coefficient

_HALVINGS = 20
PATH_BITS = 10
PATHS = 2**PATH_BITS  # of each sample


def clock(half_log_snr: Tensor) -> Tensor:
    """Return the time of the Brownian path at a noise level, from 0 without noise up to 1.

    A function of the signal-to-noise ratio alone, so that a sample has one path on every process.
    """
    return 1 / (1 + torch.exp(half_log_snr / 4))


def construction(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nodes of (1) at places ``u`` ``(B, 1)`` and their weights, ``(B, m + 2)``.

    A node is the address of its normal number ``xi``.
    """
    # a shift, since a compiled power of two may be off by rounding, and so by a whole number
    levels = torch.arange(_HALVINGS + 1, device=u.device)
    halvings = torch.ones_like(levels).bitwise_left_shift(levels).double()
    whole = (u * halvings).floor()
    part = u * halvings - whole
    tents = torch.minimum(part, 1 - part)
    tents = torch.cat([tents[:, :-1], (part * (1 - part)).sqrt()[:, -1:]], 1)
    weights = torch.cat([u, tents * halvings**-0.5], 1)
    return torch.cat([torch.zeros_like(u), halvings + whole], 1).long(), weights


class Walk(NamedTuple):
    """The part of the Brownian paths that a batch has followed.

    Numbers if the batch has one time, otherwise tensors ``(B, 1)`` on the CPU.

    Attributes:
        path: which of its paths a sample is on.
        low, high: the ends of the part of that path followed so far.
        end: the end of the last increment.
        value: the path's value there, ``(B, d)``; None before the first increment.
    """

    path: Coefficient = 0
    low: Coefficient = math.inf
    high: Coefficient = -math.inf
    end: Coefficient = math.nan
    value: Tensor | None = None

    def extended(
        self, start: Coefficient, end: Coefficient
    ) -> tuple[Coefficient, Coefficient, Coefficient]:
        """Return path, low and high after an increment between two places.

        On a new path if the increment overlaps with the part followed so far.
        """
        if any(isinstance(place, Tensor) for place in (start, end, *self[:3])):
            return self._extended_each(start, end)
        low, high = sorted((float(start), float(end)))
        if low < float(self.high) and high > float(self.low) and low < high:
            if int(self.path) + 1 >= PATHS:
                raise ValueError(f"a sample has used all of its 2^{PATH_BITS} Brownian paths.")
            return int(self.path) + 1, low, high
        return self.path, min(low, float(self.low)), max(high, float(self.high))

    def _extended_each(
        self, start: Coefficient, end: Coefficient
    ) -> tuple[Coefficient, Coefficient, Coefficient]:
        """Do the same with times of each sample."""
        a, b = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1) for v in (start, end))
        lower, upper = torch.minimum(a, b), torch.maximum(a, b)
        path, low, high = (torch.as_tensor(v).to(lower) for v in self[:3])
        again = (lower < high) & (upper > low) & (lower < upper)
        return (
            path + again,
            torch.where(again, lower, torch.minimum(lower, low)),
            torch.where(again, upper, torch.maximum(upper, high)),
        )

    def value_at(self, path: Coefficient, u: Coefficient) -> Tensor | None:
        """Return the path's value at ``u`` if the last increment ended there."""
        if any(isinstance(v, Tensor) for v in (u, self.end, path)):
            return None
        return self.value if self.end == u and self.path == path else None

    def where(self, mask: Tensor, other: Walk) -> Walk:
        """Return this walk for the samples in ``mask`` ``(B, 1)``, another for the others."""
        if self.value is None:
            return self
        value = torch.zeros_like(self.value) if other.value is None else other.value

        def choose(one: Coefficient, two: Coefficient) -> Tensor:
            one, two = (torch.as_tensor(v, dtype=torch.float64) for v in (one, two))
            return torch.where(mask, one.reshape(-1, 1), two.reshape(-1, 1))

        path, low, high, end = (choose(a, b) for a, b in zip(self[:4], other[:4], strict=True))
        mask = mask.to(value.device)
        return Walk(path, low, high, end, torch.where(mask, self.value, value))
