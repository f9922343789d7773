"""Conditions of samples: named channels, each a class, numbers, an embedding, a set or an image.

A channel describes a condition; its values are tensors as a network takes them: classes as their
numbers, everything else with mean 0 and deviation 1. A missing value, "none", is -1 for a class and
NaN for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.channels import converted, encode
from scorefield.data.condition_values import ConditionValues, numbers_or_texts
from scorefield.data.config import (
    Channel,
    ClassChannel,
)
from scorefield.data.contents import Coded, Contents, first_few, whole
from scorefield.data.formats import read_file
from scorefield.data.labels import Labels, classes_of
from scorefield.data.table import KINDS as TABLES, PACKED, read as read_table

KINDS = ("class", "number", "log", "embedding", "set", "image")
ONLY = "y"  # the name of a condition that has none


@dataclass(frozen=True)
class Conditions:
    """The conditions of some samples.

    Attributes:
        channels: their descriptions.
        values: for each, by `Channel.key`, a tensor as a network takes it, with a row a sample.
    """

    channels: tuple[Channel, ...] = ()
    values: Mapping[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.channels)

    def rows(self, items: Tensor | np.ndarray) -> Conditions:
        """Return the conditions of some of the samples, by their numbers or by a mask."""
        items = torch.as_tensor(items)
        return Conditions(self.channels, {key: v[items] for key, v in self.values.items()})

    def under(self, like: Sequence[Channel]) -> Conditions:
        """Return the conditions as the channels of a run describe them; others are left out.

        Raises:
            DataError: a condition of another kind, or a class that the run does not have.
        """
        own = {channel.name: channel for channel in self.channels}
        there = [channel for channel in like if channel.name in own]
        values = {
            channel.key: converted(own[channel.name], channel, self.values[own[channel.name].key])
            for channel in there
        }
        return Conditions(tuple(there), values)


class Entry(NamedTuple):
    """A condition as it is wanted for: its name, where it comes from, and its kind if declared."""

    name: str | None
    source: Any
    kind: str | None = None


def entries(conditions: Any) -> list[Entry]:
    """Return the conditions that an argument asks for.

    Args:
        conditions: a mapping of names to values, columns, files or kinds; a table, whose columns
            are conditions; the text ``dose=log,drug,low=image:low.npy``; or values of one
            condition.

    Raises:
        DataError: an empty name, or a name twice.
    """
    if conditions is None:
        return []
    if isinstance(conditions, Mapping):
        result = [_entry(str(name), source) for name, source in conditions.items()]
    elif isinstance(conditions, str):
        parts = (part.partition("=") for part in conditions.split(","))
        result = [
            _entry(name.strip(), value.strip()) if sign else Entry(None, name.strip())
            for name, sign, value in parts
        ]
    elif hasattr(conditions, "__dataframe__") or hasattr(conditions, "__arrow_c_stream__"):
        table = read_table(conditions, "conditions")
        result = [Entry(name, table[name]) for name in table.column_names]
    else:
        result = [Entry(None, conditions)]
    names = [entry.name or (str(entry.source) if _is_text(entry) else ONLY) for entry in result]
    if "" in names or "" in [entry.name for entry in result] or len({*names}) < len(names):
        raise DataError(f"conditions={conditions!r}: give each condition a name of its own.")
    for entry in result:
        if entry.source is None:
            raise DataError(f"condition {entry.name} is None: give values, or leave it out.")
    return result


def _is_text(entry: Entry) -> bool:
    return isinstance(entry.source, str | Path)


def columns_of(wanted: Sequence[Entry]) -> set[str]:
    """Return the texts among the conditions that may be names of columns."""
    return {entry.source for entry in wanted if isinstance(entry.source, str)}


def _entry(name: str, source: Any) -> Entry:
    if isinstance(source, str) and source in KINDS:
        return Entry(name, name, source)
    if isinstance(source, str) and source.partition(":")[0] in KINDS:
        kind, _, source = source.partition(":")
        return Entry(name, source, kind)
    if isinstance(source, tuple) and len(source) == 2 and source[0] in KINDS:
        return Entry(name, source[1], source[0])
    return Entry(name, source)


def read_conditions(
    wanted: Sequence[Entry],
    contents: Contents,
    name: str,
    shape: tuple[int, ...],
    embeddings: Mapping[str, Any] | Sequence[str] | None = None,
    like: Sequence[Channel] | None = None,
) -> tuple[Conditions, tuple[str, ...]]:
    """Return the conditions of all samples of a source, and notes on how they were read.

    Args:
        name: of the source.
        shape: of a sample.
        embeddings: tables of vectors by the condition: files, tables, or mappings of names to rows;
            or texts such as ``drug=vectors.csv``.
        like: the conditions of a run, whose values are read.

    Raises:
        DataError: neither a file nor a column; values that do not match the samples.
    """
    count, channels, values = contents.values.shape[0], list[Channel](), dict[str, Tensor]()
    notes: list[str] = []
    if not wanted and contents.classes is not None:
        wanted = [Entry(ONLY, Labels(contents.classes))]
    tables = _tables(embeddings)
    for entry in wanted:
        if (entry.name or str(entry.source)) in tables:
            entry = entry._replace(kind="embedding")
        channel = None if like is None else _of_name(like, entry)
        if channel is not None:
            entry = entry._replace(kind="number" if channel.kind == "numbers" else channel.kind)
        key, source = entry.name, entry.source
        if isinstance(source, str | Path):
            key, source, more = _looked_up(entry, contents, name)
            notes += more
        rows = ConditionValues(key or ONLY, source, count, shape)
        if like is None:
            channel, value = rows.fitted(entry.kind, tables.pop(key or ONLY, None))
            is_column = _is_text(entry) and key == str(entry.source) and key in contents.names
            channel = channel.model_copy(update={"column": is_column})
        elif channel is None:  # classes of folders, which nobody named
            continue
        else:
            value = rows.encoded(channel)
        channels.append(channel)
        values[channel.key] = value
    if tables:
        raise DataError(f"embeddings={first_few([*tables])}: the data has no such condition.")
    if len(values) < len(channels):
        names = first_few([channel.name for channel in channels])
        raise DataError(f"conditions {names}: two of them have the same name.")
    return Conditions(tuple(channels), values), tuple(notes)


def _tables(embeddings: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """Return the tables of vectors by the condition.

    Raises:
        DataError: a text that names no condition.
    """
    if embeddings is None or isinstance(embeddings, Mapping):
        return dict(embeddings or {})
    result = {}
    for text in embeddings:
        name, sign, path = text.partition("=")
        if not sign:
            raise DataError(f"embeddings={text}: name the condition, as in drug={text}.")
        result[name] = Path(path)
    return result


def read_given(channels: Sequence[Channel], path: Path) -> dict[str, Tensor]:
    """Return the conditions in a file, a row for each sample, by their keys.

    Args:
        path: of a table with columns named after the conditions; or an array, for one condition.

    Raises:
        DataError: a file that cannot be read, or without such a column.
        UsageError: values that a condition does not take.
    """
    if not path.exists():
        raise DataError(f"given-from {path}: no such file.")
    if path.suffix.lower() in (".npy", ".npz"):
        if len(channels) != 1:
            raise DataError(f"given-from {path}: the run has several conditions; write a table.")
        return {channels[0].key: encode(channels[0], whole(read_file(path).values))}
    table = read_table(path, str(path))
    values = _of_table(channels, table)
    if not values:
        names = first_few([channel.name for channel in channels])
        raise DataError(
            f"given-from {path}: has the columns {first_few(table.column_names)}, and the run the "
            f"conditions {names}."
        )
    return values


def read_own(channels: Sequence[Channel], source: str) -> dict[str, Tensor]:
    """Return the conditions that are columns of a table of items, by their keys.

    Args:
        source: a file of items; only tables have columns.

    Raises:
        DataError: a file that cannot be read.
        UsageError: values that a condition does not take.
    """
    path, columns = Path(source), [channel for channel in channels if channel.column]
    if not columns or not path.name.lower().endswith((*TABLES, *PACKED)):
        return {}
    return _of_table(columns, read_table(path, source))


def _of_table(channels: Sequence[Channel], table: Any) -> dict[str, Tensor]:
    """Return the conditions that are columns of a table; empty cells have none of the classes."""
    values = dict[str, Tensor]()
    for channel in channels:
        if channel.name in table.column_names:
            cells: Any = numbers_or_texts(table[channel.name])
            if isinstance(channel, ClassChannel):
                cells = [-1 if cell == "" or cell != cell else cell for cell in cells.tolist()]
            values[channel.key] = encode(channel, cells)
    return values


def _of_name(like: Sequence[Channel], entry: Entry) -> Channel | None:
    """Return the condition of a run by its name, or its only one for values without a name."""
    name = entry.name or (str(entry.source) if _is_text(entry) else ONLY)
    for channel in like:
        if channel.name == name:
            return channel
    if isinstance(entry.source, Labels):  # classes of folders, which nobody named
        return like[0] if len(like) == 1 and isinstance(like[0], ClassChannel) else None
    is_file = _is_text(entry) and Path(entry.source).exists()
    if len(like) == 1 and entry.name is None and (is_file or not _is_text(entry)):
        return like[0]
    if _is_text(entry) and not is_file and entry.name is None:
        raise DataError(
            f"conditions={name}: no such file, and this run has no such condition; it has "
            f"{first_few([c.name for c in like]) or 'none'}."
        )
    there = f"the conditions {first_few([c.name for c in like])}" if like else "no conditions"
    raise DataError(f"condition {name}: this run has {there}.")


def _looked_up(entry: Entry, contents: Contents, name: str) -> tuple[str, Any, Sequence[str]]:
    """Return the name, the values and notes of a condition that is a column or a file."""
    text = str(entry.source)
    if text in contents.names and (entry.kind or _is_number(contents, text)) not in (None, "class"):
        return entry.name or text, _column(contents, text), ()
    if text in contents.others:
        return entry.name or text, contents.others[text](), ()
    if text in contents.by_name and entry.kind != "class":
        values = _annotation(contents.by_name[text](), entry.kind)
        if values is not None:
            return entry.name or text, values, ()
    path = Path(entry.source)
    if text not in (*contents.names, *contents.by_name) and path.exists():
        kind = entry.kind or _kind_of_file(path)
        if kind not in (None, "class"):
            return entry.name or ONLY, _file_values(path, entry.name), ()
    labels = classes_of(contents, entry.source, name)
    own = labels.columns or text in contents.by_name
    return entry.name or (text if own else ONLY), labels, labels.notes


def _annotation(classes: Coded, kind: str | None) -> np.ndarray | None:
    """Return the numbers or the texts of an annotation of items; None if it is one of classes."""
    if kind == "embedding":
        names: np.ndarray = np.array([*classes.labels, ""], str)[classes.codes]
        return names
    try:
        numbers = np.array([*map(float, classes.labels), math.nan])
    except ValueError:
        return None
    is_whole = bool((numbers[:-1] == np.floor(numbers[:-1])).all())
    return None if kind is None and is_whole else numbers[classes.codes]


def _kind_of_file(path: Path) -> str | None:
    """Return "number" for a file that holds numbers of a condition; None for one of labels."""
    if path.suffix.lower() in (".npy", ".npz"):
        values = read_file(path).values
        return "number" if values.dtype.kind == "f" or len(values.shape) > 2 else None
    return None


def _file_values(path: Path, name: str | None) -> np.ndarray:
    """Return the values in an array, or in the column of a table that has the name, or only one.

    Raises:
        DataError: a table of several columns without that name.
    """
    if path.suffix.lower() not in TABLES:
        return whole(read_file(path).values)
    table = read_table(path, str(path))
    column = name if name in table.column_names else table.column_names[0]
    if name not in table.column_names and table.num_columns > 1:
        raise DataError(
            f"{path} has the columns {first_few(table.column_names)}: name the condition after one."
        )
    return numbers_or_texts(table[column])


def _is_number(contents: Contents, column: str) -> str | None:
    """Return "number" for a column of floating-point numbers that are not all whole."""
    values = _column(contents, column)
    if values.dtype.kind != "f":
        return None
    some = values[~np.isnan(values)]
    return "number" if bool((some != np.floor(some)).any()) else None


def _column(contents: Contents, column: str) -> np.ndarray:
    if contents.table is None:
        return whole(contents.values)[:, contents.names.index(column)]
    return numbers_or_texts(contents.table[column])
