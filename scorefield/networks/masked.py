"""Signals of several lengths for a network of one length."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Masked(nn.Module):
    """A network that takes signals of any length up to its own.

    The places after the end of a signal are zeros for the network. A further channel is 1 before
    the end and 0 after it.

    Args:
        network: of one channel more than the signals.
        channels: of the signals.
        places: the length that the network takes.
    """

    def __init__(self, network: nn.Module, channels: int, places: int) -> None:
        super().__init__()
        self.network, self.channels, self.places = network, channels, places

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return ``(B, C, L)`` from such ``x``, with NaN after the end of each signal or shorter.

        The result is arbitrary after the end.
        """
        count = x.shape[2]
        x = nn.functional.pad(x, (0, self.places - count), value=math.nan)
        here = ~x[:, :1].isnan()
        inputs = torch.cat([x.where(here, 0.0), here.to(x)], 1)
        out: Tensor = self.network(inputs, label, **condition)
        return out[:, : self.channels, :count]
