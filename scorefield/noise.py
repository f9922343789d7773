r"""Random numbers that are pure functions of (seed, sample id, step).

A sample must not depend on its neighbours in a batch, so no shared generator can make its noise.
`Noise` computes each number from its address with the counter-based generator Philox4x32-10: the
key is the seed, the counter is (block of four numbers, stream and step, id). Integers are exact, so
the numbers are the same on any device, for any batch and in any order.

Reference: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.field import Shape

# Uses of randomness that must not share numbers even where they share seeds and ids.
SAMPLING, TRAINING, ORDER, OFFSET, METRICS = range(5)

_LOW = 0xFFFFFFFF
_STEP_BITS = 24
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return four 32-bit words, as int64 tensors, from four counter words and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _LOW) ^ c1 ^ k0,
            p1 & _LOW,
            ((p0 >> 32) & _LOW) ^ c3 ^ k1,
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of samples, ready for its next draw.

    A draw returns the numbers and the noise that follows them; `Noise` itself never changes.

    Args:
        seed: any integer in ``[0, 2^64)``.
        ids: int64 ``(B,)``, non-negative: which sample each slot of the batch holds.
        step: how many draws came before, below 2^24.
        stream: what the numbers are for; streams share none.

    Raises:
        ValueError: seed, ids or step outside their range.
    """

    seed: int
    ids: Tensor
    step: int = 0
    stream: int = SAMPLING

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed = {self.seed}: give an integer from 0 to 2^64 - 1.")
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

    def normal(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return standard normal numbers of the shape, type and device of ``like`` ``(B, ...)``."""
        return self.draw(tuple(like.shape[1:]), like)

    def draw(self, shape: Shape, like: Tensor) -> tuple[Tensor, Noise]:
        """Return standard normal numbers ``(B, *shape)``, by the Box-Muller transform."""
        count = math.prod(shape)
        u = [(word.double() + 0.5) * 2.0**-32 for word in self._words(-(-count // 4), like)]
        pairs = []
        for radial, angular in (u[:2], u[2:]):
            radius, angle = (-2 * radial.log()).sqrt(), 2 * math.pi * angular
            pairs += [radius * angle.cos(), radius * angle.sin()]
        z = torch.stack(pairs, -1).flatten(1)[:, :count].reshape(-1, *shape)
        return z.to(like), replace(self, step=self.step + 1)

    def uniform(self, like: Tensor) -> tuple[Tensor, Noise]:
        """Return one float64 number in (0, 1) per sample, shape ``(B,)``, on the device given."""
        high, low = self._words(1, like)[:2]
        u = (high.double() * 2.0**21 + (low >> 11).double() + 0.5) * 2.0**-53
        return u[:, 0], replace(self, step=self.step + 1)

    def _words(self, blocks: int, like: Tensor) -> list[Tensor]:
        """Return four tensors ``(B, blocks)`` of random 32-bit words."""
        ids = self.ids.to(like.device)[:, None]
        block = torch.arange(blocks, device=like.device)[None].expand(len(ids), -1)
        step = torch.full_like(block, self.step + (self.stream << _STEP_BITS))
        counter = (block, step, (ids & _LOW).expand_as(block), (ids >> 32).expand_as(block))
        return philox(counter, (self.seed & _LOW, self.seed >> 32))
