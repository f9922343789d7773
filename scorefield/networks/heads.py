"""A network with two outputs for each of its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TwoHeads(nn.Module):
    """A network whose output has twice the channels of its input.

    Args:
        inner: a network of samples with twice the channels, which takes the input twice.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, label: Tensor, **condition: Any) -> Tensor:
        """Return both outputs ``(B, 2 C, ...)`` for ``x`` ``(B, C, ...)``."""
        result: Tensor = self.inner(torch.cat([x, x], 1), label, **condition)
        return result
