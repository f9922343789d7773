"""Restoration in the units of a run's data."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.config import ColumnsConfig
from scorefield.data.encoding import Encoding, Standardize
from scorefield.field import ScoreField
from scorefield.inverse import Operator, mask_as_nan, restore as restore_field
from scorefield.inverse.restore import check_items, check_kinds

if TYPE_CHECKING:
    from scorefield.runs.units import DataField


Draws = Literal["each", "mean", "mode"]


def check_unknown(measured: Tensor, operator: Operator | None, noise_std: float) -> None:
    """Raise `DataError` if measurements leave nothing to restore."""
    check_kinds(measured, operator)
    complete = len(measured) and not bool(measured.isnan().any())
    if operator is None and not noise_std and complete:
        raise DataError(
            "measured has no missing values: mark them with NaN, or describe the measurement by "
            "operator or noise_std."
        )


def restore(
    run: DataField,
    field: ScoreField,
    measured: Tensor,
    operator: Operator | None,
    noise_std: float,
    **settings: Any,
) -> Tensor:
    """Return samples of a field of the run given measurements; see `Run.restore`."""
    run.check_restoring()
    if operator is not None:
        operator.shape(run.config.data.shape)
    measured, operator = mask_as_nan(measured.to(run.device), operator)
    if operator is None:
        run.check_partial(measured, "measured", exact=not noise_std)
    return restore_data(
        field, run.transform, run.encoding, measured, operator, noise_std, **settings
    )


def restore_data(
    field: ScoreField,
    transform: Standardize,
    encoding: Encoding,
    measured: Tensor,
    operator: Operator | None,
    noise_std: float,
    **settings: Any,
) -> Tensor:
    """Return the samples of `scorefield.restore`, with all arguments in the units of the data.

    Whole numbers stand for the centres of their intervals. Entries without noise are returned
    unchanged.

    Raises:
        DataError: entries that the encoding does not allow; an operator, or noise, for columns of
            different kinds.
        ValueError, NumericalError: as `restore`.
    """
    if not isinstance(noise_std, Real) or not 0 <= noise_std < math.inf:
        raise ValueError(f"noise_std={noise_std!r}: must be a finite number, at least 0.")
    measured, operator = mask_as_nan(measured, operator)
    if encoding.width.ndim and (operator is not None or noise_std):
        raise DataError(
            "operator, noise_std: columns of different kinds have no common unit; pass neither, "
            "and mark missing values with NaN."
        )
    if operator is not None:
        mean = transform.mean - encoding.width / 2
        mean, std = (v.expand(field.shape)[None] for v in (mean, transform.std))
        check_items(measured, operator, field.shape)
        inner, values = operator.standardized(measured, mean, std)
        z = restore_field(field, values, inner, noise_std, **settings)
        return _each(z, lambda flat: encoding.inverse(transform.inverse(flat)))
    v, present = encoding.partial(measured)
    values = torch.where(present, transform.forward(v), torch.nan)
    if encoding.width.ndim:  # in the interval of a value, by its ends
        complete = torch.where(measured.isnan(), encoding.present.to(measured), measured)
        low, high = (transform.forward(encoding.at(complete, share)) for share in (0.0, 1.0))
        spread = (high - low) / math.sqrt(12)
        values, spread = values.to(transform.mean.dtype), spread.to(transform.mean.dtype)
    else:
        spread = (noise_std**2 + encoding.width**2 / 12).sqrt() / transform.std
    z = restore_field(field, values, None, spread, **settings)
    count = z.shape[1]

    def data(flat: Tensor) -> Tensor:
        v = transform.inverse(flat)
        if noise_std:
            return encoding.inverse(v)
        return encoding.completed(measured.repeat_interleave(count, 0), v)

    return _each(z, data)


def _each(z: Tensor, data: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the data of samples ``(N, n, ...)``."""
    x = data(z.flatten(0, 1))
    return x.reshape(*z.shape[:2], *x.shape[1:])


def summary(x: Tensor, draws: Draws, columns: ColumnsConfig) -> Tensor:
    """Return one restoration of each item from samples ``(N, n, ...)``.

    Args:
        draws: the mean of numbers and the most frequent category; or the most frequent value of
            each entry.
    """
    mode = x.mode(1).values
    if draws == "mode":
        return mode
    mean = x.mean(1)
    categories = [k for k, c in enumerate(columns.kinds) if c.kind == "category"]
    mean[:, categories] = mode[:, categories]
    return mean
