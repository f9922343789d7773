"""The tables of ``alpha_bar`` of released networks.

Reference: Ho et al. (2020), arXiv:2006.11239 (linear); Rombach et al. (2022), arXiv:2112.10752
(scaled linear); Nichol and Dhariwal (2021), arXiv:2102.09672 (cosine); Xu et al. (2022),
arXiv:2203.02923 (sigmoid); Lin et al. (2024), arXiv:2305.08891 (no signal at the end).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def linear(count: int) -> Tensor:
    """Return ``alpha_bar`` ``(count,)`` for ``beta`` from 1e-4 to 0.02, at 1000 entries."""
    scale = 1000 / count
    beta = torch.linspace(1e-4 * scale, 0.02 * scale, count, dtype=torch.float64)
    return (1 - beta.clamp(max=0.999)).cumprod(0)


def scaled_linear(count: int) -> Tensor:
    """Return the table whose ``sqrt(beta)`` grows from ``sqrt(0.00085)`` to ``sqrt(0.012)``."""
    root = torch.linspace(0.00085**0.5, 0.012**0.5, count, dtype=torch.float64)
    return (1 - (root**2 * 1000 / count).clamp(max=0.999)).cumprod(0)


def cosine(count: int) -> Tensor:
    """Return ``cos^2`` of a linearly growing angle, with ``beta`` at most 0.999."""
    angle = (torch.linspace(0, 1, count + 1, dtype=torch.float64) + 0.008) / 1.008
    bar = (angle * math.pi / 2).cos() ** 2
    return (bar[1:] / bar[:-1]).clamp(min=0.001).cumprod(0)


def sigmoid(count: int) -> Tensor:
    """Return the table whose ``beta`` follows a sigmoid from 1e-4 to 0.02, at 1000 entries."""
    rise = torch.linspace(-6, 6, count, dtype=torch.float64).sigmoid()
    beta = (1e-4 + rise * (0.02 - 1e-4)) * 1000 / count
    return (1 - beta.clamp(max=0.999)).cumprod(0)


TABLES: dict[str, Callable[[int], Tensor]] = {
    "linear": linear,
    "scaled-linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
}


def without_signal(alpha_bar: Tensor) -> Tensor:
    """Return a table rescaled so that ``alpha`` is 0 at its end and unchanged at its start."""
    alpha = alpha_bar.sqrt()
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
