r"""The Brownian path of a sample, and how far a solver has followed it.

Solvers of the SDE take their noise from a Brownian path of each sample, in the time of a `clock` of
the noise level, so that fine steps, coarse steps and repeated steps follow the same path. A state
that has gone back to more noise and comes to a part of the path for the second time continues on a
new path. A path is Levy's construction. ``w(0)`` is 0 and ``w(1)`` a normal number; another ``xi``
belongs to the middle of each interval ``(a, b)`` of length ``2^-n``, ``n < m = 12``, and one to the
place ``u`` inside the last::

    w((a + b) / 2) = (w(a) + w(b)) / 2 + 2^(-n/2 - 1) xi                                 (1)
    w(u) = (1 - f) w(a) + f w(b) + 2^(-m/2) sqrt(f (1 - f)) xi,    f = 2^m (u - a)       (2)

Places in different intervals of length ``2^-m`` have the exact joint distribution. Inside one the
path is an arc with the exact variance at each place. Finer steps still add up to exact increments
between intervals: against a Brownian path, variances of their sums ``int g(u) dw`` differ by a
multiple of ``4^-m``. A step shares the longer intervals of the step before: `Recent` keeps their
ends.

Reference: Lévy (1948).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.noise.generators import expanded, pieces
from scorefield.process import Coefficient

_HALVINGS = 12
_SCALES = (1.0, *(2 ** (-n / 2 - 1) for n in range(_HALVINGS)))  # of w(1) and of (1)


def clock(half_log_snr: Tensor) -> Tensor:
    """Return the time of the Brownian path at a noise level, from 0 without noise up to 1.

    A function of the signal-to-noise ratio alone, so that a sample has one path on every process.
    """
    return 1 / (1 + torch.exp(half_log_snr / 4))


class Place(NamedTuple):
    """A place on the paths of a batch, one for all samples, ``(1, ...)``, or one for each.

    Attributes:
        u, path: the place and the number of the path, ``(B, 1)``.
        nodes: the addresses of the normal numbers of ``w(1)``, (1) and (2), ``(B, m + 2)``.
        share: ``f`` of (2), ``(B, 1)``.
    """

    u: Tensor
    path: Tensor
    nodes: Tensor
    share: Tensor

    @classmethod
    def of(cls, u: Coefficient, path: Coefficient) -> Place:
        u = torch.as_tensor(u, dtype=torch.float64).reshape(-1, 1)
        path = torch.as_tensor(path).long().reshape(-1, 1)
        # shifts, since a compiled power of two may be off by rounding, and so by a whole number
        levels = torch.arange(_HALVINGS + 1, device=u.device)
        last = u * 2.0**_HALVINGS
        whole = last.floor().clamp(max=2.0**_HALVINGS - 1)
        nodes = (whole.long() + (1 << _HALVINGS)) >> (_HALVINGS - levels)
        return cls(
            u, path, torch.cat([torch.zeros_like(path + whole.long()), nodes], 1), last - whole
        )

    def common(self, other: Place) -> int:
        """Return how many nodes, from the first, are those of another place."""
        same = ((self.nodes == other.nodes) & (self.path == other.path)).all(0)
        return int(same.sum())  # all nodes behind one that differs differ too

    def equals(self, other: Place) -> bool:
        """Return whether another place is the same."""
        return torch.equal(self.u, other.u) and torch.equal(self.path, other.path)

    def scales(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the factors of the normal numbers, ``(B, m + 2)``."""
        last = 2.0 ** (-_HALVINGS / 2) * (self.share * (1 - self.share)).sqrt()
        others = torch.tensor(_SCALES, dtype=last.dtype, device=last.device).expand(len(last), -1)
        return torch.cat([others, last], 1).to(device, dtype, non_blocking=True)

    def rights(self, device: torch.device) -> Sequence[bool | Tensor]:
        """Return whether the place is right of the middle of each node, after ``w(1)``."""
        right = torch.cat([torch.zeros_like(self.nodes[:, :1]), self.nodes[:, 2:] & 1], 1).bool()
        if len(right) == 1 and not torch.compiler.is_compiling():
            numbers: list[bool] = right[0].tolist()
            return numbers
        return list(right.to(device, non_blocking=True)[..., None, None].unbind(1))


class Visit(NamedTuple):
    """A place on the paths of a source of noise.

    Attributes:
        source: seed, stream, ids, and the number, type and device of the coordinates.
        place: the place.
        middles: ``w(1)`` and the values (1) of its nodes, ``(B, 2, h)`` each.
        value: ``w(u)``.
    """

    source: tuple[object, ...]
    place: Place
    middles: Sequence[Tensor]
    value: Tensor


class Recent:
    """The last visit: a cache, on which no result depends."""

    visit: Visit | None = None  # no __init__, which every sample would enter

    def of(self, source: tuple[object, ...]) -> Visit | None:
        """Return the last visit if it was to the paths of this source."""
        visit = self.visit
        if visit is None or any(
            a is not b if isinstance(a, Tensor) else a != b
            for a, b in zip(visit.source, source, strict=True)
        ):
            return None
        return visit


def descend(
    place: Place, words: Tensor, middles: Sequence[Tensor], half: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor]:
    """Return ``w(1)`` and the values (1) of a place's nodes, and ``w(u)``, ``(B, 2, half)`` each.

    Args:
        words: 64-bit words of its nodes but for the first, ``(B, S)``.
        middles: the values of the first nodes.
    """
    shape, device, first = (len(words), 2, half), words.device, len(middles)
    rights = place.rights(device)
    share = place.share.to(device, dtype, non_blocking=True)[..., None]
    scales = place.scales(device, dtype)[:, first:]
    middles = [*middles, *(torch.empty(shape, dtype=dtype, device=device) for _ in _SCALES[first:])]
    value = torch.empty(shape, dtype=dtype, device=device)
    low = high = torch.zeros((), dtype=dtype, device=device).expand(shape)
    for right, middle in zip(rights[:first], middles, strict=False):
        low, high = _part(right, low, middle, high)
    for rows, columns in pieces(words, half):
        part = (rows, slice(None), columns)
        z = expanded(words[rows], columns, scales if len(scales) == 1 else scales[rows]).unbind(1)
        a, b = low[part], high[part]
        for n, (right, xi) in enumerate(zip(rights[first:], z, strict=False), first):
            middle = xi.add_((a + b).mul_(0.5))
            middles[n][part] = middle
            a, b = _part(right if isinstance(right, bool) else right[rows], a, middle, b)
        f = share if len(share) == 1 else share[rows]
        value[part] = (b - a).mul_(f).add_(a).add_(z[-1])
    return middles, value


def _part(right: bool | Tensor, low: Tensor, middle: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values at the ends of the left or the right part of an interval."""
    if isinstance(right, bool):
        return (middle, high) if right else (low, middle)
    return torch.where(right, middle, low), torch.where(right, high, middle)


class Walk(NamedTuple):
    """The part of the Brownian paths that a batch has followed.

    Numbers if the batch has one time, otherwise tensors ``(B, 1)`` on the CPU.

    Attributes:
        path: which of its paths a sample is on.
        low, high: the ends of the part of that path followed so far.
    """

    path: Coefficient = 0
    low: Coefficient = math.inf
    high: Coefficient = -math.inf

    def extended(self, start: Coefficient, end: Coefficient) -> Walk:
        """Return the walk after an increment between two places.

        On a new path if the increment overlaps with the part followed so far.
        """
        if any(isinstance(place, Tensor) for place in (start, end, *self)):
            return self._extended_each(start, end)
        low, high = sorted((float(start), float(end)))
        if low < float(self.high) and high > float(self.low) and low < high:
            return Walk(int(self.path) + 1, low, high)
        return Walk(self.path, min(low, float(self.low)), max(high, float(self.high)))

    def _extended_each(self, start: Coefficient, end: Coefficient) -> Walk:
        """Do the same with times of each sample."""
        a, b = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1) for v in (start, end))
        lower, upper = torch.minimum(a, b), torch.maximum(a, b)
        path, low, high = (torch.as_tensor(v).to(lower) for v in self)
        again = (lower < high) & (upper > low) & (lower < upper)
        return Walk(
            path + again,
            torch.where(again, lower, torch.minimum(lower, low)),
            torch.where(again, upper, torch.maximum(upper, high)),
        )

    def where(self, mask: Tensor, other: Walk) -> Walk:
        """Return this walk for the samples in ``mask`` ``(B, 1)``, another for the others."""
        if all(not isinstance(v, Tensor) for v in self) and self == other:
            return self

        def choose(one: Coefficient, two: Coefficient) -> Tensor:
            one, two = (torch.as_tensor(v, dtype=torch.float64) for v in (one, two))
            return torch.where(mask, one.reshape(-1, 1), two.reshape(-1, 1))

        return Walk(*(choose(a, b) for a, b in zip(self, other, strict=True)))
