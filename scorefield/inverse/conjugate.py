r"""Conjugate gradients, for each sample of a batch by itself.

Reference: Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear systems.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def solve(
    apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """Return ``u`` with ``apply(u) = b``, like ``b`` ``(B, ...)``.

    ``apply`` is linear, symmetric and positive semi-definite for each sample. One that has come
    within the tolerance stays as it is, and so does one that meets a direction in which ``apply``
    is 0 beside what it was in others, by rounding, or negative, as an inexact ``apply`` may be: so
    singular systems are solved as far as they can be.

    Args:
        iterations: at most; that many products of ``apply``.
        tolerance: of the residual's norm beside that of ``b``.
    """
    u, r, p = torch.zeros_like(b), b, b
    size = _dot(r, r)
    goal, steepest = tolerance**2 * size, torch.zeros_like(size)
    flat = 8 * torch.finfo(b.dtype).eps
    for _ in range(iterations):
        if not bool((size > goal).any()):
            break
        q = apply(p)
        curvature, length = _dot(p, q), _dot(p, p)
        steepest = torch.maximum(steepest, curvature / length.clamp(min=_tiny(b)))
        going = (size > goal) & (curvature > flat * steepest * length)
        step = torch.where(going, size, 0.0) / torch.where(going, curvature, 1.0)
        u, r = u + step * p, r - step * q
        left = torch.where(going, _dot(r, r), 0.0)
        p = r + left / torch.where(going, size, 1.0) * p
        size = left
    return u


def norm(x: Tensor) -> Tensor:
    """Return the norm of each sample of ``x`` ``(B, ...)``, above 0, to broadcast with it."""
    return _dot(x, x).clamp(min=_tiny(x)).sqrt()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    products: Tensor = (x * y).flatten(1).sum(1)
    return products.reshape(-1, *[1] * (x.ndim - 1))


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
