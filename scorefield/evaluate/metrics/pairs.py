r"""Unbiased statistics of pairs of points: averages over pairs of different points.

With independent ``X, X' ~ p`` and ``Y, Y' ~ q``, a kernel ``k`` and the distance ``|.|``::

    D(p, q) = E k(|X - X'|) + E k(|Y - Y'|) - 2 E k(|X - Y|)                        (1)

Reference: Gretton et al. (2012), A kernel two-sample test.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.evaluate.metrics.base import Split
from scorefield.evaluate.metrics.points import distance_blocks

Kernel = Callable[[Tensor], Tensor]


def discrepancy(split: Split, kernel: Kernel, at_zero: float) -> Tensor:
    """Return the unbiased estimate of (1) for every row of ``split.keep``: float64 ``(R,)``.

    Costs ``N^2 + N M + M^2`` distances, in bounded memory, however many rows.

    Args:
        split: the two samples.
        kernel: ``k`` of a tensor of distances, which it may overwrite.
        at_zero: ``k(0)``, the term of a point with itself.
    """
    x, y = split.x, split.y
    x_in, y_in = (
        torch.nn.functional.one_hot(group, split.groups).to(x)
        for group in (split.x_group, split.y_group)
    )

    def summed(a: Tensor, a_in: Tensor, b: Tensor, b_in: Tensor) -> Tensor:
        sums = a.new_zeros(split.groups, split.groups)
        for part, distances in distance_blocks(a, b):
            sums += a_in[part].T @ (kernel(distances) @ b_in)
        return ((split.keep @ sums) * split.keep).sum(1)

    n, m = split.keep @ x_in.sum(0), split.keep @ y_in.sum(0)
    within_x = (summed(x, x_in, x, x_in) - at_zero * n) / (n * (n - 1))
    within_y = (summed(y, y_in, y, y_in) - at_zero * m) / (m * (m - 1))
    return within_x + within_y - 2 * summed(x, x_in, y, y_in) / (n * m)
