"""ADM, the network of Dhariwal and Nichol (2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from scorefield.networks.conditions import NONE, Conditions
from scorefield.networks.embedding import Embedding, Sinusoids
from scorefield.networks.residual import Style
from scorefield.networks.trunk import Layout, Trunk


class ADM(nn.Module):
    """The U-Net of ADM, for images whose sides are halved between scales.

    Args:
        channels: of the image.
        width: the unit of ``multipliers``, a multiple of 4.
        multipliers: channels of each scale, in multiples of ``width``; at least one scale.
        blocks: residual blocks per scale on the way down; on the way up there is one more.
        attention: the scales with self-attention, 0 for the finest.
        head: channels per attention head.
        fixed_heads: the number of heads at every scale instead, if not 0.
        variances: the network has a second output for each channel, a variance, which is computed
            but not returned.
        conditions: the conditions by their names.

    Raises:
        ValueError: channels that do not divide into heads, or attention at a missing scale.

    Reference: Dhariwal and Nichol (2021), arXiv:2105.05233, section 3.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        head: int = 64,
        fixed_heads: int = 0,
        variances: bool = False,
        conditions: Conditions = NONE,
    ) -> None:
        super().__init__()
        sizes = [width * m for m in multipliers]
        attending = [sizes[scale] for scale in (*attention, -1) if scale < len(sizes)]
        if width % 4 or any(size % (fixed_heads or head) for size in attending):
            raise ValueError(
                f"width={width}, head={head}, fixed_heads={fixed_heads}: width must be a multiple "
                f"of 4, and the channels of the scales with attention, {attending}, multiples of "
                "head, or of fixed_heads if it is not 0."
            )
        self.channels = channels
        noise = Sinusoids(width, last=False)
        self.embedding = Embedding(4 * width, conditions, noise)
        layout = Layout(
            channels=channels,
            outputs=channels * (1 + variances),
            first=sizes[0],
            sizes=sizes,
            blocks=blocks,
            attention=attention,
            everywhere=True,
            encoder="standard",
            decoder="standard",
            width=4 * width,
            style=Style(
                scaled=True, rescaled=False, projected=False, eps=1e-5, head=head, heads=fixed_heads
            ),
        )
        self.trunk = Trunk(layout)

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, C, H, W)`` from such ``x``, labels ``(B,)`` and conditions by name.

        Raises:
            ValueError: sides that cannot be halved; an unknown class or condition.
        """
        out: Tensor = self.trunk(x, self.embedding(label, **condition))
        return out[:, : self.channels]
