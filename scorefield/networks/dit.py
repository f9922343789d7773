"""DiT, the transformer of Peebles and Xie (2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scorefield.networks.conditions import NONE, Conditions
from scorefield.networks.convolution import convolution, cropped, padded
from scorefield.networks.cross_attention import Context, CrossAttention, Sets
from scorefield.networks.embedding import Embedding, Sinusoids

_FEATURES = 256  # of the label
_SLOWEST = 1e-4  # of positions, in radians per patch


class _Block(nn.Module):
    """Attention between the patches, then a perceptron; both are modulated by the embedding.

    Between them, the patches attend to a context where there is one.
    """

    def __init__(self, width: int, heads: int, crosses: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = _zeros(nn.Linear(width, 6 * width))
        self.cross = CrossAttention(width, width, heads) if crosses else None

    def forward(self, h: Tensor, embedding: Tensor, context: Context | None) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(embedding)[
            :, None
        ].chunk(6, -1)
        q, k, v = (
            self.enter(self.norm(h) * (1 + scale_1) + shift_1)
            .reshape(*h.shape[:2], 3, self.heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        h = h + gate_1 * self.leave(mixed.transpose(1, 2).reshape(h.shape))
        if self.cross is not None and context is not None:
            h = h + self.cross(h, context)
        out: Tensor = h + gate_2 * self.mlp(self.norm(h) * (1 + scale_2) + shift_2)
        return out


class DiT(nn.Module):
    """A transformer between patches of a signal, an image or a volume of any size.

    Sides that are not multiples of a patch are padded, and the result is cropped.

    Args:
        channels: of a sample.
        width: of the features of a patch, a multiple of ``2 dims`` and of ``head``.
        layers: blocks of attention and perceptron.
        head: channels per attention head.
        patch: side of a patch: places of a signal, pixels of an image.
        variances: the network has a second output for each channel, a variance, which is computed
            but not returned.
        conditions: the conditions by their names.
        dims: the number of spatial axes: 1 for signals, 2 for images, 3 for volumes.
        cross_attention: in each block the patches attend to the vectors of conditions that are
            sets, besides the embedding of each set.

    Raises:
        ValueError: a width that does not divide; another number of axes; cross-attention without a
            set.

    Reference: Peebles and Xie (2023), arXiv:2212.09748, with blocks of type adaLN-Zero; with
    cross-attention as in Chen et al. (2024), arXiv:2310.00426.
    """

    def __init__(
        self,
        channels: int,
        width: int = 192,
        layers: int = 6,
        head: int = 64,
        patch: int = 2,
        variances: bool = False,
        conditions: Conditions = NONE,
        dims: int = 2,
        cross_attention: bool = False,
    ) -> None:
        super().__init__()
        conv = convolution(dims)
        if width % (2 * dims) or width % head:
            raise ValueError(f"width={width}: must be a multiple of {2 * dims} and of head={head}.")
        self.channels, self.patch = channels, patch
        outputs = channels * (1 + variances)
        self.enter = conv(channels, width, patch, patch)
        self.embedding = Embedding(width, conditions, Sinusoids(_FEATURES, last=False))
        self.sets = Sets(conditions, width) if cross_attention else None
        self.blocks = nn.ModuleList(
            _Block(width, width // head, cross_attention) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = _zeros(nn.Linear(width, 2 * width))
        self.leave = _zeros(nn.Linear(width, patch**dims * outputs))

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, C, *sides)`` from such ``x``, labels ``(B,)`` and conditions by name.

        Raises:
            ValueError: an unknown class or condition.
        """
        embedding = self.embedding(label, **condition)
        h = self.enter(padded(x, self.patch))
        count, width, *grid = h.shape
        h = h.flatten(2).mT + positions(width, grid, h)
        context = None if self.sets is None else self.sets(condition, h)
        for block in self.blocks:
            h = block(h, embedding, context)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, -1)
        h = self.leave(self.norm(h) * (1 + scale) + shift)
        dims = len(grid)
        h = h.reshape(count, *grid, *[self.patch] * dims, -1)
        each = [axis for k in range(1, dims + 1) for axis in (k, k + dims)]  # patch, place in it
        h = h.permute(0, -1, *each).reshape(count, -1, *(side * self.patch for side in grid))
        return cropped(h[:, : self.channels], x.shape[2:])


def positions(width: int, grid: Sequence[int], like: Tensor) -> Tensor:
    """Return sines and cosines of the place on each axis, the last first, patch by patch.

    Args:
        width: of the result ``(patches, width)``.
        grid: the number of patches along each axis.
        like: a tensor of the device and of the type, or of a narrower one than float32.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    sides = [torch.arange(count, device=like.device, dtype=dtype) for count in grid]
    count = width // (2 * len(grid))
    powers = torch.arange(count, device=like.device, dtype=dtype) / count
    frequencies = torch.exp(math.log(_SLOWEST) * powers)
    places = reversed(torch.meshgrid(*sides, indexing="ij"))
    angles = [place.reshape(-1, 1) * frequencies for place in places]
    return torch.cat([part for each in angles for part in (each.sin(), each.cos())], 1).to(like)


def _zeros(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
