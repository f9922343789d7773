"""How a network is told the noise level and the class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LOWEST, _HIGHEST = 0.5, 32.0  # radians per unit of label


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
        if self.of_class is None:
            if y is not None:
                raise ValueError("this network was trained without classes: leave out y.")
            return nn.functional.silu(result)
        y = torch.full(label.shape, -1, device=label.device) if y is None else y
        if bool(((y < -1) | (y >= self.classes)).any()):
            raise ValueError(
                f"y runs over [{int(y.min())}, {int(y.max())}]: this network knows the classes 0 "
                f"to {self.classes - 1}, and -1 for none."
            )
        return nn.functional.silu(result + self.of_class((y + 1).expand(label.shape)))
