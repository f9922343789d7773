"""How a network is told the noise level and the class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LOWEST, _HIGHEST = 0.5, 32.0  # radians per unit of label
_SLOWEST = 1e-4  # of sinusoids, in radians per unit of label
_WIDEST = 2**16


def told(
    h: Tensor, of_class: nn.Embedding | None, y: Tensor | None, classless: bool = True
) -> Tensor:
    """Return ``h`` ``(B, width)`` with the row of each class ``y`` added, the first for none, -1.

    Raises:
        ValueError: a class that the table does not have, or any class if there is no table; none
            where nothing was learned without.
    """
    if of_class is None:
        if y is not None:
            raise ValueError("this network was trained without classes: leave out y.")
        return h
    classes = of_class.num_embeddings - 1
    y = torch.full(h.shape[:1], -1, device=h.device) if y is None else y
    if bool(((y < (-1 if classless else 0)) | (y >= classes)).any()):
        none = (
            ", and -1 for none"
            if classless
            else "; without a class it has learned nothing, so name one"
        )
        raise ValueError(
            f"y runs over [{int(y.min())}, {int(y.max())}]: this network knows the classes 0 "
            f"to {classes - 1}{none}."
        )
    row: Tensor = of_class((y + 1).expand(h.shape[:1]))
    return h + row


class Sinusoids(nn.Module):
    """Sines and cosines of a label whose frequencies fall geometrically from 1 to 1/10,000.

    Args:
        width: of the result, an even number.
        last: whether the lowest frequency is reached, or would be the next.

    Reference: Vaswani et al. (2017), arXiv:1706.03762.
    """

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        count = width // 2
        if width % 2 or not 2 <= width <= _WIDEST:
            raise ValueError(f"sinusoids of width {width}: give an even number up to {_WIDEST:,}.")
        powers = [_SLOWEST ** (k / max(1, count - last)) for k in range(count)]
        self.frequencies = nn.Buffer(torch.tensor(powers), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)``."""
        angles = label[:, None] * self.frequencies.to(label)
        return torch.cat([angles.sin(), angles.cos()], 1)


class Fourier(nn.Module):
    """Sines and cosines of a label at frequencies drawn once from a normal distribution.

    Their phases start at zero, and are there for networks whose label had another zero.

    Args:
        width: of the result, an even number.
        spread: of the frequencies, in turns per unit of label.

    Reference: Tancik et al. (2020), arXiv:2006.10739.
    """

    def __init__(self, width: int, spread: float = 16.0) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(torch.empty(width // 2))
        self.phases = nn.Buffer(torch.zeros(width // 2))
        nn.init.normal_(self.frequencies, std=spread)

    def forward(self, label: Tensor) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)``."""
        turns = label[:, None] * self.frequencies.to(label) + self.phases.to(label)
        angles = 2 * math.pi * turns
        return torch.cat([angles.sin(), angles.cos()], 1)


class Embedding(nn.Module):
    """Embeds a noise label and an optional class in one vector.

    Args:
        width: of the result.
        classes: how many classes there are; 0 for an unconditional network.
    """

    def __init__(self, width: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        # on the CPU first: for these two functions on "meta", torch loads half a compiler
        steps = torch.linspace(math.log(_LOWEST), math.log(_HIGHEST), 16, device="cpu")
        frequencies = torch.exp(steps).to(torch.get_default_device())
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mix = nn.Sequential(
            nn.Linear(2 * len(frequencies), width), nn.SiLU(), nn.Linear(width, width)
        )
        self.of_class = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, label: Tensor, y: Tensor | None = None) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)`` and classes ``(B,)``, -1 for no class.

        Raises:
            ValueError: a class outside ``[-1, classes)``, or any class for an unconditional
                network.
        """
        angles = label[:, None] * self.frequencies.to(label)  # type: ignore[operator]
        result: Tensor = self.mix(torch.cat([angles.cos(), angles.sin()], 1))
        return nn.functional.silu(told(result, self.of_class, y))
