r"""Conjugate residuals, for each sample of a batch independently.

They are conjugate gradients that minimise the norm of the residual. Directions are orthogonalised
against all earlier ones, for systems that are not symmetric: a network's Jacobian is neither
symmetric nor positive, although that of a true field is. The residual never grows, so the solution
stays bounded where conjugate gradients would divide by a curvature near 0 or below.

Reference: Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear systems;
Eisenstat, Elman and Schultz (1983), Variational iterative methods for nonsymmetric systems of
linear equations (GCR).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def solve(
    apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """Return the solution ``u`` of ``apply(u) = b``, like ``b`` ``(B, ...)``.

    A sample stops when it is within the tolerance, or when ``apply`` maps its direction to 0 up to
    rounding. It does not depend on the other samples.

    Args:
        apply: linear, for each sample independently.
        b: the right-hand side.
        iterations: the largest number of products ``apply``.
        tolerance: of the residual's norm, relative to that of ``b``.
    """
    u, r = torch.zeros_like(b), b
    size = dot(b, b)
    goal, largest = tolerance**2 * size, torch.zeros_like(size)
    flat = (8 * torch.finfo(b.dtype).eps) ** 2
    previous: list[tuple[Tensor, Tensor, Tensor]] = []
    active = size > goal
    for _ in range(iterations):
        if not bool(active.any()):
            break
        p, q = r, apply(r)
        for other, image, length in previous:
            share = dot(q, image) / length
            p, q = p - share * other, q - share * image
        length = dot(q, q)
        ratio = length / dot(p, p).clamp(min=_tiny(b))
        largest = torch.maximum(largest, ratio)
        active = active & (ratio > flat * largest)
        length = torch.where(active, length, 1.0)
        step = torch.where(active, dot(r, q) / length, 0.0)
        u, r = u + step * p, r - step * q
        active = active & (dot(r, r) > goal)
        # a stopped sample adds no direction: rounding would make its length grow in every iteration
        p, q = (torch.where(active, v, 0.0) for v in (p, q))
        previous.append((p, q, length))
    return u


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner product of each pair of samples ``(B, ...)``, to broadcast with them."""
    products: Tensor = (x * y).flatten(1).sum(1)
    return products.reshape(-1, *[1] * (x.ndim - 1))


def norm(x: Tensor) -> Tensor:
    """Return the norm of each sample of ``x`` ``(B, ...)``, above 0, to broadcast with it."""
    return dot(x, x).clamp(min=_tiny(x)).sqrt()


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
