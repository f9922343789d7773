"""Attention from the places of a sample to the vectors of its conditions.

A place with features ``h`` and the vectors ``c_1, ..., c_n`` of all sets, with a key ``k_0`` and a
value ``v_0`` that are learned, so that there is always one::

    h + W sum_j softmax_j(q(h) . k_j / sqrt(d)) v_j,   k_j = k(c_j),   v_j = v(c_j)      (1)

``d`` are the channels of a head. A set has no order: where the order matters, as in a sentence,
append the place of each vector to its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield.networks.conditions import Conditions, Vectors, checked_size, module_name


class Context(NamedTuple):
    """The vectors that places attend to.

    Attributes:
        vectors: ``(B, n, width)``, or ``(1, n, width)`` for all samples; ``n`` may be 0.
        present: whether each is one of the sample's, ``(B, n)``.
    """

    vectors: Tensor
    present: Tensor


class Sets(nn.Module):
    """The vectors of all conditions that are sets, as one set.

    Args:
        conditions: the conditions by their names, with a set among them.
        width: of the result.

    Raises:
        ValueError: no condition is a set.
    """

    def __init__(self, conditions: Conditions, width: int) -> None:
        super().__init__()
        self.sizes = {name: c.size for name, c in conditions.items() if isinstance(c, Vectors)}
        if not self.sizes:
            raise ValueError(
                "cross_attention=True: no condition is a set of vectors to attend to; leave it out."
            )
        self.width = width
        self.enter = nn.ModuleDict(
            {module_name(name): nn.Linear(size, width) for name, size in self.sizes.items()}
        )

    def forward(self, condition: Mapping[str, Tensor | None], like: Tensor) -> Context:
        """Return the vectors of conditions, ``(B, n, size)`` or ``(n, size)``, as one set.

        Raises:
            ValueError: vectors of another size.
        """
        vectors = [like.new_zeros(1, 0, self.width)]
        present = [torch.ones(1, 0, dtype=torch.bool, device=like.device)]
        for name, size in self.sizes.items():
            c = condition.get(name)
            if c is not None and c.shape[-2]:
                c = checked_size(c, size, name, like)
                c = c if c.ndim == 3 else c[None]
                present.append(~c.isnan().any(-1))
                vectors.append(self.enter[module_name(name)](c.nan_to_num()))
        count = max(map(len, vectors))
        return Context(
            torch.cat([v.expand(count, -1, -1) for v in vectors], 1),
            torch.cat([p.expand(count, -1) for p in present], 1),
        )


class CrossAttention(nn.Module):
    """The residual of (1) for the features of places.

    Args:
        channels: of the features.
        width: of the vectors.
        heads: the number of heads, a divisor of ``channels``.
    """

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.enter, self.leave = nn.Linear(width, 2 * channels), nn.Linear(channels, channels)
        self.none = nn.Parameter(torch.zeros(1, 1, 2 * channels))  # k_0 and v_0
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        """Return the residual to add to ``h`` ``(B, places, channels)``."""
        every = self.enter(context.vectors)
        every = torch.cat([self.none.to(every).expand(len(every), -1, -1), every], 1)
        present = nn.functional.pad(context.present, (1, 0), value=True)
        parts = (self.query(self.norm(h)), *every.chunk(2, -1))
        q, k, v = (self._split(part, len(h)) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=present[:, None, None]
        )
        out: Tensor = self.leave(mixed.transpose(1, 2).reshape(h.shape))
        return out

    def _split(self, x: Tensor, count: int) -> Tensor:
        """Return ``(count, heads, n, channels of a head)`` from ``(B, n, channels)``."""
        x = x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
        return x.expand(count, -1, -1, -1)
