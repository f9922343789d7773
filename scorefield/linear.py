r"""Moments of a linear SDE with scalar, diagonal or full-matrix coefficients.

For ``dx = F(t) x dt + G(t) dw`` started at a point ``x_0``, ``x_t`` is Gaussian with mean
``Phi(t) x_0`` and covariance ``C(t)``, where::

    dPhi/dt = F Phi,                Phi(0) = I                                      (1)
    dC/dt = F C + C F^T + G G^T,    C(0) = 0                                        (2)

A `Process` needs one clock for all coordinates, so its drift and diffusion are scalars. This module
is for designing and checking the others: per-coordinate noise, correlated noise, rotations.

Reference: Särkkä and Solin (2019), Applied Stochastic Differential Equations, section 6.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MatrixCoefficient = Callable[[Tensor], Tensor]


def moments(
    drift: MatrixCoefficient, diffusion: MatrixCoefficient, t: float, *, dim: int, steps: int = 512
) -> tuple[Tensor, Tensor]:
    """Return ``Phi(t)`` and ``C(t)``, both ``(dim, dim)`` in float64.

    ``drift`` and ``diffusion`` map a 0-dimensional time to a scalar ``()``, a diagonal ``(dim,)``
    or a matrix ``(dim, dim)``; ``diffusion`` may also be ``(dim, m)`` for ``m`` Brownian motions.
    Equations (1) and (2) are solved by the classical Runge-Kutta method in ``steps`` steps, with
    error of order ``steps^-4``.

    Raises:
        ValueError: a coefficient has another shape, or ``steps < 1``.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: give at least one.")

    def rate(time: Tensor, phi: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
        f = _matrix(drift(time), dim, "drift")
        g = _matrix(diffusion(time), dim, "diffusion")
        return f @ phi, f @ cov + cov @ f.T + g @ g.T

    phi, cov = torch.eye(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    h = t / steps
    for i in range(steps):
        time = torch.tensor(i * h, dtype=torch.float64)
        p1, c1 = rate(time, phi, cov)
        p2, c2 = rate(time + h / 2, phi + h / 2 * p1, cov + h / 2 * c1)
        p3, c3 = rate(time + h / 2, phi + h / 2 * p2, cov + h / 2 * c2)
        p4, c4 = rate(time + h, phi + h * p3, cov + h * c3)
        phi = phi + h / 6 * (p1 + 2 * p2 + 2 * p3 + p4)
        cov = cov + h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
    return phi, cov


def _matrix(value: Tensor, dim: int, name: str) -> Tensor:
    """Return a scalar, diagonal or matrix coefficient as a matrix."""
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim == 0:
        return value * torch.eye(dim, dtype=torch.float64)
    if value.shape == (dim,):
        return torch.diag(value)
    if value.ndim == 2 and value.shape[0] == dim and (name == "diffusion" or value.shape[1] == dim):
        return value
    raise ValueError(
        f"{name} has shape {tuple(value.shape)} in dimension {dim}: "
        f"give a scalar (), a diagonal ({dim},) or a matrix ({dim}, {dim})."
    )
