r"""Batches of one fixed size, in which every sample has the slot ``id mod batch_size``.

A kernel's rounding depends on the size of a batch and on the row in it, never on the other rows: so
a sample has the same bits alone and in any company.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.field import ScoreField
from scorefield.process import wrong_kind

MOST_ROWS = 64  # in a batch, by default


def batch_rows(count: int, batch_size: int | None) -> int:
    """Return the rows of a batch: ``batch_size``, or the least that make as few batches of 64.

    Batches have one size, and the last one is padded: with 64 rows, one sample costs as much as 64.
    """
    if batch_size is not None:
        return batch_size
    return max(1, -(-count // max(1, -(-count // MOST_ROWS))))


def as_ids(
    n: SupportsIndex | Iterable[SupportsIndex] | Tensor, batch_size: int | None = None
) -> list[int]:
    """Return the ids that ``n`` stands for: ``0 .. n-1`` for a number, or those of a list.

    Raises:
        ValueError: a tuple, which elsewhere is a shape; a negative id or ``n``; ``batch_size < 1``.
    """
    if isinstance(n, tuple):
        first = n[0] if n else 0
        raise ValueError(
            f"n={tuple(n)} is a tuple: a sample's shape is the field's. Write n={first}, or give "
            "ids as a list."
        )
    if batch_size is not None and (not isinstance(batch_size, Integral) or batch_size < 1):
        raise ValueError(f"batch_size={batch_size!r}: must be a whole number, at least 1.")
    listed: Any = n.tolist() if isinstance(n, Tensor | np.ndarray) and n.ndim else n
    try:
        if isinstance(listed, SupportsIndex):
            valid, ids = operator.index(listed) >= 0, list(range(operator.index(listed)))
        else:
            ids = [operator.index(k) for k in listed]
            valid = all(0 <= k < 2**63 for k in ids)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"n={n!r}: must be a number of samples or a list of ids, at least 0 each.")
    return ids


def batches(ids: Sequence[int], batch_size: int) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """Yield batches: the places in ``ids`` that each serves, their slots, and the id in every slot.

    Slots that no place asks for hold an id of their own.
    """
    waiting: list[list[int]] = [[] for _ in range(batch_size)]
    for place, k in enumerate(ids):
        waiting[k % batch_size].append(place)
    for turn in range(max(map(len, waiting))):
        places = [queue[turn] for queue in waiting if turn < len(queue)]
        rows = [ids[place] % batch_size for place in places]
        slots = torch.arange(batch_size)
        for row, place in zip(rows, places, strict=True):
            slots[row] = ids[place]
        yield places, rows, slots


def filled(x: Tensor, places: Sequence[int], rows: Sequence[int], batch_size: int) -> Tensor:
    """Return a batch with the samples at ``places`` in its ``rows``, and one of them elsewhere."""
    batch = x[places[0]].repeat(batch_size, *[1] * (x.ndim - 1))
    batch[rows] = x[places]
    return batch


def for_batch(
    field: ScoreField, places: Sequence[int], rows: Sequence[int], batch_size: int, count: int
) -> ScoreField:
    """Return the field for a batch of ``count`` samples, with the conditions of its rows.

    Raises:
        ValueError: conditions with another number of rows.
    """
    if field.rows == 1:
        return field
    items = torch.full((batch_size,), places[0])
    items[list(rows)] = torch.tensor(places)
    return field.take(items, count)


def not_finite(x: Tensor) -> list[int]:
    """Return the places of the samples of ``x`` ``(B, ...)`` that are not finite."""
    places: list[int] = (~x.isfinite())[:, None].flatten(1).any(1).nonzero().flatten().tolist()
    return places


def as_numbers(name: str, x: object) -> Tensor:
    """Return a tensor as it is, or the tensor of an array or of nested lists of numbers.

    Raises:
        ValueError: an argument that is none of them.
    """
    if not isinstance(x, Tensor | list | tuple) and not hasattr(x, "__array__"):
        raise wrong_kind(name, x, Tensor, f"torch.as_tensor({name})")
    try:
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise wrong_kind(name, x, Tensor, f"torch.as_tensor({name})") from None


def as_state(x: Tensor) -> Tensor:
    """Return numbers in float32 or float64: in fewer digits a state would lose small steps."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_samples(
    field: ScoreField, x: Tensor, ids: Sequence[int] | Tensor | None, batch_size: int | None
) -> tuple[Tensor, list[int]]:
    """Return samples ``(B, *field.shape)`` as a state and their ids, by default ``0 .. B-1``.

    Args:
        x: a tensor, or an array or nested lists of floating-point numbers.

    Raises:
        ValueError: another shape or type, values that are not finite, another number of ids, a
            network in training.
    """
    check_evaluating(field)
    x = as_numbers("x", x)
    if x.shape[1:] != field.shape or not x.is_floating_point() or x.ndim < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and type {x.dtype}: this field takes batches of samples "
            f"of shape {field.shape}, in a floating type."
        )
    if bad := not_finite(x):
        raise ValueError(f"x is not finite in samples {bad[:5]}.")
    if field.process.space is not None:
        field.process.space.check(x)
    rows = as_ids(len(x) if ids is None else ids, batch_size)
    if len(rows) != len(x):
        raise ValueError(f"{len(rows)} ids for {len(x)} samples: give one for each.")
    return as_state(x), rows


def check_evaluating(field: object) -> None:
    """Raise an error if a field is none, or if it draws at random or mixes a batch's samples.

    Raises:
        ValueError: another kind of argument; dropout or batch normalisation in training mode.
    """
    if not isinstance(field, ScoreField):
        of_run = isinstance(getattr(field, "field", None), ScoreField)
        example = "run.field" if of_run else "the field first, as in sample(field, 16)"
        raise wrong_kind("field", field, ScoreField, example)
    kinds = nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm
    for name, module in field.named_modules():
        if module.training and isinstance(module, kinds):
            raise ValueError(
                f"{name} ({type(module).__name__}) is in training, so a sample would depend on its "
                "batch: call field.eval() first."
            )
