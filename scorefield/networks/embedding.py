"""Embeddings of the noise label and the conditions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scorefield.networks.conditions import NONE, Conditions, module_name

_LOWEST, _HIGHEST = 0.5, 32.0  # radians per unit of label
_SLOWEST = 1e-4  # of sinusoids, in radians per unit of label
_WIDEST = 2**16


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
    """Embeds a noise label and conditions in one vector.

    Args:
        width: of the result.
        conditions: the conditions by their names.
        noise: features ``(B, width)`` of the label, with an attribute ``width``.
        early: add the conditions before the perceptron instead of after it.
    """

    def __init__(
        self,
        width: int,
        conditions: Conditions = NONE,
        noise: Octaves | Sinusoids | Fourier | None = None,
        early: bool = False,
    ) -> None:
        super().__init__()
        self.noise, self.early = noise or Octaves(), early
        inputs = self.noise.width
        self.mix = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))
        self.conditions = nn.ModuleDict()
        self.names = {name: module_name(name) for name in conditions}
        for name, condition in conditions.items():
            self.conditions[self.names[name]] = condition.module(inputs if early else width)

    def forward(self, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, width)`` from labels ``(B,)`` and conditions by name; None is for none.

        Raises:
            ValueError: a condition that the network does not have, or of another kind.
        """
        for name, value in condition.items():
            if value is not None and name not in self.names:
                there = f"it takes {', '.join(self.names)}" if self.names else "it has none"
                raise ValueError(f"{name}: this network has no such condition; {there}.")
        h = self.noise(label)
        if not self.early:
            h = self.mix(h)
        for name, key in self.names.items():
            h = h + self.conditions[key](condition.get(name), len(label), name)
        return nn.functional.silu(self.mix(h) if self.early else h)
