"""Embeddings of the noise label and the class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LOWEST, _HIGHEST = 0.5, 32.0  # radians per unit of label
_SLOWEST = 1e-4  # of sinusoids, in radians per unit of label
_WIDEST = 2**16


def unknown_class(y: Tensor, classes: int, classless: bool) -> ValueError:
    """Return the error for classes outside ``[0, classes)``, or -1 where that is allowed."""
    none = ", or -1 for none" if classless else "; it cannot go without a class"
    return ValueError(
        f"y from {int(y.min())} to {int(y.max())}: this network has the classes 0 to "
        f"{classes - 1}{none}."
    )


class Sinusoids(nn.Module):
    """Sines and cosines of a label whose frequencies fall geometrically from 1 to 1/10,000.

    Args:
        width: of the result, an even number.
        last: whether the last frequency is 1/10,000, or would be the one after it.

    Reference: Vaswani et al. (2017), arXiv:1706.03762.
    """

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.width, count = width, width // 2
        if width % 2 or not 2 <= width <= _WIDEST:
            raise ValueError(f"width={width}: must be an even number up to {_WIDEST:,}.")
        powers = [_SLOWEST ** (k / max(1, count - last)) for k in range(count)]
        self.frequencies = nn.Buffer(torch.tensor(powers), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)``."""
        angles = label[:, None] * self.frequencies.to(label)
        return torch.cat([angles.sin(), angles.cos()], 1)


class Fourier(nn.Module):
    """Sines and cosines of a label at frequencies drawn once from a normal distribution.

    The phases are 0, except in imported networks whose label had another origin.

    Args:
        width: of the result, an even number.
        spread: of the frequencies, in turns per unit of label.

    Reference: Tancik et al. (2020), arXiv:2006.10739.
    """

    def __init__(self, width: int, spread: float = 16.0) -> None:
        super().__init__()
        self.width = width
        self.frequencies = nn.Buffer(torch.empty(width // 2))
        self.phases = nn.Buffer(torch.zeros(width // 2))
        nn.init.normal_(self.frequencies, std=spread)

    def forward(self, label: Tensor) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)``."""
        turns = label[:, None] * self.frequencies.to(label) + self.phases.to(label)
        angles = 2 * math.pi * turns
        return torch.cat([angles.sin(), angles.cos()], 1)


class Octaves(nn.Module):
    """Cosines and sines of a label of the size of a logarithm, over six octaves."""

    width = 32

    def __init__(self) -> None:
        super().__init__()
        # on the CPU first: on "meta", torch would load half a compiler for these two functions
        ends = math.log(_LOWEST), math.log(_HIGHEST)
        steps = torch.linspace(*ends, self.width // 2, device="cpu")
        frequencies = torch.exp(steps).to(torch.get_default_device())
        self.frequencies = nn.Buffer(frequencies, persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        """Return ``(B, 32)`` from labels ``(B,)``."""
        angles = label[:, None] * self.frequencies.to(label)
        return torch.cat([angles.cos(), angles.sin()], 1)


class Embedding(nn.Module):
    """Embeds a noise label and an optional class in one vector.

    Args:
        width: of the result.
        classes: the number of classes, or 0.
        classless: with classes, whether no class is accepted.
        noise: features ``(B, width)`` of the label, with an attribute ``width``.
        early: add the class before the perceptron instead of after it.
    """

    def __init__(
        self,
        width: int,
        classes: int = 0,
        classless: bool = True,
        noise: Octaves | Sinusoids | Fourier | None = None,
        early: bool = False,
    ) -> None:
        super().__init__()
        self.noise, self.classless, self.early = noise or Octaves(), classless, early
        inputs = self.noise.width
        self.mix = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))
        self.of_class = nn.Embedding(classes + 1, inputs if early else width) if classes else None

    def forward(self, label: Tensor, y: Tensor | None = None) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)`` and classes ``(B,)``, -1 for no class.

        Raises:
            ValueError: a class outside ``[-1, classes)``, or any class for an unconditional
                network.
        """
        h = self.noise(label)
        if self.early:
            return nn.functional.silu(self.mix(self._add_class(h, y)))
        return nn.functional.silu(self._add_class(self.mix(h), y))

    def _add_class(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Return ``h`` plus the row of each class ``y``; row 0 stands for no class, -1."""
        if self.of_class is None:
            if y is not None:
                raise ValueError("y: this network has no classes; leave it out.")
            return h
        classes = self.of_class.num_embeddings - 1
        y = torch.full(h.shape[:1], -1, device=h.device) if y is None else y
        if bool(((y < (-1 if self.classless else 0)) | (y >= classes)).any()):
            raise unknown_class(y, classes, self.classless)
        row: Tensor = self.of_class((y + 1).expand(h.shape[:1]))
        return h + row
