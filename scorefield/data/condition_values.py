"""Values of a condition whose kind is declared or follows from them, as a channel and a tensor."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data import exact
from scorefield.data.channels import encode
from scorefield.data.config import (
    Channel,
    ClassChannel,
    EmbeddingChannel,
    ImageChannel,
    NumbersChannel,
    SetChannel,
)
from scorefield.data.contents import Coded
from scorefield.data.labels import Labels, array_labels
from scorefield.data.objects import array, texts
from scorefield.data.table import read as read_table


def numbers_or_texts(values: Any) -> np.ndarray:
    """Return the values of an Arrow column as float64, or as texts."""
    from pyarrow import types

    if exact.is_number(values.type) and not types.is_boolean(values.type):
        return exact.as_float64(values)
    return texts(np.array(values.to_pylist(), object))


@dataclass(frozen=True)
class ConditionValues:
    """The values of a condition, before their kind is determined.

    Attributes:
        name: of the condition.
        source: classes, or values.
        count: of the samples.
        shape: of a sample.
    """

    name: str
    source: Any
    count: int
    shape: tuple[int, ...]

    def fitted(self, kind: str | None, table: Any) -> tuple[Channel, Tensor]:
        """Return the channel that the values make up, and the values as a network takes them."""
        if isinstance(self.source, Labels):
            assert self.source.classes is not None
            return self._classes(self.source.classes)
        values = _as_array(self.source)
        kind = self._kind(values) if kind is None or not values.ndim else kind
        self._check(len(values))
        if kind == "class":
            is_text = values.dtype.kind == "f" and not bool((values == np.floor(values)).all())
            return self._classes(array_labels(_as_texts(values) if is_text else values, self.count))
        if kind == "embedding":
            return self._embedding(_as_texts(values), table)
        if values.dtype.kind not in "biuf" and values.dtype != object:
            raise self._error(f"holds values of type {values.dtype}, and needs numbers")
        if kind == "set":
            return self._set(values)
        numbers = torch.from_numpy(np.array(values, np.float64))
        if not bool(numbers.isfinite().all()):
            item = int((~numbers.isfinite()).reshape(self.count, -1).any(1).nonzero()[0])
            raise self._error(f"is not finite in sample {item}: leave the sample out")
        return self._image(numbers) if kind == "image" else self._numbers(numbers, kind == "log")

    def encoded(self, channel: Channel) -> Tensor:
        """Return the values as a network takes them that has learned a channel."""
        values = self.source
        if isinstance(values, Labels):
            assert values.classes is not None
            codes, labels = values.classes
            values = [labels[k] if labels and k >= 0 else int(k) for k in codes.tolist()]
        else:
            values = _as_array(values)
            if isinstance(channel, EmbeddingChannel) and values.ndim == 1:
                values = _as_texts(values)
        value = encode(channel, values)
        self._check(len(value))
        return value

    def _check(self, count: int) -> None:
        if count != self.count:
            raise self._error(f"has {count} rows, and the data has {self.count} samples")

    def _error(self, problem: str) -> DataError:
        return DataError(f"condition {self.name} {problem}.")

    def _kind(self, values: np.ndarray) -> str:
        """Return the kind of values of which it was not declared."""
        if values.ndim == 0:
            raise self._error("is one value: give one for each sample")
        if values.dtype == object or (values.ndim == 3 and len(self.shape) == 1):
            return "set"
        if values.ndim == 3 and len(self.shape) == 3:
            raise self._error(
                f'has shape {values.shape}: write (N, 1, H, W) for images, or ("set", values) for '
                "sets of vectors"
            )
        if values.ndim == 1 + len(self.shape) and values.ndim > 2:
            return "image"
        if values.ndim == 1 and values.dtype.kind != "f":
            return "class"
        if values.ndim in (1, 2) and values.dtype.kind in "biuf":
            return "number"
        raise self._error(
            f"has shape {values.shape} and type {values.dtype}: give texts or integers for classes,"
            " (N,) or (N, D) numbers, an image for each sample, or a list of sets of vectors"
        )

    def _classes(self, classes: Coded) -> tuple[Channel, Tensor]:
        y = torch.from_numpy(classes.codes)
        self._check(len(y))
        count = len(classes.labels) or int(y.max()) + 1
        sizes = torch.bincount(y[y >= 0], minlength=count)
        shares = tuple((sizes / sizes.sum()).tolist())
        return ClassChannel(name=self.name, count=count, names=classes.labels, shares=shares), y

    def _numbers(self, numbers: Tensor, log: bool) -> tuple[Channel, Tensor]:
        numbers = numbers.reshape(len(numbers), -1)
        low, high = numbers.amin(0), numbers.amax(0)
        if log and bool((low <= 0).any()):
            raise self._error(f"holds {float(low.min()):g}, which has no logarithm: use number")
        scaled = numbers.log() if log else numbers
        mean, std = self._moments(scaled)
        channel = NumbersChannel(
            name=self.name,
            log=log,
            mean=mean,
            std=std,
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
        )
        return channel, encode(channel, numbers.numpy())

    def _moments(self, values: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        mean, std = values.mean(0), values.std(0, correction=0)
        if bool((std <= 1e-12 * mean.abs()).any()):
            raise self._error("has the same value for every sample: leave it out")
        return tuple(mean.tolist()), tuple(std.tolist())

    def _embedding(self, values: np.ndarray, table: Any) -> tuple[Channel, Tensor]:
        if table is None:
            raise self._error("has names, and no vectors for them: give embeddings")
        rows = _vectors(table, self.name)
        vectors = torch.from_numpy(np.stack([*rows.values()]))
        std = vectors.double().std(0, correction=0)
        channel = EmbeddingChannel(
            name=self.name,
            names=tuple(rows),
            rows=base64.b64encode(vectors.numpy().tobytes()).decode(),
            mean=tuple(vectors.double().mean(0).tolist()),
            std=tuple(torch.where(std > 0, std, 1.0).tolist()),
        )
        return channel, encode(channel, list(map(str, values)))

    def _set(self, values: np.ndarray) -> tuple[Channel, Tensor]:
        sets = [np.asarray(each, np.float64) for each in values]
        sizes = {each.shape[-1] for each in sets if each.ndim == 2}
        if len(sizes) != 1 or any(each.ndim != 2 for each in sets):
            raise self._error(
                "holds sets of vectors that do not have one size: give (n, size) each"
            )
        every = torch.from_numpy(np.concatenate(sets))
        if bool(every.isinf().any()):
            raise self._error("holds infinite numbers")
        mean, std = self._moments(every[~every.isnan().any(1)])
        channel = SetChannel(name=self.name, mean=mean, std=std, most=max(map(len, sets)))
        return channel, encode(channel, sets)

    def _image(self, numbers: Tensor) -> tuple[Channel, Tensor]:
        if numbers.ndim != 1 + len(self.shape) or len(self.shape) < 2:
            raise self._error(
                f"has shape {tuple(numbers.shape)}, and a sample {self.shape}: an image needs as "
                "many sides as the sample"
            )
        mean, std = float(numbers.mean()), float(numbers.std(correction=0))
        if not std > 0:
            raise self._error("has the same value everywhere: leave it out")
        shape = tuple(numbers.shape[1:])
        channel = ImageChannel(name=self.name, shape=shape, mean=mean, std=std)
        return channel, encode(channel, numbers.numpy())


def _as_texts(values: np.ndarray) -> np.ndarray:
    """Return texts, of numbers too; whole ones without a decimal point."""
    if values.dtype.kind != "f":
        return values.astype(str)
    return np.array(
        [f"{value:.0f}" if value == np.floor(value) else str(value) for value in values]
    )


def _as_array(source: Any) -> np.ndarray:
    """Return values as an array; of objects if they are sets of different sizes."""
    if isinstance(source, list | tuple) and len({np.shape(each) for each in source}) > 1:
        result = np.empty(len(source), object)
        result[:] = [np.asarray(each) for each in source]
        return result
    if hasattr(source, "to_pylist") and hasattr(source, "type"):  # a column of Arrow
        return numbers_or_texts(source)
    values = array(source)
    return texts(values) if values.dtype.kind in "OUST" else values


def _vectors(table: Any, name: str) -> dict[str, np.ndarray]:
    """Return the rows of a table of vectors by their names.

    Raises:
        DataError: a table without a column of names and columns of finite numbers; names twice.
    """
    if isinstance(table, Mapping):
        rows = {str(k): np.asarray(v, np.float32).reshape(-1) for k, v in table.items()}
    else:
        arrow = read_table(
            table if not isinstance(table, str) else Path(table), f"embeddings of {name}"
        )
        names = [str(text) for text in arrow.column(0).to_pylist()]
        places = range(1, arrow.num_columns)
        if other := [k for k in places if not exact.is_number(arrow.column(k).type)]:
            raise DataError(
                f"embeddings of {name}: column {arrow.column_names[other[0]]} holds no numbers."
            )
        columns = [exact.as_float64(arrow.column(k)) for k in places]
        if not columns:
            raise DataError(f"embeddings of {name}: needs a column of names, and numbers after it.")
        matrix = np.stack(columns, 1).astype(np.float32)
        if len({*names}) < len(names):
            raise DataError(f"embeddings of {name}: a name is there twice.")
        rows = dict(zip(names, matrix, strict=True))
    sizes = {row.shape for row in rows.values()}
    if len(sizes) != 1 or not all(np.isfinite(row).all() for row in rows.values()):
        raise DataError(f"embeddings of {name}: needs rows of the same number of finite numbers.")
    return rows
