"""Signals of several lengths: ``(N, C, L)`` with NaN after the end of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.axes import Axes
from scorefield.data.rows import Rows, chunks

if TYPE_CHECKING:
    from scorefield.data.config import DataConfig

_PRIOR = 10  # signals, whose weight the moments of all places have in those of one place


def stacked(items: Sequence[object], name: str) -> tuple[np.ndarray, Axes] | None:
    """Return arrays of several lengths as one array with NaN after their ends, and its axes.

    None for arrays of one shape, and for others than numbers of one or two axes.

    Raises:
        DataError: arrays whose axes both differ.
    """
    arrays = [np.asarray(item) for item in items]
    shapes = {each.shape for each in arrays}
    if len(shapes) < 2 or {len(shape) for shape in shapes} not in ({1}, {2}):
        return None
    if any(each.dtype.kind not in "biuf" for each in arrays):
        return None
    sides = [sorted({*side}) for side in zip(*shapes, strict=True)]
    if len(sides) == 2 and min(map(len, sides)) > 1:
        raise DataError(
            f"{name} has signals of {sides[0][0]} to {sides[0][-1]} by {sides[1][0]} to "
            f"{sides[1][-1]} values: give each the shape (C, L) with the same number of channels C."
        )
    result = np.full((len(arrays), *(side[-1] for side in sides)), np.nan)
    for row, each in zip(result, arrays, strict=True):
        row[tuple(map(slice, each.shape))] = each
    if len(sides) == 1:
        return result, Axes("signals")
    return result, Axes("signals", "first" if len(sides[1]) > 1 else "last")


def lengths(x: Tensor, name: str, start: int = 0) -> Tensor:
    """Return the number of places ``(B,)`` of each signal ``(B, C, L)`` before NaN.

    Args:
        name: of the data, for messages.
        start: the number of the first signal there.

    Raises:
        DataError: a NaN before the end of a signal, or in some of its channels; an empty signal.
    """
    missing = x.isnan()
    first = missing[:, 0]
    result: Tensor = (~first).sum(1)
    ends = torch.arange(x.shape[2], device=x.device) >= result[:, None]
    bad = (missing != ends[:, None]).flatten(1).any(1) | (result == 0)
    if bool(bad.any()):
        item = int(bad.nonzero()[0])
        where = "no values" if not result[item] else "a missing value (NaN) before its end"
        raise DataError(
            f"{name}: signal {item + start} has {where}. NaN stands for the places after the end "
            "of a signal, in all of its channels; fill other missing values."
        )
    return result


def shares_of(x: Rows, name: str) -> dict[int, float]:
    """Return the share of each length among signals ``(N, C, L)``; empty if all have length L.

    Raises:
        DataError: as `lengths`; no signal of length L.
    """
    counts, start = torch.zeros(x.shape[2] + 1, dtype=torch.int64), 0
    for chunk in chunks(x):
        counts += torch.bincount(lengths(chunk, name, start), minlength=len(counts))
        start += len(chunk)
    if not counts[-1]:
        most = int(counts.nonzero()[-1])
        raise DataError(
            f"{name} has signals of at most {most} values, and {x.shape[2]} places: cut the last "
            f"{x.shape[2] - most} places off."
        )
    if counts[-1] == start:
        return {}
    return {k: float(counts[k]) / start for k in counts.nonzero().flatten().tolist()}


def moments(about: DataConfig, mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the moments of the places of signals, where few signals reach, nearer to those of all.

    Args:
        about: the data; if all of its signals have one length, nothing changes.
        mean, variance: of each place, ``(C, L)``.
        count: the number of signals.
    """
    if not about.lengths:
        return mean, variance
    share = torch.zeros(about.shape[1], dtype=torch.float64)
    for length, part in about.lengths:
        share[length - 1] = part
    n = count * share.flip(0).cumsum(0).flip(0)  # signals that reach a place
    center = (mean * n).sum(1, keepdim=True) / n.sum()
    spread = ((variance + (mean - center) ** 2) * n).sum(1, keepdim=True) / n.sum()
    weight = n / (n + _PRIOR)
    return center + weight * (mean - center), spread + weight * (variance - spread)


def by_length(each: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each of the lengths ``(B,)`` with the numbers of the signals that have it."""
    for length in sorted({*each.tolist()}):
        yield length, (each == length).nonzero().flatten()
