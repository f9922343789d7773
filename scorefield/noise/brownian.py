r"""The Brownian path of a sample, and how far a solver has followed it.

Solvers of the SDE take their noise from a Brownian path of each sample, in the time of a `clock` of
the noise level, so that fine steps, coarse steps and repeated steps follow the same path. A state
that has gone back to more noise and comes to a part of the path for the second time continues on a
new path. A path is Levy's construction. ``w(0)`` is 0 and ``w(1)`` a normal number; another ``xi``
belongs to the middle of each interval ``(a, b)`` of length ``2^-n``, ``n < m = 12``, and one to the
place ``u`` inside the last::

    w((a + b) / 2) = (w(a) + w(b)) / 2 + 2^(-n/2 - 1) xi                                 (1)
    w(u) = (1 - f) w(a) + f w(b) + 2^(-m/2) sqrt(f (1 - f)) xi,    f = 2^m (u - a)       (2)

So ``w(u)`` is a sum over the nodes on the way to ``u``, each with its normal number and a weight::

    w(u) = u xi_w + sum_n 2^(-n/2 - 1) (1 - |2 f_n - 1|) xi_n + 2^(-m/2) sqrt(f (1 - f)) xi
    f_n = 2^n (u - a_n),    a_n the start of the interval of length 2^-n with u          (3)

Places in different intervals of length ``2^-m`` have the exact joint distribution. Inside one the
path is an arc with the exact variance at each place. Finer steps still add up to exact increments
between intervals: against a Brownian path, variances of their sums ``int g(u) dw`` differ by a
multiple of ``4^-m``. A step shares the longer intervals of the step before: `Recent` keeps the
normal numbers of these nodes.

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
        weights: the weights of these numbers in (3), ``(B, m + 2)``.
    """

    u: Tensor
    path: Tensor
    nodes: Tensor
    weights: Tensor

    @classmethod
    def of(cls, u: Coefficient, path: Coefficient) -> Place:
        u = torch.as_tensor(u, dtype=torch.float64).reshape(-1, 1)
        path = torch.as_tensor(path).long().reshape(-1, 1)
        # shifts, since a compiled power of two may be off by rounding, and so by a whole number
        levels = torch.arange(_HALVINGS + 1, device=u.device)
        last = u * 2.0**_HALVINGS
        whole = last.floor().clamp(max=2.0**_HALVINGS - 1).long()
        nodes = (whole + (1 << _HALVINGS)) >> (_HALVINGS - levels)
        lengths = (1 << levels).double()
        f = (u + 1) * lengths - nodes  # nodes are numbered from 2^n on
        arc = 2.0 ** (-_HALVINGS / 2) * (f[:, -1:] * (1 - f[:, -1:])).sqrt()
        hats = (1 - (2 * f[:, :-1] - 1).abs()) * 0.5 / lengths[:-1].sqrt()
        first = torch.zeros_like(path + whole)
        return cls(u, path, torch.cat([first, nodes], 1), torch.cat([u, hats, arc], 1))

    def common(self, other: Place) -> int:
        """Return how many nodes, from the first, are those of another place."""
        same = ((self.nodes == other.nodes) & (self.path == other.path)).all(0)
        return int(same.sum())  # all nodes behind one that differs differ too

    def shareable(self, other: Place) -> int:
        """Return how many nodes a step may share that is as long as the one from another place."""
        gap = max(float((self.u - other.u).abs().max()), 2.0**-_HALVINGS)
        return 2 - math.floor(math.log2(gap))

    def equals(self, other: Place) -> bool:
        """Return whether another place is the same."""
        return torch.equal(self.u, other.u) and torch.equal(self.path, other.path)


class Visit(NamedTuple):
    """A place on the paths of a source of noise.

    Attributes:
        source: seed, stream, ids, and the number, type and device of the coordinates.
        place: the place.
        numbers: the normal numbers of its first nodes, ``(B, 2, h)`` each.
        value: ``w(u)``.
    """

    source: tuple[object, ...]
    place: Place
    numbers: Sequence[Tensor]
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
    place: Place,
    words: Tensor,
    numbers: Sequence[Tensor],
    half: int,
    dtype: torch.dtype,
    cached: int,
) -> tuple[list[Tensor], Tensor]:
    """Return the normal numbers of the first nodes of a place, and ``w(u)`` by (3).

    Args:
        words: 64-bit words of its nodes but for the first, ``(B, S)``.
        numbers: the normal numbers of the first nodes, ``(B, 2, half)`` each, as returned.
        cached: how many of the new numbers to return.
    """
    count, device, first = len(words), words.device, len(numbers)
    weights = place.weights.to(device, dtype, non_blocking=True)[..., None, None].unbind(1)
    value = torch.zeros(count, 2, half, dtype=dtype, device=device)
    for xi, weight in zip(numbers, weights, strict=False):
        value.addcmul_(xi, weight)
    fresh = torch.empty(count, cached, 2, half, dtype=dtype, device=device)
    for rows, columns in pieces(words, half):
        z, part = expanded(words[rows], columns, dtype), value[rows, :, columns]
        for xi, weight in zip(z.unbind(1), weights[first:], strict=True):
            part.addcmul_(xi, weight if len(weight) == 1 else weight[rows])
        if cached:
            fresh[rows, :, :, columns] = z[:, :cached]
    return [*numbers, *fresh.unbind(1)], value


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
