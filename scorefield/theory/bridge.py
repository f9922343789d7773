r"""The distribution of a process between two of its points.

For ``s < t``, with ``r = (alpha_t / sigma_t)^2 / (alpha_s / sigma_s)^2 < 1``::

    q(x_s | x_t, x_0) = N(mean, sigma_s^2 (1 - r) I)
    mean = alpha_s (1 - r) x_0 + (alpha_s / alpha_t) r x_t                          (1)

With Brownian motion it is the Brownian bridge; with DDPM's table it is the posterior of its reverse
step.

Reference: Ho et al. (2020), arXiv:2006.11239, equation 7; Kingma et al. (2021), arXiv:2107.00630,
appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.process import Process


def bridge(process: Process, x0: Tensor, x_t: Tensor, s: float, t: float) -> tuple[Tensor, Tensor]:
    """Return the mean of ``q(x_s | x_t, x_0)``, shaped as ``x_t``, and its deviation ``()``.

    Raises:
        ValueError: the times are not ``t_min <= s < t <= t_max``, or the shapes differ.
    """
    if not process.t_min <= s < t <= process.t_max:
        raise ValueError(
            f"s={s:g}, t={t:g}: must be t_min <= s < t <= t_max, here from {process.t_min:g} to "
            f"{process.t_max:g}."
        )
    if x0.shape != x_t.shape:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)} and x_t {tuple(x_t.shape)}: give one shape."
        )
    alpha, sigma = process.coefficients(torch.tensor([s, t], dtype=torch.float64))
    (alpha_s, alpha_t), (sigma_s, sigma_t) = alpha, sigma
    ratio = (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2
    mean = alpha_s * (1 - ratio) * x0 + alpha_t / alpha_s * (sigma_s / sigma_t) ** 2 * x_t
    return mean, sigma_s * (1 - ratio).sqrt()
