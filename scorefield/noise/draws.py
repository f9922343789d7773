r"""Random numbers that are pure functions of (seed, sample id, step).

A sample must not depend on its neighbours in a batch, so its noise cannot come from one generator
for the batch. `Noise` computes each number from its address with the counter-based generator
Philox4x32-10: the key is the seed, the counter is (block of four numbers, stream and step, id). For
a Brownian path the counter is (path, stream and node, id), and the words are expanded to the normal
numbers of the node. Integers are exact, so the numbers are the same on any device, for any batch
and in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Integral

import torch
from torch import Tensor

from scorefield.field import Shape
from scorefield.noise.brownian import Place, Recent, Visit, Walk, descend
from scorefield.noise.generators import LOW, box_muller, number_type, philox
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
    ENDS,
    PAIRS,
    DECODER,
) = range(16)
_PATH = 128  # added to a stream for its Brownian paths
_STEP_BITS = 24
_IN_CACHE = 2**14  # blocks of four numbers computed at a time by a thread


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
        recent: the last place on the paths, a cache.

    Raises:
        ValueError: seed, ids or step outside their range.
    """

    seed: int
    ids: Tensor
    step: int = 0
    stream: int = SAMPLING
    walk: Walk = Walk()  # noqa: RUF009 - a tuple, immutable
    checked: bool = field(default=False, repr=False)
    recent: Recent = field(default_factory=Recent, repr=False, compare=False)

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
        z = self._normals(-(-count // 4), like)
        return z[:, :count].reshape(len(z), *shape), self.skipped()

    def skipped(self) -> Noise:
        """Return the noise that follows a draw, without computing the numbers."""
        if self.step + 1 >= 2**_STEP_BITS:
            raise ValueError(f"a sample has used all of its 2^{_STEP_BITS} draws of noise.")
        return replace(self, step=self.step + 1)

    def uniform(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return one float64 number in (0, 1) per sample, ``(B,)``, on the device of ``like``.

        On a device without float64, one float32 number.
        """
        dtype = widest(like.device)
        high, low = self._words(self.step, 1, like.device)[:2]
        u = (high.to(dtype) * 2.0**21 + (low >> 11).to(dtype) + 0.5) * 2.0**-53
        return u[:, 0].clamp(max=1 - torch.finfo(dtype).eps / 2), self.skipped()

    def uniform_like(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return numbers in (0, 1) of the shape, type and device of ``like`` ``(B, ...)``."""
        count = math.prod(like.shape[1:])
        words = self._words(self.step, -(-count // 4), like.device)
        u = torch.stack(words, -1).flatten(1)[:, :count] >> 8  # as many digits as float32 has
        u = (u.to(widest(like.device)) + 0.5) * 2.0**-24
        return u.reshape(like.shape).to(like), self.skipped()

    def signs(self, like: Tensor, place: int) -> Tensor:
        """Return random signs, -1 or 1, at one of 2^24 places, shaped like ``like``."""
        count = math.prod(like.shape[1:])
        words = torch.stack(self._words(place, -(-count // 128), like.device), -1)[..., None]
        bits = words.bitwise_right_shift(torch.arange(32, device=like.device)) & 1
        return (1 - 2 * bits.flatten(1)[:, :count]).reshape(like.shape).to(like)

    def increment(self, start: Coefficient, end: Coefficient, like: Tensor) -> tuple[Tensor, Noise]:
        """Return the increment of the Brownian path between two places, scaled to unit variance.

        It is on the path of the last increment, or on a new one if that path has been followed
        here already. For two places in one interval of length 2^-12 the scaling is inexact.

        Args:
            start, end: times on the `clock`, one for all samples or one for each.
            like: ``(B, ...)``; gives shape, type and device of the numbers returned.
        """
        walk = self.walk.extended(start, end)
        first, last = (self.path(u, like, walk.path) for u in (start, end))
        gap = torch.as_tensor(abs(end - start), dtype=torch.float64)
        size = torch.where(gap > 0, gap, 1.0).sqrt().reshape(-1, *[1] * (like.ndim - 1))
        z = (last - first).reshape(like.shape).div_(cast(size, last)).to(like)
        return z, replace(self, walk=walk)

    def path(self, u: Coefficient, like: Tensor, path: Coefficient = 0) -> Tensor:
        """Return the Brownian path at ``u``, ``(B, d)``, ``d`` coordinates as in ``like``.

        In float64 if ``like`` is and its device has it, otherwise in float32.

        Args:
            u, path: the place and the number of the path, one for all samples or one for each.
        """
        count, dtype = math.prod(like.shape[1:]), number_type(like)
        place, cache = Place.of(u, path), not torch.compiler.is_compiling()
        source = (self.seed, self.stream, self.ids, count, dtype, like.device)
        last = self.recent.of(source) if cache else None
        if last is None or not place.equals(last.place):
            same, cached = 0, place.nodes.shape[1] - 1 if cache else 0
            if last is not None:
                same = min(place.common(last.place), len(last.numbers))
                cached = max(0, min(place.shareable(last.place), cached) - same)
            words = self._path_words(place.nodes[:, same:], place.path, like.device)
            numbers = [] if last is None else last.numbers[:same]
            half = -(-count // 2)
            last = Visit(source, place, *descend(place, words, numbers, half, dtype, cached))
            if cache:
                self.recent.visit = last
        return last.value.flatten(1)[:, :count]

    def _path_words(self, nodes: Tensor, path: Tensor, device: torch.device) -> Tensor:
        """Return 64-bit words ``(B, S)`` of nodes ``(B or 1, S)`` of the paths ``(B or 1, 1)``."""
        nodes, path = (v.to(device, non_blocking=True) for v in (nodes, path))
        ids = self.ids.to(device, non_blocking=True)[:, None]
        stepped = nodes + ((self.stream + _PATH) << _STEP_BITS)
        shape = (len(ids), nodes.shape[1])
        counter = [word.expand(shape) for word in (path, stepped, ids & LOW, ids >> 32)]
        high, low, *_ = philox(counter, (self.seed & LOW, self.seed >> 32))
        return (high << 32) | low

    def where(self, mask: Tensor, other: Noise) -> Noise:
        """Return this noise with the walk of another for the samples outside ``mask``.

        ``mask`` is ``(B, 1, ...)``; the draws so far remain those of this noise.
        """
        return replace(self, walk=self.walk.where(mask.reshape(-1, 1), other.walk))

    def _normals(self, blocks: int, like: Tensor) -> Tensor:
        """Return the normal numbers ``(B, 4 blocks)`` of the next draw.

        On the CPU in pieces that fit into its cache, since a word passes through many operations.
        """
        counter = self._counter(self.step, blocks, like.device)
        key = self.seed & LOW, self.seed >> 32
        count = len(self.ids)
        if not like.is_cpu or torch.compiler.is_compiling():
            return box_muller(philox(counter, key), widest(like.device)).flatten(1).to(like.dtype)
        z = torch.empty(count, blocks, 4, dtype=like.dtype)
        most = _IN_CACHE * torch.get_num_threads()
        rows, wide = max(1, most // max(1, blocks)), min(most, max(1, blocks))
        for i in range(0, count, rows):
            for j in range(0, blocks, wide):
                part = (slice(i, i + rows), slice(j, j + wide))
                z[part] = box_muller(philox([word[part] for word in counter], key), torch.float64)
        return z.flatten(1)

    def _words(self, step: int, blocks: int, device: torch.device) -> list[Tensor]:
        """Return four tensors ``(B, blocks)`` of random words."""
        return philox(self._counter(step, blocks, device), (self.seed & LOW, self.seed >> 32))

    def _counter(self, step: int, blocks: int, device: torch.device) -> list[Tensor]:
        """Return the addresses of words, four tensors ``(B, blocks)``."""
        ids = self.ids.to(device, non_blocking=True)[:, None]
        block = torch.arange(blocks, device=device)
        stepped = torch.full((1, 1), step + (self.stream << _STEP_BITS), device=device)
        shape = (len(ids), blocks)
        return [word.expand(shape) for word in (block, stepped, ids & LOW, ids >> 32)]
