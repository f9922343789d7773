"""What every metric asks of the two samples it is given."""

from __future__ import annotations

import torch
from torch import Tensor

# How many float64 numbers a metric's working tensors hold at once: 32 MiB.
BLOCK = 2**22


def point_clouds(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return two samples ``(N, ...)`` and ``(M, ...)`` as float64 ``(N, d)`` and ``(M, d)``.

    Both lie on the device of ``x``.

    Raises:
        ValueError: the points have different shapes or no coordinates, a sample has fewer than two
            points, or a value is complex or not finite.
    """
    for name, points in (("x", x), ("y", y)):
        if points.ndim < 1 or points.shape[0] < 2 or points.numel() == 0:
            raise ValueError(
                f"{name} has shape {tuple(points.shape)}: needs (N, ...) with N >= 2 points of one "
                "coordinate or more."
            )
        if points.is_complex():
            raise ValueError(f"{name} is complex: give torch.view_as_real({name}).")
        bad = int((~points.isfinite()).sum())
        if bad:
            raise ValueError(
                f"{name} has {bad} of {points.numel()} values that are not finite: find out why "
                "before measuring a distance."
            )
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x has points of shape {tuple(x.shape[1:])} and y of {tuple(y.shape[1:])}: "
            "a distance needs points of one shape."
        )
    wide_x, wide_y = (points.detach().to(x.device, torch.float64) for points in (x, y))
    return wide_x.reshape(x.shape[0], -1), wide_y.reshape(y.shape[0], -1)
