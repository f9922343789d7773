"""DDPM++ and NCSN++, the networks of Song et al. (2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from scorefield.networks.embedding import Fourier, Sinusoids, told
from scorefield.networks.residual import Style
from scorefield.networks.trunk import Decoder, Encoder, Layout, Trunk


class _Embedding(nn.Module):
    """The class joins the noise level before the perceptron."""

    def __init__(
        self, noise: Sinusoids | Fourier, inputs: int, width: int, classless: bool, classes: int
    ) -> None:
        super().__init__()
        self.noise, self.classless = noise, classless
        self.of_class = nn.Embedding(classes + 1, inputs) if classes else None
        self.mix = nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, label: Tensor, y: Tensor | None = None) -> Tensor:
        out: Tensor = self.mix(told(self.noise(label), self.of_class, y, self.classless))
        return out


class SongUNet(nn.Module):
    """The U-Net of DDPM++ (as it stands) and of NCSN++, for images that halve between levels.

    Args:
        channels: of the image.
        width: channels at the start, a multiple of 4.
        multipliers: channels of each level, in multiples of ``width``; one level or more.
        blocks: residual blocks per level, on the way down; on the way up there is one more.
        attention: the levels with self-attention, 0 for the finest.
        embedding: of the label: ``positional`` for one that counts up to some thousand, ``fourier``
            for one of the size of a logarithm.
        widening: width of that embedding, in multiples of ``width``.
        encoder, decoder: the paths beside, as in `Layout`.
        taps: of the filter that images are halved and doubled through.
        rescaled: divide sums of two branches by the root of 2.
        classless: with classes, whether something is learned without one too.
        classes: 0, or the number of classes of ``y``.

    Raises:
        ValueError: a width that is no multiple of 4, or attention at a level that is not there.

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
        classless: bool = True,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"width = {width}: it must be a multiple of 4.")
        wide, inputs = 4 * width, widening * width
        noise = Sinusoids(inputs, last=True) if embedding == "positional" else Fourier(inputs)
        self.embedding = _Embedding(noise, inputs, wide, classless, classes)
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

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        """Return ``(B, C, H, W)`` from ``x`` of that shape, labels and classes ``(B,)``.

        Raises:
            ValueError: sides that do not halve between the levels; a class that is not known.
        """
        out: Tensor = self.trunk(x, self.embedding(label, y))
        return out
