"""A survey of every value of a source before training: ranges, kinds and missing values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scorefield._internal.errors import DataError
from scorefield._internal.statistics import Moments
from scorefield.data.layout import Layout
from scorefield.data.rows import spans


@dataclass(frozen=True)
class Survey:
    """Statistics of each column of vectors, or each channel of other data, ``(C,)``.

    Attributes:
        keep: numbers of the items to use.
        incomplete: the number of items that lack a value.
        missing: the number of missing values.
        low, high: range of the other values; NaN without any.
        whole: whether these are whole numbers.
        moments: of the source's values, before rounding to float32.
    """

    keep: np.ndarray
    incomplete: int
    missing: np.ndarray
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    moments: Moments


def survey(layout: Layout, name: str, missing: str, anywhere: bool = False) -> Survey:
    """Read all items once and return their statistics.

    Args:
        name: of the source, for messages.
        missing: refuse missing values, drop their items, or keep them.
        anywhere: allow missing values in images and signals too.

    Raises:
        DataError: a value that is not finite in float32, or missing where that is refused.
    """
    parts, keep, incomplete = [], [], 0
    moments = Moments.none()
    for span in spans(layout.values.shape):
        raw = layout.picked(layout.values[span])
        batch = layout.numbers(raw)
        absent = np.isnan(batch) & ((batch.ndim == 2 or anywhere) and missing != "refuse")
        bad = np.argwhere(~np.isfinite(batch) & ~absent)
        if len(bad):
            raise DataError(_refusal(raw, bad, int(span[bad[0][0]]), name, layout.names))
        rows = absent.reshape(len(absent), -1).any(1)
        incomplete += int(rows.sum())
        use = ~rows | (missing != "drop")
        keep.append(span[use])
        parts.append(_columns(_by_column(layout, batch[use])))
        wide = torch.from_numpy(_by_column(layout, raw[use]).astype(np.float64))
        moments = moments.joined(Moments.of(wide))
    absent, low, high, whole = zip(*parts, strict=True)
    return Survey(
        np.concatenate(keep),
        incomplete,
        np.sum(absent, 0),
        np.fmin.reduce(low),
        np.fmax.reduce(high),
        np.logical_and.reduce(whole),
        moments,
    )


def _by_column(layout: Layout, batch: np.ndarray) -> np.ndarray:
    """Return the values of each column, or each channel, ``(n, C)``."""
    turned = layout.turned(batch)
    return np.moveaxis(turned, 1, -1).reshape(-1, turned.shape[1])


def _columns(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return for each column: missing values, least, greatest, and whether all are whole."""
    absent = np.isnan(values)
    low = np.where(absent, np.inf, values).min(0, initial=np.inf)
    high = np.where(absent, -np.inf, values).max(0, initial=-np.inf)
    none = low > high
    whole = ((values == np.floor(values)) | absent).all(0)
    return absent.sum(0), np.where(none, np.nan, low), np.where(none, np.nan, high), whole


def _refusal(raw: np.ndarray, bad: np.ndarray, item: int, name: str, names: tuple[str, ...]) -> str:
    _, *rest = bad[0].tolist()
    where = f"item {item}, column {names[rest[0]]}" if names else f"index {(item, *rest)}"
    value, advice = raw[tuple(bad[0])], "Remove or impute them"
    if np.isnan(value) and raw.ndim == 2:
        advice += ', or use missing="drop" (without these items) or missing="keep"'
    return (
        f"{name} has {len(bad)} value(s) that are not finite numbers in float32, the first at "
        f"{where}: {value}. {advice}."
    )
