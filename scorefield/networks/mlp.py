"""A residual multilayer perceptron for vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield.networks.conditions import NONE, Conditions, columns, count_columns
from scorefield.networks.embedding import Embedding
from scorefield.networks.recompute import through


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, -1)
        inner = self.norm(h) * (1 + scale) + shift
        out: Tensor = h + self.down(nn.functional.silu(self.up(inner)))
        return out


class MLP(nn.Module):
    """Residual blocks modulated by the noise label, for samples of any shape, as vectors.

    Args:
        dim: coordinates of one sample.
        width: of the hidden layers.
        depth: residual blocks.
        conditions: the conditions by their names; numbers also join the coordinates.
        recompute: recompute the blocks in the backward pass, to save memory.
    """

    def __init__(
        self,
        dim: int,
        width: int = 256,
        depth: int = 4,
        conditions: Conditions = NONE,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute, self.conditions = recompute, dict(conditions)
        self.embedding = Embedding(width, conditions)
        self.enter = nn.Linear(dim + count_columns(conditions), width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dim)
        # a linear path for data of small variance, whose scale the normalised path would lose
        self.linear = nn.Linear(width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, ...)`` from ``x`` ``(B, ...)``, labels ``(B,)``, and conditions by name."""
        embedding = self.embedding(label, **condition)
        flat = x.flatten(1)
        h = self.enter(torch.cat([flat, *columns(self.conditions, condition, flat)], 1))
        for block in self.blocks:
            h = through(block, h, embedding, recompute=self.recompute)
        out: Tensor = self.leave(self.norm(h)) + self.linear(embedding) * flat
        return out.reshape(x.shape)
