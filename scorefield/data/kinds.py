"""Kinds of columns: detected or named, fitted to the values of an Arrow column."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data import exact
from scorefield.data.amounts import has_symbol
from scorefield.data.bounds import Bounds
from scorefield.data.config import CategoryColumn, Column, Map, NumberColumn
from scorefield.data.contents import MOST_LABELS, first_few
from scorefield.data.dates import FORMATS
from scorefield.data.written import (
    decimals,
    find_format,
    find_stray,
    is_date,
    read_texts,
    write_texts,
)

MAPS = get_args(Map)
CHOICES = (*MAPS, "number", "whole", "date", "category", "ordered", "drop")

FEW = 16  # different values
_REPEATS = 5  # of each value, in the mean, before values count as few
_FULL = 0.75  # of a grid, with which values that do not occur may occur
_OFF = 0.01  # share of numbers that may be off a grid
_ROUGH = 5  # decimals, with fewer than which numbers may be off a grid
_MOST_DIGITS = 15
_ATOM = 0.05  # share of the rows that an atom has at least
_MOST_ATOMS = 8
_FINE = 2**14  # values of a grid, from which on an atom is not one of many steps
_IDS = re.compile(r"(^|[^a-z])(id|index|uuid|rownames?|unnamed: \d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A column of a table as it was read.

    Attributes:
        table: the name of the table, for messages.
        name: of the column.
        values: its Arrow column.
        choice: one of `CHOICES`, bounds such as ``0..100``, or None to detect the kind.
        map: of numbers without a choice; None to detect it.
    """

    table: str
    name: str
    values: Any
    choice: str | None = None
    map: str | None = None

    def refused(self, problem: str, *choices: str) -> DataError:
        """Return the error of a column, with the choices that change it."""
        ways = ", or ".join(f'columns="{self.name}={choice}"' for choice in choices)
        return DataError(f"{self.table}, column {self.name}: {problem}. Use {ways}.")

    def no_kind(self) -> DataError:
        """Return the error of values that no kind of column has."""
        return self.refused(f"values of type {self.values.type} have no kind", "drop")


def fit(source: Source) -> Column:
    """Return the column of a source.

    Raises:
        DataError: an identifier, more texts than a category may have, or a type without a kind;
            values that the chosen kind does not have.
    """
    from pyarrow import types

    choice, kind = source.choice, source.values.type
    if choice in ("category", "ordered"):
        return category(source, ordered=choice == "ordered")
    if choice == "date" and not exact.is_time(kind):
        return _dates(source, _texts(source))
    if exact.is_whole(kind) or types.is_floating(kind):
        return _number(source)
    if types.is_null(kind):
        return CategoryColumn(name=source.name, missing=True)
    if not is_text(kind) and not types.is_boolean(kind):
        raise source.no_kind()
    coded = types.is_boolean(kind) or types.is_dictionary(kind)
    column = None if coded else _written(source)
    if column is not None:
        return column
    if choice is not None:
        raise source.refused(f"it holds texts, which are not of kind {choice}", "category", "drop")
    return category(source, ordered=bool(getattr(kind, "ordered", False)))


def _written(source: Source) -> Column | None:
    """Return the column of numbers or dates that are written as texts, or None for categories.

    Raises:
        DataError: a text that is not of the format of the others; texts that are all different.
    """
    texts = _texts(source)
    form, size = find_format(texts), len(texts.drop_null().unique())
    if is_date(form) and source.choice is None and size > 2:
        return _of_texts(source, texts, form)
    if form and not is_date(form) and (source.choice or size > (2 if has_symbol(form) else FEW)):
        return _of_texts(source, texts, form)
    if source.choice is None and not form and size > 2 and (stray := find_stray(texts)):
        raise source.refused(
            f"row {stray.row} holds {stray.text!r}, but at least half of its texts are "
            f"{'dates ' if is_date(stray.form) else ''}as {stray.form}. Pass na={stray.text!r} if "
            "it is missing",
            "category",
            "drop",
        )
    if source.choice is None and FEW <= len(texts) == size <= MOST_LABELS:
        raise source.refused(
            f"its {size} texts such as {texts[0].as_py()[:40]!r} are all different, as identifiers "
            "are",
            "drop",
            "category",
        )
    return None


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is of texts, or of codes of labels."""
    from pyarrow import types

    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_dictionary)
    return any(test(kind) for test in tests)


# --- categories -----------------------------------------------------------------------------------


def _texts(source: Source) -> Any:
    """Return the values of a column as an Arrow array of texts without space around them.

    Raises:
        DataError: values that have no texts, such as lists, or labels that are intervals.
    """
    from pyarrow import ArrowNotImplementedError

    try:
        return texts_of(source.values)
    except ArrowNotImplementedError:
        raise source.no_kind() from None


def texts_of(values: Any) -> Any:
    """Return an Arrow column as texts without space around them, null where they are empty."""
    from pyarrow import compute

    texts = compute.utf8_trim_whitespace(_plain(values).cast("string"))
    return compute.if_else(compute.equal(texts, ""), None, texts)


def _plain(values: Any) -> Any:
    """Return the values of codes, and others as they are."""
    import pyarrow
    from pyarrow import types

    if not types.is_dictionary(values.type):
        return values
    chunks = values.chunks if isinstance(values, pyarrow.ChunkedArray) else [values]
    texts = [chunk.dictionary.cast("string").take(chunk.indices) for chunk in chunks]
    return pyarrow.chunked_array(texts, "string")


def category(source: Source, ordered: bool = False, most: int = MOST_LABELS) -> CategoryColumn:
    """Return the column of the labels of a source, in their order.

    Raises:
        DataError: more labels than ``most``.
    """
    texts = _texts(source)
    labels = [text for text in texts.unique().to_pylist() if text is not None]
    count = len(texts) - texts.null_count
    if len(labels) > most:
        noun = "identifiers" if len(labels) == count else "texts"
        raise source.refused(
            f"{len(labels)} different {noun} such as {labels[0][:40]!r}, and a category may have "
            f"{most}",
            "drop",
        )
    order = _order(source.values)
    key: Any = None if order is None else order.index
    if order is None and (
        exact.is_number(source.values.type) or (ordered and _all_numbers(labels))
    ):
        key = float
    return CategoryColumn(
        name=source.name,
        missing=bool(texts.null_count),
        labels=tuple(sorted(labels, key=key)),
        ordered=ordered,
        every=tuple(order) if order is not None and len(order) > len(labels) else (),
    )


def _order(values: Any) -> list[str] | None:
    """Return the labels of codes in their order, or None for values without codes."""
    from pyarrow import types

    if not types.is_dictionary(values.type):
        return None
    chunk = values.unify_dictionaries().chunk(0) if values.num_chunks else None
    return None if chunk is None else texts_of(chunk.dictionary).to_pylist()


def _all_numbers(labels: list[str]) -> bool:
    return all(re.fullmatch(r"[-+]?\d+(\.\d+)?", label) for label in labels)


# --- numbers --------------------------------------------------------------------------------------


def _dates(source: Source, texts: Any) -> NumberColumn:
    form = find_format(texts)
    if not is_date(form):
        shown = first_few(texts.drop_null().slice(0, 3).to_pylist())
        raise source.refused(
            f"its values such as {shown} are not all dates in one of the formats "
            f"{first_few(FORMATS)}",
            "category",
            "drop",
        )
    return _of_texts(source, texts, form)


def _of_texts(source: Source, texts: Any, form: str) -> NumberColumn:
    numbers = read_texts(texts, form)
    return _whole(
        source, exact.whole_numbers(numbers), exact.missing(numbers), decimals(form), form
    )


def _number(source: Source) -> Column:
    from pyarrow import types

    absent = exact.missing(source.values)
    if absent.all():
        return CategoryColumn(name=source.name, missing=True)
    if types.is_floating(source.values.type):
        return _real(source, absent)
    try:
        numbers = exact.whole_numbers(source.values)
    except OverflowError as error:
        raise source.refused(f"{error}", "drop") from None
    if types.is_integer(source.values.type) and source.choice is None:
        _check_identifier(source, numbers[~absent])
    return _whole(source, numbers, absent, exact.decimals(source.values.type))


def _check_identifier(source: Source, numbers: np.ndarray) -> None:
    """Reject numbers that are all different and only name their rows."""
    if len(numbers) < FEW or len(np.unique(numbers)) < len(numbers):
        return
    low, high = int(numbers.min()), int(numbers.max())
    rows = high - low == len(numbers) - 1 and low in (0, 1)
    if rows or _IDS.search(source.name):
        noun = f"the row numbers {low} to {high}" if rows else f"identifiers such as {numbers[0]}"
        raise source.refused(f"it holds {noun}, which have no distribution", "drop", "number")


def _whole(
    source: Source, numbers: np.ndarray, absent: np.ndarray, digits: int, form: str = ""
) -> NumberColumn:
    """Return the column of whole numbers, in units of the last of their decimals."""
    here = numbers[~absent]
    low, high = int(here.min()), int(here.max())
    above = here.view(np.uint64) - np.uint64(low % 2**64)  # exact, as all are at least low
    common = int(np.gcd.reduce(above)) or 1
    offset, unit = 0, 1
    if max(abs(low), abs(high)) > exact.MOST:
        offset, unit = low, common
        if (high - low) // unit > exact.MOST:
            raise source.refused(
                f"its whole numbers {low} to {high} differ by more than float64 resolves", "drop"
            )
        x, digits, common = (above // np.uint64(unit)).astype(np.float64), 0, 1
    else:
        x = here.astype(np.float64) / 10**digits
    timed = is_date(form) or exact.is_time(source.values.type)
    column = NumberColumn(
        name=source.name,
        missing=bool(absent.any()),
        low=float(x.min()),
        high=float(x.max()),
        step=(common if timed or _divided(here) else 1) / 10**digits,
        digits=digits,
        offset=offset,
        unit=unit,
        format=form,
    )
    return _shaped(source, column, x)


def _real(source: Source, absent: np.ndarray) -> NumberColumn:
    """Return the column of numbers in float64, with the grid that they are on."""
    x = exact.as_float64(source.values)[~absent]
    if not np.isfinite(x).all():
        place = int(np.flatnonzero(~absent)[np.flatnonzero(~np.isfinite(x))[0]])
        value = exact.as_float64(source.values)[place]
        raise source.refused(f"row {place} holds {value}, which is not finite", "drop")
    digits, step, on_grid = _grid(x, source.values.type)
    if source.choice is None and absent.any() and on_grid and step and not digits:
        _check_identifier(source, x.astype(np.int64))  # which a missing value made floats
    if source.choice == "whole":
        digits, step, on_grid = 0, 1.0, bool((x == x.round()).all())
    column = NumberColumn(
        name=source.name,
        missing=bool(absent.any()),
        low=float(x.min()),
        high=float(x.max()),
        step=step,
        digits=digits,
        on_grid=on_grid,
    )
    return _shaped(source, column, x)


def _repeated(x: np.ndarray) -> bool:
    return len(x) >= _REPEATS * len(np.unique(x))


def _divided(x: np.ndarray) -> bool:
    """Return whether whole numbers suffice for a common divisor of their differences."""
    return _repeated(x) or len(np.unique(x)) >= FEW


def _grid(x: np.ndarray, kind: Any) -> tuple[int, float, bool]:
    """Return the decimals of nearly all numbers, the step between them, and whether all have it.

    The step is 0 without a grid.
    """
    dtype, size = kind.to_pandas_dtype(), float(np.abs(x).max())
    for digits in range(_MOST_DIGITS + 1):
        if size * 10.0**digits > exact.MOST:
            break
        near = np.round(x, digits)
        on = near.astype(dtype) == x.astype(dtype)
        if (~on).sum() <= (max(_OFF * len(x), len(x) >= 50) if digits < _ROUGH else 0):
            last = np.rint(near[on] * 10.0**digits).astype(np.int64)
            common = int(np.gcd.reduce(last - last.min())) if len(last) and _divided(last) else 1
            return digits, max(1, common) / 10**digits, bool(on.all())
    return 0, 0.0, False


def _shaped(source: Source, column: NumberColumn, x: np.ndarray) -> NumberColumn:
    """Return a column with its few values or its atoms, and its map."""
    values, counts = np.unique(x, return_counts=True)
    update: dict[str, Any] = {}
    bounds = Bounds.of(source.choice)
    few = len(values) == 1 or (bounds is None and len(values) <= FEW and _repeated(x))
    if bounds is not None and not few:
        column = _bounded(source, column, bounds)
    cells = (column.high - column.low) / column.step + 1 if column.step else math.inf
    gaps = len(values) < (_FULL if column.step == 1 else 1) * cells
    if few and (len(values) == 1 or gaps):
        update["values"] = tuple(values.tolist())
    elif not few and (source.map is not None or cells >= _FINE):  # maps of quantiles suffice
        places = np.argsort(-counts)[:_MOST_ATOMS]
        common = places[counts[places] >= max(_ATOM * len(x), _REPEATS)]
        update["atoms"] = tuple(sorted(values[common].tolist()))
        rest = x[~np.isin(x, values[common])]
        if bounds is None:
            update |= {"low": float(rest.min()), "high": float(rest.max())}
    chosen = source.choice if source.choice in MAPS else source.map
    if chosen is not None:
        update["map"] = chosen
    if update.get("map") == "log" and column.low < 0:
        row = int(np.nanargmin(encode(column, source)))
        raise source.refused(f"row {row} holds {x.min():g}, and a logarithm needs 0", "normal")
    return column.model_copy(update=update)


def _bounded(source: Source, column: NumberColumn, bounds: Bounds) -> NumberColumn:
    """Return a column with declared bounds.

    Raises:
        DataError: dates or times; a number outside the bounds, with the bounds that include it.
    """
    if is_date(column.format) or exact.is_time(source.values.type):
        raise source.refused(f"bounds {source.choice} are for numbers, and it holds times", "date")
    inside = bounds.applied(column)
    x = encode(column, source)
    outside = np.flatnonzero((x < inside.low) | (x > inside.high))
    if len(outside):
        low, high = column.low, column.high
        if not column.format:
            low, high = decode(column, np.array([low, high]), source.values.type).to_pylist()
        row = int(outside[0])
        raise source.refused(
            f"row {row} holds {source.values[row]}, which is outside {source.choice}",
            f"{low}..{high}",
        )
    return inside


# --- values and back ------------------------------------------------------------------------------


def encode(column: Column, source: Source) -> np.ndarray:
    """Return the values of a source as float64 ``(N,)``: numbers or codes, NaN where missing.

    Raises:
        DataError: a value that the column cannot have.
    """
    if isinstance(column, CategoryColumn):
        return _codes(column, source)
    from pyarrow import types

    kind = source.values.type
    if column.format:
        texts = _texts(source)
        values = read_texts(texts, column.format)
        if values.null_count > texts.null_count:
            place = int(np.flatnonzero(exact.missing(values) & ~exact.missing(texts))[0])
            raise DataError(
                f"{source.table}, item {place}, column {column.name}: {texts[place].as_py()!r}, "
                f"but the run has {'dates' if is_date(column.format) else 'numbers'} as "
                f"{column.format}."
            )
        source = Source(source.table, source.name, values)
    elif is_text(kind) or types.is_boolean(kind):
        shown = _texts(source).drop_null()
        if len(shown):
            raise DataError(
                f"{source.table}, column {column.name} holds texts such as {shown[0].as_py()!r}: "
                "the run was trained on numbers."
            )
        return np.full(len(source.values), np.nan)
    absent = exact.missing(source.values)
    if types.is_floating(source.values.type) or types.is_null(kind):
        return exact.as_float64(source.values)
    numbers = exact.whole_numbers(source.values)
    if column.offset or column.unit > 1:
        above = numbers.view(np.uint64) - np.uint64(column.offset % 2**64)
        x = above.view(np.int64) / column.unit
    else:
        digits = column.digits if column.format else exact.decimals(source.values.type)
        x = numbers.astype(np.float64) / 10**digits
    return np.where(absent, np.nan, x)


def _codes(column: CategoryColumn, source: Source) -> np.ndarray:
    import pyarrow
    from pyarrow import compute

    texts = _texts(source)
    codes = compute.index_in(texts, value_set=pyarrow.array(column.labels, "string"))
    absent, unknown = exact.missing(texts), exact.missing(codes)
    if (unknown & ~absent).any():
        text = texts[int(np.flatnonzero(unknown & ~absent)[0])].as_py()
        labels = ", ".join(map(repr, column.labels))
        raise DataError(
            f"{source.table}, column {column.name} holds {text!r}: the run has {labels}."
        )
    return np.asarray(codes.cast("float64").to_numpy(zero_copy_only=False), float)


def decode(column: Column | None, x: np.ndarray, kind: Any) -> Any:
    """Return numbers or codes ``(N,)`` as an Arrow array of a type; NaN is null."""
    from pyarrow import types

    absent = np.isnan(x)
    x = np.where(absent, 0.0, x)
    if isinstance(column, CategoryColumn):
        every = column.every or column.labels
        places = np.array([*map(every.index, column.labels), 0])
        return labelled(every, places[x.astype(np.int64)], absent, kind)
    if column is not None and (column.format or exact.is_whole(kind)):
        digits = column.digits if column.format else exact.decimals(kind)
        digits = 0 if column.unit > 1 or column.offset else digits
        near = np.rint(x * 10**digits).astype(np.int64)
        whole = near.view(np.uint64) * np.uint64(column.unit) + np.uint64(column.offset % 2**64)
        whole = whole if types.is_uint64(kind) else whole.view(np.int64)
        if not column.format:
            return exact.from_whole(whole, absent, kind)
        import pyarrow

        return write_texts(pyarrow.array(whole, mask=absent), column.format).cast(kind)
    import pyarrow

    return pyarrow.array(x, mask=absent).cast(kind, safe=False)


def labelled(labels: tuple[str, ...], codes: np.ndarray, absent: np.ndarray, kind: Any) -> Any:
    """Return codes ``(N,)`` of labels as an Arrow array of a type."""
    import pyarrow
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    if not labels:
        return pyarrow.nulls(len(codes), kind)
    every, places = pyarrow.array(labels, "string"), pyarrow.array(codes, "int64", mask=absent)
    if not types.is_dictionary(kind):
        return every.take(places).cast(plain)
    places = places.cast(kind.index_type)
    return pyarrow.DictionaryArray.from_arrays(places, every.cast(plain), ordered=kind.ordered)


def check_choices(choices: Mapping[str, str], names: tuple[str, ...], table: str) -> None:
    """Reject choices of columns that are absent, and choices that do not exist.

    Raises:
        DataError: naming the first.
    """
    for name, choice in choices.items():
        if name not in names:
            raise DataError(f"columns={name!r}: {table} has the columns {first_few(names)}.")
        if choice not in CHOICES and Bounds.of(str(choice)) is None:
            raise DataError(
                f"columns={choice!r} of {name}: choose one of {', '.join(CHOICES)}, or bounds such "
                "as 0..100."
            )
