"""A network for points of a space."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.spaces.base import Space


class SpaceNetwork(nn.Module):
    """A network that is given smooth coordinates of points and returns tangent vectors.

    As the network of a `scorefield.Denoiser` with `Brownian`, `scorefield.Eps` and `noise_label` it
    estimates the noise. `scorefield.train` with ``space`` builds one.

    Args:
        network: called as ``network(c, label, **condition)`` with coordinates ``(B, n)``, see
            `count`; the first numbers of its output ``(B, n)`` are a vector in the space around.
        space: the space; Euclidean parts have unit variance.
    """

    def __init__(self, network: nn.Module, space: Space) -> None:
        super().__init__()
        self.network, self.space = network, space

    @staticmethod
    def count(space: Space) -> int:
        """Return the number ``n`` of coordinates of a point."""
        return space.coordinates(torch.zeros(1, *space.shape), torch.ones(1, 1)).shape[1]

    def forward(self, x: Tensor, label: Tensor, **condition: Any) -> Tensor:
        """Return the noise, like ``x`` ``(B, *space.shape)``, at labels ``(B,)``."""
        sigma = (4 * label).exp()[:, None]
        output = self.network(self.space.coordinates(x, sigma), label, **condition)
        vector = output[:, : math.prod(self.space.shape)].reshape(x.shape)
        return self.space.noise(x, sigma, vector)
