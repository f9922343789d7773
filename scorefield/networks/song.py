"""DDPM++ and NCSN++, the networks of Song et al. (2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from scorefield.networks.conditions import NONE, Conditions
from scorefield.networks.embedding import Embedding, Fourier, Sinusoids
from scorefield.networks.residual import Style
from scorefield.networks.trunk import Decoder, Encoder, Layout, Trunk


class SongUNet(nn.Module):
    """The U-Net of DDPM++ (the defaults) and NCSN++, for images whose sides halve between scales.

    Args:
        channels: of the image.
        width: channels at the start, a multiple of 4.
        multipliers: channels of each scale, in multiples of ``width``; at least one scale.
        blocks: residual blocks per scale on the way down; on the way up there is one more.
        attention: the scales with self-attention, 0 for the finest.
        embedding: of the label: ``positional`` for step numbers up to some thousands, ``fourier``
            for a logarithm.
        widening: width of that embedding, in multiples of ``width``.
        encoder, decoder: the side paths, as in `Layout`.
        taps: of the filter for halving and doubling images.
        rescaled: divide sums of two branches by the root of 2.
        conditions: the conditions by their names.

    Raises:
        ValueError: a width that is not a multiple of 4, or attention at a missing scale.

    Reference: Song et al. (2021), arXiv:2011.13456, section 4.1 and appendix H.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        embedding: Literal["positional", "fourier"] = "positional",
        widening: int = 1,
        encoder: Encoder = "standard",
        decoder: Decoder = "standard",
        taps: Sequence[float] = (1, 1),
        rescaled: bool = True,
        conditions: Conditions = NONE,
    ) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"width={width}: must be a multiple of 4.")
        wide, inputs = 4 * width, widening * width
        noise = Sinusoids(inputs, last=True) if embedding == "positional" else Fourier(inputs)
        self.embedding = Embedding(wide, conditions, noise, early=True)
        style = Style(scaled=False, rescaled=rescaled, projected=True, eps=1e-6, taps=taps)
        layout = Layout(
            channels=channels,
            outputs=channels,
            first=width,
            sizes=[width * m for m in multipliers],
            blocks=blocks,
            attention=attention,
            everywhere=False,
            encoder=encoder,
            decoder=decoder,
            width=wide,
            style=style,
        )
        self.trunk = Trunk(layout)

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, C, H, W)`` from such ``x``, labels ``(B,)`` and conditions by name.

        Raises:
            ValueError: sides that cannot be halved; an unknown class or condition.
        """
        out: Tensor = self.trunk(x, self.embedding(label, **condition))
        return out
