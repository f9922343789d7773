"""A summary of a source of data, before training on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield._internal.errors import DataError
from scorefield._internal.statistics import Moments
from scorefield.data.builtin import BUILTIN
from scorefield.data.channels import described
from scorefield.data.conditions import columns_of, entries
from scorefield.data.config import (
    CategoryColumn,
    Column,
    ColumnsConfig,
    NumberColumn,
    ReadingConfig,
)
from scorefield.data.contents import Contents, Use, Values
from scorefield.data.dialect import Dialect
from scorefield.data.exact import is_time
from scorefield.data.kinds import decode
from scorefield.data.layout import pieces
from scorefield.data.rows import chunks, spans
from scorefield.data.source import Data, read, read_contents
from scorefield.data.tabular import Choices, read_schema
from scorefield.data.written import is_date

_MOST_LEVELS = 65536
_SHOWN = 8
_KINDS = ("", "", "vectors", "signals (C, L)", "images (C, H, W)", "volumes (C, D, H, W)")
_TYPE_LEVELS = {"bool": 2, "uint8": 256, "uint16": 65536}
_COLUMNS = 32


def inspect(source: str | Path, conditions: str | None = None, **options: Any) -> dict[str, str]:
    """Return the properties of data that matter for training, by name.

    Args:
        conditions, options: the arguments of `read`.

    Raises:
        DataError: the file does not exist, or cannot be read at all.
    """
    if str(source) in BUILTIN:
        contents = Contents(read(source).x.numpy())  # type: ignore[attr-defined]
    else:
        dialect = Dialect(**{f.name: options.get(f.name) for f in fields(Dialect)})
        space = options.get("space")
        columns = Choices.of(options.get("columns") if space is None else None)
        without = (*options.get("without", ()), *columns.dropped)
        use = Use.of(
            columns_of(entries(conditions)), without, options.get("like"), dialect, columns.texts
        )
        names = ReadingConfig.model_fields
        choices = ReadingConfig.of(**{k: v for k, v in options.items() if k in names})
        contents = read_contents(source, choices, use)
    values = contents.values
    summary = {"shape": f"{values.shape}"}
    if contents.table is None:
        summary["type"] = f"{values.dtype}"
        if values.dtype.kind in "biuf" and all(values.shape):
            summary |= _values(values)
    if contents.by_name:
        summary["columns for conditions"] = _few(list(contents.by_name))
    try:
        data = read(source, conditions, **options)
    except DataError as error:
        return summary | _notes(contents.notes) | {"training": f"rejected: {error}"}
    notes = _notes(data.notes)
    return summary | _training(data, values) | notes | _columns(data, values.dtype)


def _notes(notes: Sequence[str]) -> dict[str, str]:
    return {"note" if k == 0 else f"note {k + 1}": note for k, note in enumerate(notes)}


def _values(values: Values) -> dict[str, str]:
    """Return range and moments of the finite values, and the place of the others."""
    moments = Moments.none()
    low, high, bad, first = np.inf, -np.inf, 0, ()
    for span in spans(values.shape):
        raw = np.asarray(values[span])
        for batch in (piece.astype(np.float64) for piece in pieces(raw)):
            some = batch[np.isfinite(batch)]
            bad += batch.size - some.size
            if some.size:
                moments = moments.joined(Moments.of(torch.from_numpy(some)))
                low, high = min(low, some.min()), max(high, some.max())
        if bad and not first:
            item, *rest = np.argwhere(~np.isfinite(raw))[0].tolist()
            first = int(span[item]), *rest
    summary = {}
    if moments.count:
        summary["values"] = (
            f"{low:g} to {high:g}, mean {float(moments.mean):.4g}, "
            f"deviation {float(moments.variance.sqrt()):.4g}"
        )
    return summary | {"not finite": f"{bad}, the first at index {first}" if bad else "none"}


def _training(data: Data, values: Values) -> dict[str, str]:
    kind = _KINDS[len(data.x.shape)]
    turned = data.is_image and len(values.shape) == 4 and tuple(values.shape[1:]) != data.shape
    each = "feature" if len(data.shape) == 1 else "channel"
    space = data.points.space
    where = f"of the Euclidean parts of {space}" if space else "by itself"
    network = "an MLP" if len(data.shape) == 1 else "a U-Net"
    summary = {
        "training": f"{len(data.x)} {kind} of shape {data.shape}"
        + (", turned from channels last" if turned else ""),
        "transform": f"to zero mean and unit variance, each {each} {where}",
        "network": f"{network} by default",
    }
    if data.conditions:
        summary["conditions"] = "; ".join(map(described, data.conditions.channels))
    return summary


def column_summary(columns: ColumnsConfig) -> dict[str, str]:
    """Return the kinds of the columns, by their names."""
    some = columns.kinds[:_COLUMNS]
    summary = {f"column {c.name}": text for c in some if (text := _described(c, columns))}
    if len(columns.kinds) > len(some):
        summary["more columns"] = str(len(columns.kinds) - len(some))
    return summary


def _described(column: Column, columns: ColumnsConfig) -> str:
    gap = ["may be missing"] if column.missing else []
    if isinstance(column, CategoryColumn):
        kind = "ordered category" if column.ordered else "category"
        return ", ".join([f"{kind} of {_few(list(column.labels)) or 'no values'}", *gap])
    timed, (low, high, *values) = _shown(column, columns)
    if column.low == column.high:
        return ", ".join([f"always {low}", *gap])
    kind = "time" if timed else "number"
    if column.format:
        kind = f"{'date' if timed else 'number'} as {column.format}"
    atoms = values[len(column.values) :]
    parts = [
        f"{kind} from {low} to {high}",
        f"one of {_few(values[: len(column.values)])}" if column.values else "",
        f"in steps of {column.step * column.unit:g}"
        if column.step and not (column.values or timed)
        else "",
        f"map {column.map}" if column.map != "standard" else "",
        f"often {_few(atoms)}" if atoms else "",
    ]
    return ", ".join([*filter(None, parts), *gap])


def _shown(column: NumberColumn, columns: ColumnsConfig) -> tuple[bool, list[str]]:
    """Return whether a column is of times; and its ends, values and atoms, as they are written."""
    x = np.array([column.low, column.high, *column.values, *column.atoms])
    if not columns.arrow:
        return False, [f"{value:g}" for value in x]
    kind = read_schema(columns.arrow).field(column.name).type
    timed = is_date(column.format) or is_time(kind)
    return timed, list(map(str, decode(column, x, kind).to_pylist()))


def _columns(data: Data, kind: np.dtype) -> dict[str, str]:
    """Return the kinds of the columns of vectors, and whether all data is whole numbers."""
    summary, columns = column_summary(data.columns), data.columns
    if data.incomplete:
        learned = any(column.missing for column in columns.kinds)
        treatment = "learned as missing" if learned else "left out"
        summary["incomplete"] = f"{data.incomplete} items lack a value: {treatment}"
    if columns.quantiles:
        summary["maps"] = "numbers are mapped to the quantiles of the data after training"
    if not (columns.kinds or data.points.space) and (
        top := _TYPE_LEVELS.get(kind.name) or _levels(data)
    ):
        of = f", the range of {kind}" if kind.name in _TYPE_LEVELS else ""
        summary["whole numbers"] = (
            f"from 0 to {top - 1}{of}: with levels={top} likelihoods are bits per dimension, and "
            "samples are whole numbers"
        )
    return summary


def _levels(data: Data) -> int:
    """Return the number of levels if all values are whole numbers from 0, else 0."""
    top = 0.0
    for chunk in chunks(data.x):
        if not bool((chunk == chunk.floor()).all()) or float(chunk.min()) < 0:
            return 0
        top = max(top, float(chunk.max()))
    return int(top) + 1 if top < _MOST_LEVELS else 0


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))
