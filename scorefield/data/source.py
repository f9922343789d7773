"""Reading data: from a file or a built-in set to samples to learn from, or a clear refusal."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scorefield._internal import sizes
from scorefield._internal.errors import DataError
from scorefield.data.builtin import BUILTIN, builtin
from scorefield.data.columns import MISSING
from scorefield.data.config import ColumnsConfig, DataConfig, numbered
from scorefield.data.contents import Contents, first_few
from scorefield.data.formats import read_file
from scorefield.data.labels import array_labels, classes_of, file_labels
from scorefield.data.layout import Layout, layout
from scorefield.data.objects import from_object
from scorefield.data.rows import Rows, is_rows
from scorefield.data.survey import Survey, survey
from scorefield.data.use import ALL, Use

Missing = Literal["refuse", "drop", "keep"]

IN_MEMORY = 2**30  # bytes; what is larger is read as it is needed
_COPIES = 8  # of a sample, where all are looked at
_COARSEST = 0.01  # deviations that float32 may round by
_SMALLEST, _LARGEST = 1e-30, 1e38  # within which float32 squares and sums without loss
_WHOLE = 2.0**24  # above this float32 does not hold every whole number


@dataclass(frozen=True, init=False)
class Data:
    """Samples, and their classes where there are any.

    A float32 tensor is taken as it is, and so is an object of your own with ``shape``, a length
    and samples by index ``x[items]``; anything else as `read` takes it.

    Attributes:
        x: float32 ``(N, ...)``: ``(N, D)`` vectors, ``(N, C, L)`` signals, ``(N, C, H, W)`` images;
            a tensor, or read as it is asked for.
        y: int64 ``(N,)`` classes from 0, -1 where a sample's is not known; or None.
        name: what to call it in messages.
        class_names: of the classes, if they have names.
        columns: what the columns of vectors hold.
        incomplete: how many samples had missing values.
        layer: of a file of cells, unless it is the main matrix.
    """

    x: Rows
    y: Tensor | None
    name: str
    class_names: tuple[str, ...]
    columns: ColumnsConfig
    incomplete: int
    layer: str | None

    def __init__(
        self,
        x: Any,
        y: Any = None,
        name: str = "data",
        class_names: tuple[str, ...] = (),
        columns: ColumnsConfig = ColumnsConfig(),
        incomplete: int = 0,
        layer: str | None = None,
    ) -> None:
        if not is_rows(x):
            made = read(x, y, name=name)
            values = [getattr(made, field.name) for field in fields(self)]
        else:
            if not (y is None or (isinstance(y, Tensor) and y.dtype is torch.int64)):
                codes, labels = array_labels(y, len(x))
                y, class_names = torch.from_numpy(codes), class_names or labels
            values = [x, y, name, class_names, columns, incomplete, layer]
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether one sample is ``(C, H, W)``."""
        return len(self.shape) == 3

    @property
    def classes(self) -> int:
        """How many classes there are; 0 without labels."""
        if self.y is None:
            return 0
        return len(self.class_names) or int(self.y.max()) + 1


def read(
    source: Any,
    labels: Any = None,
    *,
    name: str | None = None,
    learn: bool = True,
    missing: Missing | None = None,
    without: tuple[str, ...] = (),
    layer: str | None = None,
    like: DataConfig | None = None,
    in_memory: int = IN_MEMORY,
) -> Data:
    """Read a built-in set by name, a file, a folder of images, or an object in memory.

    Files are ``.npy``; ``.npz`` with one array or one named ``x``; tables, ``.csv`` and
    ``.parquet``, of numbers and texts, a row for each sample; ``.h5ad``, cells × genes; ``.idx``,
    ``-ubyte`` and their ``.gz``, as MNIST comes.

    An array ``(N, D)`` holds vectors, ``(N, C, L)`` signals and ``(N, C, H, W)`` images. Images
    with the channels last are turned, and ``(N, H, W)`` of unsigned bytes are grey images. Of
    `digits` this is the training split, and ``digits-test`` is what was held out.

    In memory: tensors, arrays, sparse matrices; tables of pandas, polars and others that have the
    Arrow C interface or ``__dataframe__``; AnnData objects.

    Args:
        source: a name from `BUILTIN`, a path, or an object; a file of such a name is ``./moons``.
        labels: classes: a file of ``N`` integers from 0; a column of the table, or of ``obs`` of
            cells; or a tensor, an array or a list of integers or texts. The default for a folder of
            images is the names of its subfolders.
        name: what messages call the data; the default is the source, or ``data`` for an object.
        learn: refuse what a distribution cannot be learned from.
        missing: what to do about missing values in vectors: refuse them, drop the samples, or keep
            them and learn where they are; keep for tables and refuse for the rest unless given. To
            keep them in images and signals they must not be learned from.
        without: columns to leave out.
        layer: of an .h5ad file, instead of ``X``.
        like: of a run: columns are found by their names, and texts by its labels.
        in_memory: bytes; data that is larger is read as it is asked for.

    Raises:
        DataError: the name or file is unknown, cannot be read, has an unsuitable shape or type,
            holds values that are not finite, has no samples; to learn from: fewer than two, or
            nothing that changes.
    """
    path = isinstance(source, str | Path)
    name = name or (str(source) if path else "data")
    if path and str(source) in BUILTIN:
        x, y = builtin(str(source))
        return Data(x, y if labels is None else _classes(labels, len(x)), name)
    if like is not None and layer is None and (hasattr(source, "obs") or name.endswith(".h5ad")):
        layer = like.layer
    contents = read_contents(source, layer, Use.of(labels, without, like), name)
    _check(contents, name)
    classes, taken = classes_of(contents, labels, name)
    ours = None if like is None else like.columns
    made = layout(contents, (*without, *taken), name, ours)
    policy = missing or ("keep" if contents.typed or like else "refuse")
    found = survey(made, name, policy, anywhere=missing == "keep" and not learn)
    if learn and len(found.keep) < 2:
        raise DataError(
            f"{name} has {len(found.keep)} sample(s): a distribution needs two or more."
        )
    rows = made.rows(found.keep, in_memory)
    columns = ours or ColumnsConfig(names=made.names)
    if learn:
        _check_resolved(found, made, name)
        columns = _columns(found, made, contents.typed, name)
    y = None if classes is None else torch.from_numpy(classes.codes[found.keep])
    class_names = () if classes is None else classes.labels
    return Data(rows, y, name, class_names, columns, found.incomplete, layer)


def _classes(labels: Any, count: int) -> Any:
    path = isinstance(labels, str | Path)
    return torch.from_numpy(file_labels(Path(labels), count)) if path else labels


def as_data(source: Any, y: Any = None, **options: Any) -> Data:
    """Return data as it is, or what `read` makes of anything else; with classes, if any are given.

    Args:
        options: those of `read`.

    Raises:
        DataError: as `read`.
    """
    if not isinstance(source, Data):
        return read(source, y, **options)
    if y is None:
        return source
    return replace(source, y=_classes(y, len(source.x)), class_names=())


def read_contents(
    source: Any, layer: str | None = None, use: Use = ALL, name: str = "data"
) -> Contents:
    """Return the contents of a file, a folder or an object; the arguments are those of `read_file`.

    Raises:
        DataError: there is none, it cannot be read, or a single sample is too large.
    """
    if not isinstance(source, str | Path):
        return from_object(source, name, layer, use)
    path = Path(source)
    if not path.exists():
        close = difflib.get_close_matches(str(source), BUILTIN, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Built in: {', '.join(BUILTIN)}."
        raise DataError(f"there is no data {source}: no such file, no such built-in set. {hint}")
    contents = read_file(path, layer, use)
    sample, there = contents.values.shape[1:], sizes.memory()
    if _COPIES * 8 * math.prod(sample) > there:
        raise DataError(
            f"{source} has samples of shape {sample}, which take "
            f"{sizes.words(8 * math.prod(sample))} each, and there are {sizes.words(there)} of "
            "memory."
        )
    return contents


def _check(contents: Contents, name: str) -> None:
    shape, kind = contents.values.shape, contents.values.dtype
    if kind.kind not in "biuf":
        raise DataError(f"{name} holds values of type {kind}: needs numbers.")
    if not 2 <= len(shape) <= 4 or 0 in shape[1:]:
        raise DataError(
            f"{name} has shape {shape}: needs (N, D) vectors, (N, C, L) signals or "
            "(N, C, H, W) images." + " Write x[:, None] for N numbers." * (len(shape) == 1)
        )
    if shape[0] == 0:
        raise DataError(f"{name} has no samples.")


def _check_resolved(found: Survey, made: Layout, name: str) -> None:
    """Refuse features, or channels, that float32 cannot tell apart or sum.

    Raises:
        DataError: naming the first.
    """
    size = np.fmax(np.abs(found.low), np.abs(found.high)).astype(np.float64)
    spread = found.moments.variance.sqrt().numpy()
    coarse = size * 2.0**-24 > _COARSEST * spread
    changes = spread > 1e-14 * size  # beyond what summing in float64 may leave of a constant
    bad = np.flatnonzero(changes & (coarse | (spread < _SMALLEST) | (size > _LARGEST)))
    if len(bad):
        k = int(bad[0])
        which = f"column {made.names[k]}" if made.names else f"feature or channel {k}"
        raise DataError(
            f"{name} has values of size {size[k]:.3g} in {which} that spread by {spread[k]:.3g}, "
            "which float32 does not resolve: subtract what they have in common, or change the "
            "unit."
        )


def _columns(found: Survey, made: Layout, typed: bool, name: str) -> ColumnsConfig:
    """Return what the columns of vectors hold, by the rules of `scorefield.data.columns`.

    Raises:
        DataError: nothing that changes; a column without values, or with one value and missing
            ones; a channel that never changes.
    """
    constant = (found.low == found.high) & (found.missing == 0)
    vectors = len(made.values.shape) == 2
    if not vectors or constant.all():
        if constant.any():
            what = "feature" if vectors else "channel"
            places = np.flatnonzero(constant).tolist()
            raise DataError(
                f"{name} has {len(places)} constant {what}(s), {first_few(places)}: they have "
                "no density. Remove them."
            )
        return ColumnsConfig()
    whole, categories, fixed, partly = {}, {}, {}, {}
    for k, column in enumerate(made.names or numbered(len(constant))):
        low, high = float(found.low[k]), float(found.high[k])
        if column in made.labels:
            categories[column] = (*made.labels[column], *([MISSING] if found.missing[k] else []))
            continue
        if constant[k]:
            fixed[column] = low
        elif typed and found.whole[k] and max(abs(low), abs(high)) < _WHOLE:
            whole[column] = (low, high)
        if found.missing[k]:
            if not low < high:
                raise DataError(
                    f"{name}, column {column} holds {'no values' if low != low else 'one value'} "
                    f"besides {found.missing[k]} missing value(s): leave it out with --without "
                    f"{column}, or say --missing drop."
                )
            moments = found.moments
            partly[column] = (float(moments.mean[k]), float(moments.variance[k].sqrt()))
    return ColumnsConfig(
        names=made.names, whole=whole, categories=categories, constant=fixed, missing=partly
    )
