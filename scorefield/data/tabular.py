"""Tables as vectors: an Arrow table becomes float64 columns, and samples become such a table."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data import exact, kinds
from scorefield.data.columns import fitted
from scorefield.data.config import MOST_KNOTS, ColumnsConfig, DataConfig, numbered
from scorefield.data.contents import Coded
from scorefield.data.dialect import NOTE
from scorefield.data.kinds import Source

DEFAULT = "quantile"
_EACH = {"quantile": None, "standard": "standard", "normal": "normal"}  # the choice of numbers

NO_OTHERS: Mapping[str, Coded | np.ndarray] = MappingProxyType({})
_TEXTS = ("category", "ordered", "date")


class Choices(NamedTuple):
    """The kinds of columns that are named, and the maps of all numbers.

    Attributes:
        numbers: one of `kinds.MAPS` for all columns of numbers, or None to detect it.
        quantiles: whether maps are fitted after training.
        each: choices by column, of `kinds.CHOICES`.
    """

    numbers: str | None
    quantiles: bool
    each: Mapping[str, str]

    @property
    def dropped(self) -> list[str]:
        """The columns that are left out."""
        return [column for column, choice in self.each.items() if choice == "drop"]

    @property
    def texts(self) -> list[str]:
        """The columns that are read as texts, even if their cells are numbers."""
        return [column for column, choice in self.each.items() if choice in _TEXTS]

    @classmethod
    def of(cls, columns: str | Mapping[str, str] | None) -> Choices:
        """Return the choices of an argument ``columns``.

        Raises:
            DataError: a name that does not exist.
        """
        if isinstance(columns, str) and "=" in columns:
            pairs = (part.partition("=") for part in columns.split(","))
            columns = {name.strip(): kind.strip() for name, _, kind in pairs}
        if columns is None or isinstance(columns, Mapping):
            return cls(None, True, columns or {})
        if not isinstance(columns, str) or columns not in _EACH:
            raise DataError(
                f"columns={columns!r}: choose one of {', '.join(_EACH)}, or pass a mapping of "
                "columns to their kinds; names of columns are those of points, which need space."
            )
        return cls(_EACH[columns], columns == DEFAULT, {})


class Vectors(NamedTuple):
    """The columns of a table as vectors.

    Attributes:
        x: float64 ``(N, count)``, NaN where missing.
        columns: their description.
    """

    x: Tensor
    columns: ColumnsConfig


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        arrow: the `pyarrow.Table`.
        name: for messages.
        choices: of its columns.
        others: columns of conditions, which are not learned.
    """

    arrow: Any
    name: str
    choices: Choices
    others: frozenset[str]

    def among(self, keep: np.ndarray) -> Table:
        """Return the rows of a mask ``(N,)``."""
        return replace(self, arrow=self.arrow.filter(keep))

    def vectors(self, like: ColumnsConfig | None = None) -> Vectors:
        """Return the columns that a field learns, or those of a run.

        Raises:
            DataError: as `scorefield.data.kinds.fit` and `scorefield.data.kinds.encode`; a choice
                that does not exist; a column of the run that is absent.
        """
        return self._learned() if like is None else Vectors(self._read(like), like)

    def _sources(self) -> Iterator[Source]:
        for column in self.arrow.column_names:
            if column not in self.others:
                choice = self.choices.each.get(column)
                yield Source(self.name, column, self.arrow[column], choice, self.choices.numbers)

    def _learned(self) -> Vectors:
        there = (*self.arrow.column_names, *self.choices.dropped)
        kinds.check_choices(self.choices.each, there, self.name)
        sources = [each for each in self._sources() if each.choice != "drop"]
        columns = tuple(map(kinds.fit, sources))
        x = _stacked([kinds.encode(*pair) for pair in zip(columns, sources, strict=True)])
        facts = {k: v for k, v in (self.arrow.schema.metadata or {}).items() if k != NOTE}
        schema = self.arrow.schema.with_metadata(facts).serialize().to_pybytes()
        config = ColumnsConfig(
            names=tuple(column.name for column in columns),
            kinds=fitted(columns, x),
            arrow=base64.b64encode(schema).decode(),
            quantiles=MOST_KNOTS if self.choices.quantiles else 0,
        )
        return Vectors(x, config)

    def _read(self, like: ColumnsConfig) -> Tensor:
        schema = read_schema(like.arrow) if like.arrow else None
        sources = {each.name: _timed(each, schema) for each in self._sources()}
        if like.names and (absent := [each for each in like.names if each not in sources]):
            raise DataError(
                f"{self.name} has no column {absent[0]}, which the run was trained on"
                + (f", and {len(absent) - 1} more are missing." if len(absent) > 1 else ".")
            )
        if like.kinds and like.names:
            return _stacked([kinds.encode(each, sources[each.name]) for each in like.kinds])
        names = like.names or tuple(sources)
        return _stacked([_plain_numbers(sources[each]) for each in names]).float()

    def check_complete(self, vectors: Vectors) -> None:
        """Reject missing values.

        Raises:
            DataError: naming the first.
        """
        bad = vectors.x.isnan().nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            # the columns of points have no kinds, and cannot be learned as missing
            keep = ' or missing="keep"' if vectors.columns.kinds else ""
            raise DataError(
                f"{self.name} has {len(bad)} missing value(s), the first at item {row}, column "
                f'{vectors.columns.names[column]}: nan. Use missing="drop" (without these items)'
                f"{keep}."
            )


def _timed(source: Source, schema: Any) -> Source:
    """Return a source whose texts are dates or times, if the run's column has such a type."""
    import pyarrow

    place = -1 if schema is None else schema.get_field_index(source.name)
    texts = pyarrow.types.is_string(source.values.type)
    if place < 0 or not texts or not pyarrow.types.is_temporal(schema.types[place]):
        return source
    try:
        return replace(source, values=source.values.cast(schema.types[place]))
    except pyarrow.ArrowInvalid:  # which encoding reports
        return source


def _stacked(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(parts, 1))


def _plain_numbers(source: Source) -> np.ndarray:
    if not exact.is_number(source.values.type):
        raise DataError(
            f"{source.table}, column {source.name}: it holds values of type {source.values.type}, "
            "where numbers are needed."
        )
    return exact.as_float64(source.values)


def as_table(
    x: np.ndarray, config: ColumnsConfig, others: Mapping[str, Coded | np.ndarray] = NO_OTHERS
) -> Any:
    """Return vectors ``(N, count)`` as a `pyarrow.Table` with the schema of the data.

    Args:
        others: columns of conditions by their names: classes, or numbers with NaN where missing.
    """
    import pyarrow

    names = config.names or numbered(x.shape[1])
    columns = dict(zip(names, x.T, strict=True))
    if not config.arrow:
        arrays = [pyarrow.array(column, mask=np.isnan(column)) for column in x.T]
        for given in others.values():
            if isinstance(given, Coded):
                absent = given.codes < 0
                arrays.append(kinds.labelled(given.labels, given.codes, absent, pyarrow.string()))
            else:
                arrays.append(pyarrow.array(given, mask=np.isnan(given)))
        return pyarrow.table(arrays, names=[*names, *others])
    schema, by_name = read_schema(config.arrow), {column.name: column for column in config.kinds}
    fields, arrays = [], []
    for field in schema:
        if field.name in columns:
            values = columns[field.name].astype(np.float64)
            arrays.append(kinds.decode(by_name.get(field.name), values, field.type))
        elif isinstance(other := others.get(field.name), Coded):
            codes = other.codes
            arrays.append(kinds.labelled(other.labels, codes, codes < 0, field.type))
        elif other is not None:
            numbers = pyarrow.array(other, mask=np.isnan(other))
            with contextlib.suppress(pyarrow.ArrowInvalid):  # numbers that are not whole
                numbers = numbers.cast(field.type)
            field = field.with_type(numbers.type)
            arrays.append(numbers)
        else:
            continue
        fields.append(field)
    return pyarrow.table(arrays, schema=pyarrow.schema(fields, metadata=schema.metadata))


def others_of(
    config: DataConfig, columns: Mapping[str, np.ndarray]
) -> dict[str, Coded | np.ndarray]:
    """Return the columns of conditions for `as_table`, from those of `Run.columns_of`."""
    from scorefield.data.channels import labelled

    return {
        channel.name: labelled(channel, columns[f"given {channel.name}"])
        for channel in config.conditions
        if channel.column and f"given {channel.name}" in columns
    }


def read_schema(text: str) -> Any:
    """Return the schema that a configuration holds.

    Raises:
        ValueError: the text is not one.
    """
    import pyarrow

    try:
        return pyarrow.ipc.read_schema(pyarrow.py_buffer(base64.b64decode(text, validate=True)))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"columns.arrow is not a schema: {error}") from None
