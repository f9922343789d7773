"""Filters that halve or double the resolution of images.

With taps ``f`` of even length ``n``, normalised to a sum of 1 and with zeros around the image::

    halved  y[i] = sum_j f[j] x[2 i + j - (n - 2) / 2]                              (1)
    doubled y[i] = 2 sum_j f[i + (n - 2) / 2 - 2 j] x[j]                            (2)

along each axis. Two equal taps average two pixels, and repeat each pixel.

Reference: Zhang (2019), arXiv:1904.11486; Karras et al. (2020), arXiv:1912.04958.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Halve(nn.Module):
    """Half the resolution, by (1).

    Args:
        taps: of the filter.
        padded: pad the image with zeros, so that an even side is halved; otherwise only pixels
            within reach of all taps are returned.
    """

    def __init__(self, taps: Sequence[float], padded: bool = True) -> None:
        super().__init__()
        self.padding = (len(taps) - 1) // 2 if padded else 0
        self.filter = nn.Buffer(_square(taps, 1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H/2, W/2)`` from ``x`` ``(B, C, H, W)``."""
        weight = _of_each(self.filter, x)
        return nn.functional.conv2d(x, weight, stride=2, padding=self.padding, groups=x.shape[1])


class Double(nn.Module):
    """Twice the resolution, by (2).

    Args:
        taps: of the filter.
    """

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        self.padding = (len(taps) - 1) // 2
        self.filter = nn.Buffer(_square(taps, 2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, 2 H, 2 W)`` from ``x`` ``(B, C, H, W)``."""
        weight = _of_each(self.filter, x)
        return nn.functional.conv_transpose2d(
            x, weight, stride=2, padding=self.padding, groups=x.shape[1]
        )


def _square(taps: Sequence[float], gain: float) -> Tensor:
    """Return the filter of both axes, each with a sum of ``gain``."""
    if len(taps) % 2 or sum(taps) == 0:
        raise ValueError(
            f"taps={tuple(taps)}: must be an even number of values that do not sum to 0."
        )
    along = [gain * tap / sum(taps) for tap in taps]
    return torch.tensor([[a * b for b in along] for a in along])


def _of_each(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.to(x).expand(x.shape[1], 1, -1, -1)
