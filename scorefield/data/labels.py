"""The classes of samples: from a file, a column, an array, or the folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.contents import MOST_CLASSES, Coded, Contents, coded, first_few, whole
from scorefield.data.formats import read_file
from scorefield.data.objects import array, texts


def classes_of(contents: Contents, labels: Any, name: str) -> tuple[Coded | None, tuple[str, ...]]:
    """Return the classes that labels stand for, and the columns that hold them.

    Raises:
        DataError: neither a file nor a column; classes that do not match the samples.
    """
    count = contents.values.shape[0]
    if labels is None:
        return contents.classes, ()
    if not isinstance(labels, str | Path):
        return array_labels(labels, count), ()
    text = str(labels)
    if text in contents.by_name:
        return _checked(contents.by_name[text](), count, f"{name}, {text}"), ()
    if text in contents.names:
        return _checked(_column(contents, text, name), count, f"{name}, column {text}"), (text,)
    if not Path(labels).exists():
        there = (*contents.by_name, *contents.names)
        raise DataError(
            f"labels={text}: no such file, and no such column in {name}"
            + (f", which has {first_few(there)}." if there else ".")
        )
    return Coded(file_labels(Path(labels), count), ()), ()


def file_labels(path: Path, count: int) -> np.ndarray:
    """Return the classes of a file, int64 ``(count,)`` from 0.

    Raises:
        DataError: another shape or type, or classes that do not count from 0.
    """
    return _counted(whole(read_file(path).values), count, str(path), 0)


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


def _column(contents: Contents, column: str, name: str) -> Coded:
    """Return the classes of a column of texts or of whole numbers."""
    every = np.arange(contents.values.shape[0])
    values = contents.values[every][:, contents.names.index(column)]
    missing = np.isnan(values)
    if column in contents.labels:
        codes = np.where(missing, -1, values).astype(np.int64)
        return Coded(codes, contents.labels[column])
    if not bool((values[~missing] == np.floor(values[~missing])).all()):
        raise DataError(f"{name}, column {column} holds numbers that are not whole: no classes.")
    labels = np.unique(values[~missing])
    codes = np.where(missing, -1, np.searchsorted(labels, values)).astype(np.int64)
    return Coded(codes, tuple(f"{value:.0f}" for value in labels))


def _checked(classes: Coded, count: int, where: str) -> Coded:
    if len(classes.codes) != count:
        raise DataError(f"{where} has {len(classes.codes)} items, but the data has {count}.")
    if not 0 < len(classes.labels) <= min(MOST_CLASSES, count // 2):
        raise DataError(
            f"{where} has {len(classes.labels)} different values for {count} samples: too many "
            "for classes."
            if classes.labels
            else f"{where} has no values."
        )
    return classes
