r"""Optimal assignments of one batch to another, and the entropic coupling.

Sinkhorn's iterations, with the weights ``p`` and ``q`` of both sides and ``v = sigma^2``::

    P_ij = exp((f_i + g_j - c_ij) / v)
    f_i = v log p_i - v log sum_j exp((g_j - c_ij) / v),    and g_j likewise

Reference: Cuturi (2013), arXiv:1306.0895.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError

LARGEST = 512  # rows of one assignment, which takes time like their cube
_COOLING, _WARM_UP = 4.0, 10  # factor between regularisations, and iterations with each
_BETWEEN = 50  # iterations between two in logarithms
_TOLERANCE, _ITERATIONS = 1e-2, 200  # of the coupling of a batch


def assignment(x: Tensor, z: Tensor, groups: Tensor) -> Tensor:
    """Return the order of ``z`` ``(B, ...)`` of least squared distance to ``x`` ``(B, ...)``.

    Rows are exchanged within equal ``groups`` ``(B,)``, of which large ones are divided into blocks
    of at most 512. The result is a permutation, int64 ``(B,)`` on the CPU.

    Raises:
        UsageError: SciPy is missing.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise UsageError(
            "coupling='ot': needs SciPy; install it with pip install 'scorefield[tune]'."
        ) from None
    flat, other = (v.flatten(1).double().nan_to_num(0.0).cpu() for v in (x, z))
    order = torch.arange(len(x))
    for rows in _blocks(groups.cpu()):
        # |x - z|^2 without its terms that are the same for every order
        gain = flat[rows] @ other[rows].T
        _, columns = linear_sum_assignment(gain.numpy(), maximize=True)
        order[rows] = rows[torch.from_numpy(columns)]
    return order


def entropic(x: Tensor, z: Tensor, groups: Tensor, sigma: float, u: Tensor) -> Tensor:
    """Return rows of ``z`` ``(B, ...)`` for ``x`` ``(B, ...)``, drawn by the entropic coupling.

    Each row of ``x`` has one of ``z``, of which some may be drawn twice and others not at all. The
    blocks are those of `assignment`.

    Args:
        sigma: ``sigma^2`` is the regularisation of the cost ``|x - z|^2 / 2``.
        u: uniform numbers ``(B,)`` on the CPU.
    """
    flat, other = (v.flatten(1).double().nan_to_num(0.0).cpu() for v in (x, z))
    order = torch.arange(len(x))
    for rows in _blocks(groups.cpu()):
        cost = torch.cdist(flat[rows], other[rows]).square() / 2
        weights = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        plan, _ = sinkhorn(cost, sigma, weights, weights, _TOLERANCE, _ITERATIONS)
        rising = plan.cumsum(1)
        columns = torch.searchsorted(rising / rising[:, -1:], u[rows, None])[:, 0]
        order[rows] = rows[columns.clamp(max=len(rows) - 1)]
    return order


def sinkhorn(
    cost: Tensor, sigma: float, p: Tensor, q: Tensor, tolerance: float, iterations: int
) -> tuple[Tensor, float]:
    """Return the coupling ``(N, M)`` of a cost in float64, and the error of its marginals.

    Stops at an error of ``tolerance``, a sum over the rows, or after ``iterations``.
    """
    g = torch.zeros_like(q)
    # first with more noise, where it converges fast; g is nearly the same
    stages = max(0, math.ceil(math.log(max(float(cost.max()), 1e-300) / sigma**2, _COOLING)))
    for k in range(stages, 0, -1):
        _, g, _ = _iterated(g, cost, sigma**2 * _COOLING**k, p, q, tolerance, _WARM_UP)
    error = math.inf
    while iterations > 0 and error > tolerance:
        plan, g, error = _iterated(g, cost, sigma**2, p, q, tolerance, min(iterations, _BETWEEN))
        iterations -= _BETWEEN
    return plan, error


def _iterated(
    g: Tensor, cost: Tensor, v: float, p: Tensor, q: Tensor, tolerance: float, count: int
) -> tuple[Tensor, Tensor, float]:
    """Return the coupling, ``g`` and the error after some iterations.

    The first one is in logarithms, and the others scale rows and columns of its result.
    """
    f = v * (p.log() - ((g - cost) / v).logsumexp(1))
    g = v * (q.log() - ((f[:, None] - cost) / v).logsumexp(0))
    kernel = ((f[:, None] + g - cost) / v).exp()
    rows, columns = torch.ones_like(p), torch.ones_like(q)
    for left in range(count - 1, -1, -1):
        sums = kernel @ columns
        error = float((rows * sums - p).abs().sum())
        if error <= tolerance or not left:
            break
        rows = p / sums
        columns = q / (rows @ kernel)
    return rows[:, None] * kernel * columns, g + v * columns.log(), error


def _blocks(groups: Tensor) -> Iterator[Tensor]:
    """Yield the rows of each group with two or more, in blocks."""
    for group in torch.unique(groups):
        rows = (groups == group).nonzero()[:, 0]
        for block in rows.split(LARGEST):
            if len(block) > 1:
                yield block
