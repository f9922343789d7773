"""The classes of samples: from a file, a column, an array, or the folders of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data import exact, kinds
from scorefield.data.contents import MOST_CLASSES, Coded, Contents, coded, first_few, whole
from scorefield.data.formats import read_file
from scorefield.data.images import natural
from scorefield.data.objects import array, texts
from scorefield.data.table import KINDS as TABLES, read

_USUAL = ("label", "labels", "class", "category", "target", "y")


class Labels(NamedTuple):
    """The classes of samples: None without any, the columns that hold them, and notes."""

    classes: Coded | None
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def classes_of(contents: Contents, labels: Any, name: str) -> Labels:
    """Return the classes that labels stand for.

    Raises:
        DataError: neither a file nor a column; classes that do not match the samples.
    """
    count = contents.values.shape[0]
    if labels is None:
        return Labels(contents.classes)
    if not isinstance(labels, str | Path):
        return Labels(array_labels(labels, count))
    text = str(labels)
    if text in contents.by_name:
        return Labels(_checked(contents.by_name[text](), count, f"{name}, {text}"))
    if text in contents.names:
        classes = _checked(classes_in(contents, text, name), count, f"{name}, column {text}")
        return Labels(classes, (text,))
    path = Path(labels)
    if not path.exists():
        there = (*contents.by_name, *contents.names, *contents.others)
        raise DataError(
            f"conditions={text}: no such file, and no such column in {name}"
            + (f", which has {first_few(there)}." if there else ".")
        )
    table = read(path, text) if path.suffix.lower() in TABLES else None
    if contents.items and table is not None and table.num_columns > 1:
        return _by_file(table, contents.items, text)
    if table is not None and table.num_columns == 1 and not _numeric(table):
        classes = _by_name(table.column(0), count, text)
    else:
        y = whole(read_file(path).values)
        if contents.items and len(y) != count:
            raise DataError(
                f"conditions={text}: {len(y)} labels for {count} images, {contents.items[0]} to "
                f"{contents.items[-1]}. Write a table with the names of the images."
            )
        classes = Coded(_counted(y, count, text, 0), ())
    return Labels(classes, (), tuple(_pairs(contents.items, classes)))


def _pairs(items: Sequence[str], classes: Coded) -> Iterator[str]:
    """Yield a note on images and labels that are paired by their order."""
    if items:
        some = sorted({*range(min(3, len(items))), len(items) - 1})
        codes = ((items[k], int(classes.codes[k])) for k in some)
        pairs = [
            f"{item} {classes.labels[code] if classes.labels else code}" for item, code in codes
        ]
        yield f"labels in the order of the names: {', '.join(pairs)}"


def _numeric(table: Any) -> bool:
    from pyarrow import types

    kind = table.schema.field(0).type
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _by_name(column: Any, count: int, where: str, order: Any = slice(None)) -> Coded:
    """Return the classes of a column of a table, in the natural order of their names."""
    codes, labels = coded(texts(np.array(column.to_pylist(), object)[order]))
    ranks = sorted(range(len(labels)), key=lambda k: natural(labels[k]))
    classes = Coded(np.append(np.argsort(ranks), -1)[codes], tuple(labels[k] for k in ranks))
    return _checked(classes, count, where)


def _by_file(table: Any, items: Sequence[str], where: str) -> Labels:
    """Return the classes of images from a table that names them.

    Raises:
        DataError: no column names the images; images without a row, and the other way round.
    """
    places: dict[str, int] = {}
    for form in (str, lambda item: Path(item).name, lambda item: Path(item).stem):
        keys = [form(item) for item in items]
        if len(set(keys)) == len(keys):
            places = dict(zip(keys, range(len(keys)), strict=True)) | places
    columns = {
        column: list(map(str, table.column(column).to_pylist())) for column in table.column_names
    }
    shares = {column: sum(cell in places for cell in cells) for column, cells in columns.items()}
    column = max(shares, key=lambda each: shares[each])
    if 2 * shares[column] < min(len(columns[column]), len(items)):
        raise DataError(
            f"conditions={where}: of its columns {first_few([*columns])} none names the images, as "
            f"{items[0]} does. Write one with their names, or only the classes, in the order of "
            "the names."
        )
    others = [other for other in columns if other != column]
    usual = [other for other in others if other.lower() in _USUAL] if len(others) > 1 else others
    if len(usual) != 1:
        raise DataError(
            f"conditions={where}: the classes are in one of its columns {first_few(others)}; call "
            "it label, or leave the others out."
        )
    cells = columns[column]
    rows = {places[cell] for cell in cells if cell in places}
    absent = [item for k, item in enumerate(items) if k not in rows]
    strange = [cell for cell in cells if cell not in places]
    if absent or strange or len(cells) != len(items):
        problems = {
            f"{len(absent)} images have no row ({first_few(absent)})": absent,
            f"{len(strange)} rows have no image ({first_few(strange)})": strange,
            f"{len(cells) - len({*cells})} rows repeat a name": len({*cells}) < len(cells),
        }
        raise DataError(f"conditions={where}: {', '.join(k for k, v in problems.items() if v)}.")
    order = np.argsort([places[cell] for cell in cells])
    place = f"{where}, column {usual[0]}"
    note = f"labels of column {usual[0]} of {where}, by the names in its column {column}"
    return Labels(_by_name(table.column(usual[0]), len(items), place, order), (), (note,))


def array_labels(labels: Any, count: int) -> Coded:
    """Return the classes of a tensor, an array or a list: integers from 0, or texts.

    Integers are the classes themselves, -1 for an unknown one; texts are coded in order.

    Raises:
        DataError: another number of them than ``count``, or numbers that are not such integers.
    """
    y = array(labels)
    if y.dtype.kind in "OUST" and y.shape == (count,):
        return _checked(coded(texts(y)), count, "y")
    return Coded(_counted(y, count, "y", -1), ())


def _counted(y: np.ndarray, count: int, where: str, least: int) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and bool((y == np.floor(y)).all())):
        y = y.astype(np.int64)  # from a table, whose numbers are all of one type
    if y.shape == (count,) and y.dtype.kind == "f":
        raise DataError(
            f"{where} holds {y[y != np.floor(y)][0]:g} of type {y.dtype}: needs {count} integers "
            "or texts; round the numbers, or make them a column of the data."
        )
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise DataError(
            f"{where} has shape {y.shape} and type {y.dtype}: needs {count} integers or texts, one "
            "a sample."
        )
    if y.min() < least or y.max() >= count:
        raise DataError(
            f"{where} holds labels from {y.min()} to {y.max()} for {count} samples: classes count "
            "from 0 without large jumps."
        )
    return y.astype(np.int64)


def classes_in(contents: Contents, column: str, name: str) -> Coded:
    """Return the classes in a column of texts, truth values or whole numbers."""
    if contents.table is None:
        texts_of_numbers = whole(contents.values)[:, contents.names.index(column)]
        return coded(np.array([f"{value:g}" for value in texts_of_numbers.tolist()]))
    from pyarrow import types

    values = contents.table[column]
    if types.is_floating(values.type):
        numbers = exact.as_float64(values)
        if not bool((numbers == np.floor(numbers))[~np.isnan(numbers)].all()):
            raise DataError(
                f"{name}, column {column} holds numbers that are not whole: no classes."
            )
        values = values.cast("int64", safe=False)
    source = kinds.Source(name, column, values)
    labels = kinds.category(source, most=MOST_CLASSES)
    codes = np.nan_to_num(kinds.encode(labels, source), nan=-1.0)
    return Coded(codes.astype(np.int64), labels.labels)


def _checked(classes: Coded, count: int, where: str) -> Coded:
    if len(classes.codes) != count:
        raise DataError(f"{where} has {len(classes.codes)} items, but the data has {count}.")
    if not 0 < len(classes.labels) <= min(MOST_CLASSES, count // 2):
        raise DataError(
            f"{where} has {len(classes.labels)} different values for {count} samples: too many "
            "for classes; declare the kind of a condition of numbers, as in NAME=number."
            if classes.labels
            else f"{where} has no values."
        )
    return classes
