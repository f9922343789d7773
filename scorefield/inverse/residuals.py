r"""Conjugate residuals, for each sample of a batch by itself.

They are conjugate gradients that minimise the norm of the residual, and keep what was found to be
orthogonal for systems that are not quite symmetric: as are those of a network, whose Jacobian is
neither symmetric nor positive where a true field's is. The residual never grows, so the solution
stays bounded where conjugate gradients divide by a curvature near 0 or below.

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
    """Return ``u`` with ``apply(u) = b``, like ``b`` ``(B, ...)``, or as near as can be.

    A sample that has come within the tolerance, or meets a direction that ``apply`` takes to 0 but
    for rounding, stays as it is: what becomes of one does not hang on the others.

    Args:
        apply: linear, for each sample by itself.
        iterations: at most; that many products of ``apply``.
        tolerance: of the residual's norm beside that of ``b``.
    """
    u, r = torch.zeros_like(b), b
    size = dot(b, b)
    goal, largest = tolerance**2 * size, torch.zeros_like(size)
    flat = (8 * torch.finfo(b.dtype).eps) ** 2
    before: list[tuple[Tensor, Tensor, Tensor]] = []
    going = size > goal
    for _ in range(iterations):
        if not bool(going.any()):
            break
        p, q = r, apply(r)
        for other, taken, length in before:
            share = dot(q, taken) / length
            p, q = p - share * other, q - share * taken
        length = dot(q, q)
        ratio = length / dot(p, p).clamp(min=_tiny(b))
        largest = torch.maximum(largest, ratio)
        going = going & (ratio > flat * largest)
        length = torch.where(going, length, 1.0)
        step = torch.where(going, dot(r, q) / length, 0.0)
        u, r = u + step * p, r - step * q
        going = going & (dot(r, r) > goal)
        # one that has stopped gives no direction, whose length would grow from round to round
        p, q = (torch.where(going, v, 0.0) for v in (p, q))
        before.append((p, q, length))
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
