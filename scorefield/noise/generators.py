r"""Counter-based random words, and normal numbers made of them.

`philox` computes four words from an address; its integers are the same on any device. `expanded`
makes many normal numbers of each 64-bit word ``s``, at a fifth of the cost, with the generator
SplitMix64 and Box and Muller's pairs::

    z_k = r cos(a),  z_(k + h) = r sin(a),  r^2 = -log (p_k / 2^31)^2,  a = pi q_k / 2^31    (1)

``p`` are the signed halves of the generator's odd outputs from ``s`` on, and ``q`` those of its
even outputs.

Reference: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3; Steele, Lea and Flood
(2014), Fast splittable pseudorandom number generators.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scorefield.process import widest

LOW = 0xFFFFFFFF
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # constants of SplitMix64 as signed numbers
_MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_IN_CACHE = 2**18  # words expanded at a time by a thread
_AT_ONCE = 2**22


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return four 32-bit words, as int64 tensors, from four counter words and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(c0, _MULTIPLY[0]), _product(c2, _MULTIPLY[1])
        c1, c3 = high1.bitwise_xor_(c1).bitwise_xor_(k0), high0.bitwise_xor_(c3).bitwise_xor_(k1)
        c0, c1, c2, c3 = c1, low1, c3, low0
        k0, k1 = (k0 + _WEYL[0]) & LOW, (k1 + _WEYL[1]) & LOW
    return [c0, c1, c2, c3]


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product of 32-bit words."""
    if torch.compiler.is_compiling():
        # a compiler may assume that signed numbers do not overflow
        low, high = (word & 0xFFFF) * factor, (word >> 16) * factor
        return (high + (low >> 16)) >> 16, (low + ((high & 0xFFFF) << 16)) & LOW
    product = word * factor
    low = product & LOW
    return product.bitwise_right_shift_(32).bitwise_and_(LOW), low


def box_muller(words: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return four normal numbers ``(..., 4)`` of four 32-bit words, computed in a type."""
    u = [(word.to(dtype) + 0.5) * 2.0**-32 for word in words]
    pairs = []
    for radial, angular in (u[:2], u[2:]):
        radius, angle = (-2 * radial.log()).sqrt(), 2 * math.pi * angular
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, -1)


def splitmix(state: Tensor) -> Tensor:
    """Return the outputs of SplitMix64 at int64 states, which are overwritten."""
    high = torch.empty_like(state)
    for shift, factor in (*_MIX, (31, 1)):
        torch.bitwise_right_shift(state, shift, out=high).bitwise_and_(2 ** (64 - shift) - 1)
        state.bitwise_xor_(high)
        if factor != 1:
            state.mul_(factor)
    return state


def expanded(words: Tensor, columns: slice, dtype: torch.dtype) -> Tensor:
    """Return normal numbers of 64-bit words ``(B, S)`` in a type, ``(B, S, 2, columns)``.

    The numbers ``k`` and ``k + h`` of (1), with ``k`` in the columns of ``h``, from an even one on.
    """
    wide = columns.stop - columns.start
    odd = torch.arange(columns.start + 1, columns.stop + 1, 2, device=words.device)
    place = torch.stack([odd, odd + 1]) * _GOLDEN
    lanes = splitmix(words[..., None, None] + place).view(torch.int32)
    z = lanes[..., :wide].to(dtype)
    p, angle = z.unbind(2)
    least = torch.full((), 2.0**-66, dtype=dtype, device=words.device)  # as if p were a quarter
    radius = torch.addcmul(least, p, p, value=2.0**-62).log_().neg_().sqrt_()
    angle.mul_(math.pi * 2.0**-31)
    p.copy_(angle).cos_().mul_(radius)
    angle.sin_().mul_(radius)
    return z


def pieces(words: Tensor, half: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows of ``words`` and columns of ``half`` to expand at a time.

    On the CPU so few that they stay in its cache, since a word passes through many operations.
    """
    count, each = words.shape
    small = words.is_cpu and not torch.compiler.is_compiling()
    most = max(1, (_IN_CACHE * torch.get_num_threads() if small else _AT_ONCE) // each)
    rows, parts = max(1, most // max(1, half)), max(1, -(-half // most))
    wide = max(2, 2 * -(-half // (2 * parts)))
    for i in range(0, count, rows):
        for j in range(0, half, wide):
            yield slice(i, min(i + rows, count)), slice(j, min(j + wide, half))


def number_type(like: Tensor) -> torch.dtype:
    """Return float64 for numbers like float64 ones, on a device that has it, or float32."""
    return widest(like.device) if like.dtype is torch.float64 else torch.float32
