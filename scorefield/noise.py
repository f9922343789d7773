r"""Random numbers that are pure functions of (seed, sample id, step).

A sample must not depend on its neighbours in a batch, so no shared generator can make its noise.
`Noise` computes each number from its address with the counter-based generator Philox4x32-10: the
key is the seed, the counter is (path and block of four numbers, stream and step, id). Integers are
exact, so the numbers are the same on any device, for any batch and in any order.

Solvers of the SDE take their noise from a Brownian path of each sample, run against the `clock` of
the noise level, so that fine steps, coarse steps and repeated steps follow the same path. A state
that comes to a stretch it has walked already, after going back to more noise, is on a new path from
there. It is Levy's construction, with a fresh number ``xi`` for each halving of the interval and
one for the place inside the last::

    w(u) = u xi + sum_n 2^(-n/2) min(f_n, 1 - f_n) xi_n + 2^(-m/2) sqrt(f_m (1 - f_m)) xi_m    (1)

``f_n`` is the fractional part of ``2^n u`` and ``xi_n`` belongs to its whole part, ``n < m = 20``.
Places in different intervals of length ``2^-m`` have the exact joint law.

Reference: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3; Lévy (1948).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.field import Shape
from scorefield.process import Coefficient

# Uses of randomness that must not share numbers even where they share seeds and ids.
(
    SAMPLING,
    TRAINING,
    ORDER,
    OFFSET,
    METRICS,
    PROBES,
    BOUND,
    LEVELS,
    SPLIT,
    EVALUATION,
    TUNING,
    CORRUPTION,
) = range(12)
_PATH = 128  # added to a stream for its Brownian paths

_LOW = 0xFFFFFFFF
_STEP_BITS = 24
_BLOCK_BITS = 22
_PATH_BITS = 10
PATHS = 2**_PATH_BITS  # that a sample has
_HALVINGS = 20
_AT_ONCE = 2**20  # numbers made at once where a path is looked up
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return four 32-bit words, as int64 tensors, from four counter words and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(c0, _MULTIPLY[0]), _product(c2, _MULTIPLY[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product of 32-bit words."""
    if torch.compiler.is_compiling():
        # a compiler may take for granted that signed numbers do not overflow
        low, high = (word & 0xFFFF) * factor, (word >> 16) * factor
        return (high + (low >> 16)) >> 16, (low + ((high & 0xFFFF) << 16)) & _LOW
    product = word * factor
    return (product >> 32) & _LOW, product & _LOW


def clock(half_log_snr: Tensor) -> Tensor:
    """Return the time of the Brownian path at a noise level: 0 where there is none, 1 at the most.

    A function of the signal-to-noise ratio alone, so that a sample has one path on every process.
    """
    return 1 / (1 + torch.exp(half_log_snr / 4))


class Walk(NamedTuple):
    """How far the Brownian paths of a batch have been walked.

    Numbers where that is one for all samples, otherwise tensors ``(B, 1)``.

    Attributes:
        path: which of its paths a sample is on.
        low, high: the ends of the stretch that has been walked of it.
        end: where the last increment ended.
        value: the path's value there, float64 ``(B, d)``.
    """

    path: Coefficient
    low: Coefficient
    high: Coefficient
    end: Coefficient
    value: Tensor


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of samples, ready for its next draw.

    A draw returns the numbers and the noise that follows them; `Noise` itself never changes.

    Args:
        seed: any integer in ``[0, 2^64)``.
        ids: int64 ``(B,)``, non-negative: which sample each slot of the batch holds.
        step: how many draws came before, below 2^24.
        stream: what the numbers are for, below 128; streams share none.
        walk: how far the samples have come on their Brownian paths; None at the start.
        checked: the arguments are known to be good.

    Raises:
        ValueError: seed, ids or step outside their range.
    """

    seed: int
    ids: Tensor
    step: int = 0
    stream: int = SAMPLING
    walk: Walk | None = None
    checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.checked:
            return  # a look at the ids would wait for the device
        if not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed = {self.seed!r}: give an integer from 0 to 2^64 - 1.")
        if self.ids.ndim != 1 or self.ids.dtype != torch.int64:
            raise ValueError(
                f"ids have shape {tuple(self.ids.shape)} and type {self.ids.dtype}: "
                "needs int64 of shape (B,)."
            )
        if bool((self.ids < 0).any()) or not 0 <= self.step < 2**_STEP_BITS:
            raise ValueError(
                f"step = {self.step} and the smallest id is {int(self.ids.min())}: needs ids >= 0 "
                f"and 0 <= step < 2^{_STEP_BITS}."
            )
        object.__setattr__(self, "checked", True)

    def normal(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return standard normal numbers of the shape, type and device of ``like`` ``(B, ...)``."""
        return self.draw(tuple(like.shape[1:]), like)

    def draw(self, shape: Shape, like: Tensor) -> tuple[Tensor, Noise]:
        """Return standard normal numbers ``(B, *shape)``."""
        count = math.prod(shape)
        step = torch.full((1, 1), self.step, device=like.device)
        z = _normal(self._words(step, -(-count // 4)))
        return z[:, 0, :count].reshape(-1, *shape).to(like), self.skipped()

    def skipped(self) -> Noise:
        """Return the noise that follows a draw, without making its numbers."""
        if self.step + 1 >= 2**_STEP_BITS:
            raise ValueError(f"a sample has used up its 2^{_STEP_BITS} draws of noise.")
        return replace(self, step=self.step + 1)

    def uniform(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return one float64 number in (0, 1) per sample, shape ``(B,)``, on the device given."""
        step = torch.full((1, 1), self.step, device=like.device)
        high, low = self._words(step, 1)[:2]
        u = (high.double() * 2.0**21 + (low >> 11).double() + 0.5) * 2.0**-53
        return u[:, 0, 0], self.skipped()

    def uniform_like(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return numbers in (0, 1) of the shape, type and device of ``like`` ``(B, ...)``."""
        count = math.prod(like.shape[1:])
        step = torch.full((1, 1), self.step, device=like.device)
        words = torch.stack(self._words(step, -(-count // 4)), -1)[:, 0].flatten(1)[:, :count]
        u = ((words >> 8).double() + 0.5) * 2.0**-24  # of as many digits as float32 holds
        return u.reshape(like.shape).to(like), self.skipped()

    def signs(self, like: Tensor, place: int) -> Tensor:
        """Return random signs, -1 or 1, like ``like`` ``(B, ...)``: those at a place of 2^24."""
        count = math.prod(like.shape[1:])
        step = torch.full((1, 1), place, device=like.device)
        words = torch.stack(self._words(step, -(-count // 128)), -1)[:, 0, :, :, None]
        bits = words.bitwise_right_shift(torch.arange(32, device=like.device)) & 1
        return (1 - 2 * bits.flatten(1)[:, :count]).reshape(like.shape).to(like)

    def increment(self, start: Coefficient, end: Coefficient, like: Tensor) -> tuple[Tensor, Noise]:
        """Return the way of the Brownian path (1) between two places, scaled to unit variance.

        On the path of the last increment, unless that has walked some of this way already: then on
        a new one. Places in one interval of length 2^-20 are too near each other for the scaling to
        be exact.

        Args:
            start, end: times on the `clock`, one for all samples or one for each.
            like: ``(B, ...)``; gives shape, type and device of the numbers returned.

        Raises:
            ValueError: a sample has used up its 2^10 paths. With places of each sample this is not
                looked at, and paths beyond are not independent.
        """
        path, low, high = self._stretch(start, end)
        first = self._known(path, start)
        first = self.path(start, like, path) if first is None else first
        last = self.path(end, like, path)
        gap = torch.as_tensor(abs(end - start), dtype=torch.float64, device=like.device)
        size = torch.where(gap > 0, gap, 1.0).sqrt().reshape(-1, *[1] * (like.ndim - 1))
        z = ((last - first).reshape(like.shape) / size).to(like)
        return z, replace(self, walk=Walk(path, low, high, end, last))

    def path(self, u: Coefficient, like: Tensor, path: Coefficient = 0) -> Tensor:
        """Return ``w(u)`` of (1), float64 ``(B, d)``, for ``d`` coordinates of each of ``like``.

        Args:
            u, path: the place and which path, one for all samples or one for each.
        """
        count, device = math.prod(like.shape[1:]), like.device
        u = torch.as_tensor(u, dtype=torch.float64, device=device).reshape(-1, 1)
        path = torch.as_tensor(path, device=device).long().reshape(-1, 1)
        # a shift, since a compiled power of two may be off by rounding, and so by a whole number
        levels = torch.arange(_HALVINGS + 1, device=device)
        halvings = torch.ones_like(levels).bitwise_left_shift(levels).double()
        whole = (u * halvings).floor()
        part = u * halvings - whole
        tents = torch.minimum(part, 1 - part)
        tents = torch.cat([tents[:, :-1], (part * (1 - part)).sqrt()[:, -1:]], 1)
        weights = torch.cat([u, tents * halvings**-0.5], 1)
        nodes = torch.cat([torch.zeros_like(u), halvings + whole], 1).long()
        if count > 4 * 2**_BLOCK_BITS:
            raise ValueError(f"a sample has {count} numbers: paths have up to 2^24 coordinates.")
        on_path = replace(self, stream=self.stream + _PATH, walk=None)
        w = torch.zeros(len(self.ids), count, dtype=torch.float64, device=device)
        width = max(1, _AT_ONCE // max(1, w.numel()))
        for k in range(0, nodes.shape[1], width):
            z = _normal(on_path._words(nodes[:, k : k + width], -(-count // 4), path))
            part_of = weights[:, k : k + width].expand(len(z), -1)
            w = w + torch.einsum("bn,bnk->bk", part_of, z[..., :count])
        return w

    def where(self, mask: Tensor, other: Noise) -> Noise:
        """Return this noise for the samples in ``mask`` ``(B, 1, ...)``, another for the rest.

        They differ in how far their paths are walked; the draws made are this noise's.
        """
        if self.walk is None:
            return self
        rows = mask.reshape(-1, 1)
        start = Walk(0.0, math.inf, -math.inf, math.nan, torch.zeros_like(self.walk.value))
        mine, theirs = self.walk, other.walk or start

        def choose(one: Coefficient, two: Coefficient) -> Tensor:
            one, two = (torch.as_tensor(v, dtype=torch.float64).to(rows.device) for v in (one, two))
            return torch.where(rows, one.reshape(-1, 1), two.reshape(-1, 1))

        path, low, high, end = (choose(a, b) for a, b in zip(mine[:4], theirs[:4], strict=True))
        value = torch.where(rows, mine.value, theirs.value)
        return replace(self, walk=Walk(path, low, high, end, value))

    def _stretch(
        self, start: Coefficient, end: Coefficient
    ) -> tuple[Coefficient, Coefficient, Coefficient]:
        """Return the path to take between two places, and the ends of what is then walked of it."""
        walk = self.walk
        places = [start, end] if walk is None else [start, end, *walk[:3]]
        if all(isinstance(place, float | int) for place in places):
            low, high = sorted((float(start), float(end)))
            if walk is None:
                return 0, low, high
            if low < float(walk.high) and high > float(walk.low) and low < high:
                if int(walk.path) + 1 >= 2**_PATH_BITS:
                    raise ValueError(f"a sample has used up its 2^{_PATH_BITS} Brownian paths.")
                return int(walk.path) + 1, low, high
            return walk.path, min(low, float(walk.low)), max(high, float(walk.high))
        a, b = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1) for v in (start, end))
        lower, upper = torch.minimum(a, b), torch.maximum(a, b)
        if walk is None:
            return 0, lower, upper
        path, low_, high_ = (torch.as_tensor(v).to(lower) for v in walk[:3])
        again = (lower < high_) & (upper > low_) & (lower < upper)
        return (
            path + again,
            torch.where(again, lower, torch.minimum(lower, low_)),
            torch.where(again, upper, torch.maximum(upper, high_)),
        )

    def _known(self, path: Coefficient, u: Coefficient) -> Tensor | None:
        """Return the path's value at ``u`` if that is where the last increment ended."""
        walk = self.walk
        if walk is None or any(isinstance(v, Tensor) for v in (u, walk.end, path)):
            return None
        return walk.value if walk.end == u and walk.path == path else None

    def _words(self, step: Tensor, blocks: int, path: Tensor | None = None) -> list[Tensor]:
        """Return four tensors ``(B, S, blocks)`` of random words for steps ``(B or 1, S)``.

        ``path`` ``(B or 1, 1)`` is which of its paths each sample is on, if on one.
        """
        ids = self.ids.to(step.device)[:, None, None]
        block = torch.arange(blocks, device=step.device)
        if path is not None:
            block = block + (path[..., None] << _BLOCK_BITS)
        shape = (len(ids), step.shape[1], blocks)
        stepped = step[..., None] + (self.stream << _STEP_BITS)
        counter = (block, stepped, ids & _LOW, ids >> 32)
        words = [word.expand(shape) for word in counter]
        return philox(words, (self.seed & _LOW, self.seed >> 32))


def _normal(words: Sequence[Tensor]) -> Tensor:
    """Return four float64 normal numbers per block ``(..., blocks)``, by Box and Muller."""
    u = [(word.double() + 0.5) * 2.0**-32 for word in words]
    pairs = []
    for radial, angular in (u[:2], u[2:]):
        radius, angle = (-2 * radial.log()).sqrt(), 2 * math.pi * angular
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, -1).flatten(-2)
