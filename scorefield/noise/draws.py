r"""Random numbers that are pure functions of (seed, sample id, step).

A sample must not depend on its neighbours in a batch, so its noise cannot come from one generator
for the batch. `Noise` computes each number from its address with the counter-based generator
Philox4x32-10: the key is the seed, the counter is (path and block of four numbers, stream and step,
id). Integers are exact, so the numbers are the same on any device, for any batch and in any order.

Reference: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral

import torch
from torch import Tensor

from scorefield.field import Shape
from scorefield.noise.brownian import Walk, construction
from scorefield.process import Coefficient, cast, widest

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
    CLASSES,
) = range(13)
_PATH = 128  # added to a stream for its Brownian paths

_LOW = 0xFFFFFFFF
_STEP_BITS = 24
_BLOCK_BITS = 22
_AT_ONCE = 2**20  # numbers computed at a time for a path
_IN_CACHE = 2**14  # blocks computed at a time by a thread
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return four 32-bit words, as int64 tensors, from four counter words and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(c0, _MULTIPLY[0]), _product(c2, _MULTIPLY[1])
        c1, c3 = high1.bitwise_xor_(c1).bitwise_xor_(k0), high0.bitwise_xor_(c3).bitwise_xor_(k1)
        c0, c1, c2, c3 = c1, low1, c3, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product of 32-bit words."""
    if torch.compiler.is_compiling():
        # a compiler may assume that signed numbers do not overflow
        low, high = (word & 0xFFFF) * factor, (word >> 16) * factor
        return (high + (low >> 16)) >> 16, (low + ((high & 0xFFFF) << 16)) & _LOW
    product = word * factor
    low = product & _LOW
    return product.bitwise_right_shift_(32).bitwise_and_(_LOW), low


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of samples, at its next draw.

    A draw returns the numbers and the noise that follows them; `Noise` itself never changes::

        z, noise = noise.normal(x)

    Args:
        seed: any integer in ``[0, 2^64)``.
        ids: int64 ``(B,)``, non-negative: the id of the sample in each slot of the batch.
        step: the number of draws before this one, below 2^24.
        stream: the use of the numbers, below 128; streams share no numbers.
        walk: the part of their Brownian paths that the samples have followed.
        checked: the arguments are valid.

    Raises:
        ValueError: seed, ids or step outside their range.
    """

    seed: int
    ids: Tensor
    step: int = 0
    stream: int = SAMPLING
    walk: Walk = Walk()  # noqa: RUF009 - a tuple, immutable
    checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.checked:
            return  # reading the ids would wait for the device
        if not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed={self.seed!r}: give an integer from 0 to 2^64 - 1.")
        if self.ids.ndim != 1 or self.ids.dtype != torch.int64:
            raise ValueError(
                f"ids has shape {tuple(self.ids.shape)} and type {self.ids.dtype}: give int64 of "
                "shape (B,)."
            )
        if bool((self.ids < 0).any()):
            raise ValueError(f"ids: {int(self.ids.min())} is one of them; give ids >= 0.")
        if not 0 <= self.step < 2**_STEP_BITS:
            raise ValueError(f"step={self.step}: give a number from 0 to 2^{_STEP_BITS} - 1.")
        object.__setattr__(self, "checked", True)

    def normal(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return standard normal numbers of the shape, type and device of ``like`` ``(B, ...)``."""
        return self.draw(tuple(like.shape[1:]), like)

    def draw(self, shape: Shape, like: Tensor) -> tuple[Tensor, Noise]:
        """Return standard normal numbers ``(B, *shape)``."""
        count = math.prod(shape)
        step = torch.full((1, 1), self.step, device=like.device)
        z = self._normals(step, -(-count // 4), like.dtype)
        return z[:, 0, :count].reshape(-1, *shape), self.skipped()

    def skipped(self) -> Noise:
        """Return the noise that follows a draw, without computing the numbers."""
        if self.step + 1 >= 2**_STEP_BITS:
            raise ValueError(f"a sample has used all of its 2^{_STEP_BITS} draws of noise.")
        return replace(self, step=self.step + 1)

    def uniform(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return one float64 number in (0, 1) per sample, ``(B,)``, on the device of ``like``.

        On a device without float64, one float32 number.
        """
        step, dtype = torch.full((1, 1), self.step, device=like.device), widest(like.device)
        high, low = self._words(step, 1)[:2]
        u = (high.to(dtype) * 2.0**21 + (low >> 11).to(dtype) + 0.5) * 2.0**-53
        return u[:, 0, 0].clamp(max=1 - torch.finfo(dtype).eps / 2), self.skipped()

    def uniform_like(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return numbers in (0, 1) of the shape, type and device of ``like`` ``(B, ...)``."""
        count = math.prod(like.shape[1:])
        step = torch.full((1, 1), self.step, device=like.device)
        words = torch.stack(self._words(step, -(-count // 4)), -1)[:, 0].flatten(1)[:, :count]
        u = ((words >> 8).to(widest(like.device)) + 0.5) * 2.0**-24  # as many digits as float32 has
        return u.reshape(like.shape).to(like), self.skipped()

    def signs(self, like: Tensor, place: int) -> Tensor:
        """Return random signs, -1 or 1, at one of 2^24 places, shaped like ``like``."""
        count = math.prod(like.shape[1:])
        step = torch.full((1, 1), place, device=like.device)
        words = torch.stack(self._words(step, -(-count // 128)), -1)[:, 0, :, :, None]
        bits = words.bitwise_right_shift(torch.arange(32, device=like.device)) & 1
        return (1 - 2 * bits.flatten(1)[:, :count]).reshape(like.shape).to(like)

    def increment(self, start: Coefficient, end: Coefficient, like: Tensor) -> tuple[Tensor, Noise]:
        """Return the increment of the Brownian path between two places, scaled to unit variance.

        It is on the path of the last increment, or on a new one if that path has been followed
        here already. For two places in one interval of length 2^-20 the scaling is inexact.

        Args:
            start, end: times on the `clock`, one for all samples or one for each.
            like: ``(B, ...)``; gives shape, type and device of the numbers returned.

        Raises:
            ValueError: a sample has used all of its 2^10 paths. With places of each sample this is
                not checked, and further paths are not independent.
        """
        path, low, high = self.walk.extended(start, end)
        first = self.walk.value_at(path, start)
        first = self.path(start, like, path) if first is None else first
        last = self.path(end, like, path)
        gap = torch.as_tensor(abs(end - start), dtype=torch.float64)
        size = torch.where(gap > 0, gap, 1.0).sqrt().reshape(-1, *[1] * (like.ndim - 1))
        z = ((last - first).reshape(like.shape) / cast(size, last)).to(like)
        return z, replace(self, walk=Walk(path, low, high, end, last))

    def path(self, u: Coefficient, like: Tensor, path: Coefficient = 0) -> Tensor:
        """Return the Brownian path at ``u``, ``(B, d)``, ``d`` coordinates as in ``like``.

        In float64, or in float32 on a device without it.

        Args:
            u, path: the place and the number of the path, one for all samples or one for each.

        Raises:
            ValueError: more than 2^24 coordinates.
        """
        count, device = math.prod(like.shape[1:]), like.device
        if count > 4 * 2**_BLOCK_BITS:
            raise ValueError(f"a sample has {count} numbers: paths have up to 2^24 coordinates.")
        nodes, weights = construction(torch.as_tensor(u, dtype=torch.float64).reshape(-1, 1))
        path = torch.as_tensor(path).long().reshape(-1, 1)
        nodes, path = (v.to(device, non_blocking=True) for v in (nodes, path))
        on_path = replace(self, stream=self.stream + _PATH)
        w = torch.zeros(len(self.ids), count, dtype=widest(device), device=device)
        weights = cast(weights, w)
        width = max(1, _AT_ONCE // max(1, w.numel()))
        for k in range(0, nodes.shape[1], width):
            z = on_path._normals(nodes[:, k : k + width], -(-count // 4), w.dtype, path)
            w = w + torch.einsum(
                "bn,bnk->bk", weights[:, k : k + width].expand(len(z), -1), z[..., :count]
            )
        return w

    def where(self, mask: Tensor, other: Noise) -> Noise:
        """Return this noise with the walk of another for the samples outside ``mask``.

        ``mask`` is ``(B, 1, ...)``; the draws so far remain those of this noise.
        """
        return replace(self, walk=self.walk.where(mask.reshape(-1, 1), other.walk))

    def _normals(
        self, step: Tensor, blocks: int, dtype: torch.dtype, path: Tensor | None = None
    ) -> Tensor:
        """Return normal numbers ``(B, S, 4 blocks)`` for steps ``(B or 1, S)``.

        On the CPU in pieces that fit into its cache, since a word passes through many operations.
        """
        counter, key = self._counter(step, blocks, path), (self.seed & _LOW, self.seed >> 32)
        count, steps, _ = counter[0].shape
        if not step.is_cpu or torch.compiler.is_compiling():
            return _normal(philox(counter, key), widest(step.device)).flatten(2).to(dtype)
        z = torch.empty(count, steps, blocks, 4, dtype=dtype)
        most = max(1, _IN_CACHE * torch.get_num_threads() // max(1, steps))
        rows, wide = max(1, most // max(1, blocks)), min(most, max(1, blocks))
        for i in range(0, count, rows):
            for j in range(0, blocks, wide):
                part = (slice(i, i + rows), slice(None), slice(j, j + wide))
                z[part] = _normal(philox([word[part] for word in counter], key), torch.float64)
        return z.flatten(2)

    def _words(self, step: Tensor, blocks: int) -> list[Tensor]:
        """Return four tensors ``(B, S, blocks)`` of random words for steps ``(B or 1, S)``."""
        return philox(self._counter(step, blocks), (self.seed & _LOW, self.seed >> 32))

    def _counter(self, step: Tensor, blocks: int, path: Tensor | None = None) -> list[Tensor]:
        """Return the addresses of words, four tensors ``(B, S, blocks)``.

        ``path`` ``(B or 1, 1)`` is the number of each sample's path, for numbers of a path.
        """
        ids = self.ids.to(step.device, non_blocking=True)[:, None, None]
        block = torch.arange(blocks, device=step.device)
        if path is not None:
            block = block + (path[..., None] << _BLOCK_BITS)
        shape = (len(ids), step.shape[1], blocks)
        stepped = step[..., None] + (self.stream << _STEP_BITS)
        return [word.expand(shape) for word in (block, stepped, ids & _LOW, ids >> 32)]


def _normal(words: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return four normal numbers ``(..., 4)`` of each block, by Box and Muller in a type."""
    u = [(word.to(dtype) + 0.5) * 2.0**-32 for word in words]
    pairs = []
    for radial, angular in (u[:2], u[2:]):
        radius, angle = (-2 * radial.log()).sqrt(), 2 * math.pi * angular
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, -1)
