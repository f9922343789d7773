"""Self-attention over the places of signals, images and volumes."""

from __future__ import annotations

from torch import Tensor, nn

from scorefield.networks.convolution import convolution


class Attention(nn.Module):
    """Self-attention over the places.

    Args:
        channels: of the input.
        heads: the number of heads, a divisor of ``channels``.
        norm: applied to the channels first.
        dims: the number of spatial axes.
    """

    def __init__(self, channels: int, heads: int, norm: nn.Module, dims: int = 2) -> None:
        super().__init__()
        self.heads, self.norm = heads, norm
        self.enter = convolution(dims)(channels, 3 * channels, 1)
        self.leave = convolution(dims)(channels, channels, 1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual to add to ``x`` ``(B, C, *sides)``."""
        count, channels = x.shape[:2]
        q, k, v = (
            self.enter(self.norm(x))
            .reshape(count, 3, self.heads, channels // self.heads, -1)
            .mT.unbind(1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.leave(mixed.mT.reshape(x.shape))
        return out
