"""Optimal assignments of one batch to another."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError

LARGEST = 512  # rows of one assignment, which takes time like their cube


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


def _blocks(groups: Tensor) -> Iterator[Tensor]:
    """Yield the rows of each group with two or more, in blocks."""
    for group in torch.unique(groups):
        rows = (groups == group).nonzero()[:, 0]
        for block in rows.split(LARGEST):
            if len(block) > 1:
                yield block
