"""Self-attention over the pixels of an image."""

from __future__ import annotations

from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention over the pixels.

    Args:
        channels: of the image.
        heads: the number of heads, a divisor of ``channels``.
        norm: applied to the channels first.
    """

    def __init__(self, channels: int, heads: int, norm: nn.Module) -> None:
        super().__init__()
        self.heads, self.norm = heads, norm
        self.enter = nn.Conv2d(channels, 3 * channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual to add to ``x`` ``(B, C, H, W)``."""
        count, channels, height, width = x.shape
        q, k, v = (
            self.enter(self.norm(x))
            .reshape(count, 3, self.heads, channels // self.heads, height * width)
            .mT.unbind(1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.leave(mixed.mT.reshape(x.shape))
        return out
