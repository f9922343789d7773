"""The layout of samples in the values of a source, and a survey of all values before training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield._internal.statistics import Moments
from scorefield.data.axes import Axes
from scorefield.data.config import ColumnsConfig, numbered
from scorefield.data.contents import Contents, Values, first_few
from scorefield.data.lengths import lengths
from scorefield.data.rows import Read, Rows, spans

_PIECE = 2**18  # numbers of an item that are surveyed at a time


@dataclass(frozen=True)
class Layout:
    """A map from the values of a source to samples.

    Attributes:
        values: of the source.
        axes: of the values.
        names: of the selected columns.
        order: positions of the selected columns; None for all of them.
        dtype: of the samples.
    """

    values: Values
    axes: Axes
    names: tuple[str, ...]
    order: np.ndarray | None = None
    dtype: type[np.floating] = np.float32

    def picked(self, batch: np.ndarray) -> np.ndarray:
        """Return the selected columns of values ``(B, ...)``."""
        return batch if self.order is None else batch[:, self.order]

    def numbers(self, batch: np.ndarray) -> np.ndarray:
        """Return selected columns as floating-point numbers, in the layout of the source."""
        with np.errstate(over="ignore"):
            return batch.astype(self.dtype)

    def tensor(self, batch: np.ndarray) -> Tensor:
        """Return values ``(B, ...)`` as samples."""
        samples = self.axes.samples(self.numbers(self.picked(batch)))
        return torch.from_numpy(np.ascontiguousarray(samples))

    def rows(self, keep: np.ndarray, in_memory: int) -> Rows:
        """Return the samples of these numbers: a tensor, or rows to read later if too large."""
        sample = tuple(self.tensor(self.values[keep[:1]]).shape[1:])
        if 4 * len(keep) * int(np.prod(sample)) > in_memory:
            return Read(self.values, self.tensor, keep, sample)
        x = torch.from_numpy(np.empty((len(keep), *sample), self.dtype))
        for span in spans((len(keep), *sample)):
            x[torch.from_numpy(span)] = self.tensor(self.values[keep[span]])
        return x


def select(
    contents: Contents, axes: Axes, without: tuple[str, ...], name: str, like: ColumnsConfig | None
) -> Layout:
    """Return the layout of all columns but some, or of the columns of a run.

    Raises:
        DataError: an absent column.
    """
    names = contents.names
    if not names and len(contents.values.shape) == 2:
        names = numbered(contents.values.shape[1])
    for column in without:
        if column not in names:
            raise DataError(
                f"{name} has no column {column}: it has {first_few(names) or 'none by name'}."
            )
    if like is not None and like.names and (contents.names or len(like.names) != len(names)):
        return _like(replace(contents, names=names), axes, name, like)
    if not without:
        return Layout(contents.values, axes, contents.names)
    order = np.array([k for k, column in enumerate(names) if column not in without])
    selected = tuple(names[k] for k in order)
    return Layout(contents.values, axes, selected, order)


def _like(contents: Contents, axes: Axes, name: str, like: ColumnsConfig) -> Layout:
    places = {column: k for k, column in enumerate(contents.names)}
    if absent := [column for column in like.names if column not in places]:
        raise DataError(
            f"{name} has no column {absent[0]}, which the run was trained on"
            + (f", and {len(absent) - 1} more are missing." if len(absent) > 1 else ".")
        )
    order = np.array([places[column] for column in like.names])
    return Layout(contents.values, axes, like.names, order)


@dataclass(frozen=True)
class Survey:
    """Statistics of each column of vectors, or each channel of other data, ``(C,)``.

    Attributes:
        keep: numbers of the items to use.
        incomplete: the number of items that lack a value.
        missing: the number of missing values.
        low, high: range of the other values; NaN without any.
        moments: of the source's values, before rounding to float32.
    """

    keep: np.ndarray
    incomplete: int
    missing: np.ndarray
    low: np.ndarray
    high: np.ndarray
    moments: Moments


def survey(
    layout: Layout, name: str, missing: str, anywhere: bool = False, ends: bool = False
) -> Survey:
    """Read all items once and return their statistics.

    Args:
        name: of the source, for messages.
        missing: refuse missing values, drop their items, or keep them.
        anywhere: allow missing values in images and signals too.
        ends: allow them after the end of each signal.

    Raises:
        DataError: a value that is not finite in float32, or missing where that is refused.
    """
    parts, keep, incomplete = [], [], 0
    moments = Moments.none()
    allowed = ends or (missing != "refuse" and (layout.axes.kind == "vectors" or anywhere))
    for span in spans(layout.values.shape):
        raw = layout.picked(layout.values[span])
        rows = np.zeros(len(raw), bool)
        for piece in pieces(raw):
            batch = layout.numbers(piece)
            if not (np.isfinite(batch) | (np.isnan(batch) & allowed)).all():
                raise DataError(_refusal(layout, raw, allowed, int(span[0]), name))
            rows |= not ends and np.isnan(batch).reshape(len(batch), -1).any(1)
        if ends:
            lengths(layout.tensor(layout.values[span]), name, int(span[0]))
        incomplete += int(rows.sum())
        use = ~rows | (missing != "drop")
        keep.append(span[use])
        for piece in pieces(layout.axes.samples(raw if use.all() else raw[use])):
            parts.append(_columns(_by_column(layout.numbers(piece))))
            wide = torch.from_numpy(_by_column(piece).astype(np.float64))
            moments = moments.joined(Moments.of(wide))
    absent, low, high = zip(*parts, strict=True)
    return Survey(
        np.concatenate(keep),
        incomplete,
        np.sum(absent, 0),
        np.fmin.reduce(low),
        np.fmax.reduce(high),
        moments,
    )


def pieces(batch: np.ndarray) -> Iterator[np.ndarray]:
    """Yield parts of all items of a batch, so that large items need little memory.

    A part has all columns of vectors, or all channels.
    """
    if batch.ndim < 3 or batch.size <= _PIECE:
        yield batch
        return
    flat = batch.reshape(*batch.shape[:2], -1)
    step = max(1, _PIECE // max(1, batch.shape[0] * batch.shape[1]))
    for start in range(0, flat.shape[2], step):
        yield flat[:, :, start : start + step]


def _by_column(batch: np.ndarray) -> np.ndarray:
    """Return the values of each column, or each channel, ``(n, C)``."""
    return np.moveaxis(batch, 1, -1).reshape(-1, batch.shape[1])


def _columns(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return for each column: missing values, least, greatest."""
    absent = np.isnan(values)
    low = np.where(absent, np.inf, values).min(0, initial=np.inf)
    high = np.where(absent, -np.inf, values).max(0, initial=-np.inf)
    none = low > high
    return absent.sum(0), np.where(none, np.nan, low), np.where(none, np.nan, high)


def _refusal(layout: Layout, raw: np.ndarray, missing: bool, start: int, name: str) -> str:
    batch = layout.numbers(raw)
    bad = np.argwhere(~np.isfinite(batch) & ~(np.isnan(batch) & missing))
    (item, *rest), names = bad[0].tolist(), layout.names
    item += start
    where = f"item {item}, column {names[rest[0]]}" if names else f"index {(item, *rest)}"
    value, advice = raw[tuple(bad[0])], "Remove or impute them"
    if np.isnan(value) and raw.ndim == 2:
        advice += ', or use missing="drop" (without these items) or missing="keep"'
    return (
        f"{name} has {len(bad)} value(s) that are not finite numbers in float32, the first at "
        f"{where}: {value}. {advice}."
    )
