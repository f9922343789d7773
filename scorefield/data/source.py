"""Reading data: from files, built-in sets and objects to samples, or a clear error."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scorefield._internal import sizes
from scorefield._internal.errors import DataError, UsageError
from scorefield.data.axes import Axes, axes_of
from scorefield.data.builtin import BUILTIN, builtin
from scorefield.data.conditions import Conditions, columns_of, entries, read_conditions
from scorefield.data.config import (
    Channel,
    Channels,
    ColumnsConfig,
    DataConfig,
    Kind,
    NumberColumn,
    PointsConfig,
    ReadingConfig,
    numbered,
)
from scorefield.data.contents import ALL, Contents, Use, first_few
from scorefield.data.dialect import Dialect
from scorefield.data.formats import read_file
from scorefield.data.layout import Layout, Survey, select, survey
from scorefield.data.objects import from_object
from scorefield.data.rows import Rows, chunks, is_rows
from scorefield.data.tabular import Choices, Table

if TYPE_CHECKING:
    from scorefield.spaces import Space

Missing = Literal["refuse", "drop", "keep"]

IN_MEMORY = 2**30  # bytes; larger data is read when it is needed
_COPIES = 8  # of a sample, in the survey of all
_COARSEST = 0.01  # deviations that float32 may round by
_SMALLEST, _LARGEST = 1e-30, 1e38  # within which float32 squares and sums without loss
_ADVICE = {
    "c": " Stack the real and the imaginary part, as two channels.",
    "O": " Convert the objects, as by x.astype(float).",
    **dict.fromkeys("SUT", " Texts are read in the columns of a table."),
    **dict.fromkeys("mM", " Subtract a date, and divide by a unit of time."),
}


@dataclass(frozen=True, init=False)
class Data:
    """Samples, and their conditions where there are any.

    A float32 tensor is taken as it is, and so is an object of your own with ``shape``, a length
    and samples by index ``x[items]``; anything else as `read` takes it.

    Attributes:
        x: float32, or float64 for a table, ``(N, ...)``: ``(N, D)`` vectors, ``(N, C, L)`` signals,
            ``(N, C, H, W)`` images; a tensor, or rows that are read when they are needed.
        conditions: of the samples, such as classes; as `read` takes them.
        name: of the data, in messages.
        columns: the kinds of the columns of vectors.
        incomplete: the number of samples with missing values.
        reading: choices in reading the source.
        points: that the samples are, on a space.
        notes: one line on each choice that was made in reading it.
    """

    x: Rows
    conditions: Conditions
    name: str
    columns: ColumnsConfig
    incomplete: int
    reading: ReadingConfig
    notes: tuple[str, ...]
    points: PointsConfig

    def __init__(
        self,
        x: Any,
        conditions: Any = None,
        name: str = "data",
        columns: ColumnsConfig = ColumnsConfig(),
        incomplete: int = 0,
        reading: ReadingConfig = ReadingConfig(),
        notes: tuple[str, ...] = (),
        points: PointsConfig = PointsConfig(),
    ) -> None:
        if not is_rows(x) and not columns.arrow:
            data = read(x, conditions, name=name)
            values = [getattr(data, field.name) for field in fields(self)]
        else:
            if not isinstance(conditions, Conditions):
                conditions = _conditions(conditions, x, name)
            for key, value in conditions.values.items():
                if len(value) != len(x):
                    raise DataError(f"condition {key} has {len(value)} rows for {len(x)} samples.")
            values = [x, conditions, name, columns, incomplete, reading, notes, points]
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


def _conditions(
    conditions: Any,
    x: Rows,
    name: str,
    embeddings: Any = None,
    like: Sequence[Channel] | None = None,
) -> Conditions:
    """Return the conditions of samples in memory."""
    contents: Any = Contents(x)  # type: ignore[arg-type]
    shape = tuple(x.shape[1:])
    return read_conditions(entries(conditions), contents, name, shape, embeddings, like)[0]


def read(
    source: Any,
    conditions: Any = None,
    *,
    embeddings: Mapping[str, Any] | Sequence[str] | None = None,
    name: str | None = None,
    learn: bool = True,
    missing: Missing | None = None,
    without: str | tuple[str, ...] = (),
    key: str | None = None,
    matrix: str | None = None,
    layout: Kind | None = None,
    channels: Channels | None = None,
    background: str | None = None,
    resize: int | str | None = None,
    crop: int | str | None = None,
    like: DataConfig | None = None,
    columns: str | Sequence[str] | Mapping[str, str] | None = None,
    space: str | Space | None = None,
    angles: str | None = None,
    in_memory: int = IN_MEMORY,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    comment: str | None = None,
    header: bool | None = None,
    na: str | tuple[str, ...] | None = None,
) -> Data:
    """Read a built-in set by name, a file, a folder of images, or an object in memory.

    Files are ``.npy``; ``.npz`` with one array or one named ``x``; tables of numbers and texts, a
    row for each sample: ``.csv``, ``.tsv``, ``.txt``, ``.jsonl``, their ``.gz``, and ``.parquet``;
    ``.h5ad``, cells × genes; ``.idx``, ``-ubyte`` and their ``.gz``, as MNIST comes.

    An array ``(N, D)`` holds vectors, ``(N, C, L)`` signals, ``(N, C, H, W)`` images and
    ``(N, C, D, H, W)`` volumes. Signals may have several lengths: NaN after the end of each, or a
    list of arrays ``(L,)``, ``(C, L)`` or ``(L, C)``. A last axis of at most four is one of
    channels if the first is larger; ``(N, H, W)`` of unsigned bytes, or of squares from eight, are
    grey images. ``layout`` and ``channels`` declare anything else. ``digits`` is the training
    split, and ``digits-test`` the held-out split.

    In memory: tensors, arrays, sparse matrices; lists of images of Pillow, or of their paths;
    tables of pandas, polars and others that have the Arrow C interface or ``__dataframe__``;
    AnnData objects.

    Args:
        source: a name from `BUILTIN`, a path, or an object; a file of such a name is ``./moons``.
        conditions: of the samples, by which a field is conditional: a mapping of names to values,
            to columns of the data, to files or to kinds; a table whose columns are conditions; the
            text ``dose=log,drug,low=low.npy``; or the values of one condition, ``y``. Texts and
            integers are classes, -1 for an unknown one; ``(N,)`` and ``(N, D)`` numbers are
            numbers; ``(N, C, *sides)`` is an image for each sample; a list of ``(n, D)`` is a set
            of vectors. Kinds are class, number, log, embedding, set and image. The default for a
            folder of images is the names of its subfolders.
        embeddings: for conditions that are names of vectors, the table of vectors by the condition:
            a file or a table with a column of names and columns of numbers, or a mapping; or texts
            such as ``drug=vectors.csv``.
        name: what messages call the data; the default is the source, or ``data`` for an object.
        learn: refuse data that no distribution can be learned from.
        missing: the treatment of missing values in vectors: refuse them, drop their samples, or
            keep them and learn where they are. The default is to keep them in tables and to refuse
            them elsewhere. In images and signals they can be kept only with ``learn=False``.
        without: columns to leave out.
        key: the array of an ``.npz`` file.
        matrix: the matrix of cells: ``X``, ``raw``, ``layers/NAME`` or ``obsm/NAME``.
        layout: the kind of samples in an array; vectors are flattened.
        channels: the place of an array's channels.
        background: the colour under transparent pixels of images; the default is white.
        resize: pixels, ``64`` or ``"64x48"`` (width and height), that images are scaled to cover;
            the rest is cut off.
        crop: pixels in the middle of images to keep, without scaling.
        like: data of a run, whose columns are selected by name and whose conditions are read.
        columns: the kinds of columns of a table by name, such as
            ``{"price": "log", "day": "date", "id": "drop"}``; the others are detected. Kinds are
            number, whole, date, category, ordered, drop, or the map of a number: standard, log,
            logit, normal. A single word is for all numbers: quantile, the default, for maps that
            are fitted after training; standard, or normal, without them. With a space, the names
            of the columns of its points, in order, ``"lat,lon"``.
        space: that the rows are points of, one of `scorefield.spaces` or its name, such as
            ``"sphere"`` or ``"so3:quaternion,euclidean:3"`` for a product; see
            `scorefield.data.points` for the forms of columns.
        angles: of points, ``"degrees"`` or ``"radians"``; the default is degrees for latitudes and
            longitudes.
        in_memory: bytes; larger data is read when it is needed.
        delimiter, decimal, encoding, comment, header, na: of a table of text, as in
            `scorefield.data.dialect.Dialect`; the default is to detect them.

    Raises:
        DataError: the name or file is unknown, cannot be read, has an unsuitable shape or type,
            holds values that are not finite, or has no samples; with ``learn``, fewer than two
            samples, or none that differ.
        UsageError: angles without a space.
    """
    without = (without,) if isinstance(without, str) else without
    path = isinstance(source, str | Path)
    if isinstance(source, str) and not source.strip():
        raise DataError("the data has an empty name: pass a path, or the name of a built-in set.")
    name = name or (str(source) if path else "data")
    if space is None:
        check_without_space(angles)
    explicit = ReadingConfig.of(
        key=key,
        matrix=matrix,
        layout=layout,
        channels=channels,
        background=background,
        resize=resize,
        crop=crop,
    )
    if path and str(source) in BUILTIN:
        _check_choices(explicit, (), name)
        x, y = builtin(str(source))
        if conditions is None and (like is None or like.classes is not None):
            conditions = y
        learned = None if like is None else like.conditions
        data = Data(x, _conditions(conditions, x, name, embeddings, learned), name)
        return data if space is None else as_points(data, space, angles, learn)
    choices = explicit if like is None else explicit.over(like.reading)
    dialect = Dialect(delimiter, decimal, encoding, comment, header, na)
    of_points = () if space is None or columns is None else _names(columns)
    kinds: Any = None if of_points else columns
    of_columns = Choices.of(kinds)
    wanted = entries(conditions)
    columns_asked = columns_of(wanted)
    use = Use.of(columns_asked, (*without, *of_columns.dropped), like, dialect, of_columns.texts)
    use = replace(use, names=of_points or use.names)
    contents = read_contents(source, choices, use, name)
    contents, axes = _checked(contents, explicit, choices, name, like)
    others = columns_asked & {*contents.names}
    ours, learned = (None, None) if like is None else (like.columns, like.conditions)
    if contents.table is not None:
        values, notes = read_conditions(wanted, contents, name, (1,), embeddings, learned)
        table = Table(contents.table, name, of_columns, frozenset(others))
        if space is not None:
            ours, missing = (
                _point_columns(contents.names, of_points, others, name),
                missing or "refuse",
            )
        data = _of_table(table, values, ours, missing or "keep", learn)
        data = replace(data, reading=choices, notes=(*contents.notes, *notes))
        return data if space is None else as_points(data, space, angles, learn)
    if columns:
        raise DataError(f"columns={columns!r}: {name} is not a table.")
    samples = select(contents, axes, (*without, *others), name, ours)
    if ours is not None and ours.arrow:
        samples = replace(samples, dtype=np.float64)
    policy = missing or ("keep" if like else "refuse")
    anywhere = missing == "keep" and not learn
    varies = learn if like is None else bool(like.lengths)
    ends = axes.kind == "signals" and varies and missing in (None, "keep")
    facts = survey(samples, name, policy, anywhere and not ends, ends)
    if learn:
        _check_count(len(facts.keep), name)
    rows = samples.rows(facts.keep, in_memory)
    about = ours or ColumnsConfig(names=samples.names)
    if learn:
        _check_resolved(facts, samples, name)
        about = _array_columns(facts, samples, name)
    shape = tuple(rows.shape[1:])
    values, notes = read_conditions(wanted, contents, name, shape, embeddings, learned)
    values, notes = values.rows(facts.keep), (*contents.notes, *notes)
    data = Data(rows, values, name, about, facts.incomplete, choices, notes)
    return data if space is None else as_points(data, space, angles, learn)


def as_points(data: Data, space: str | Space, angles: str | None, learn: bool = True) -> Data:
    """Return data whose columns are points of a space; the arguments are those of `read`.

    Raises:
        DataError: columns that are not such points; a table that was read without the space.
    """
    from scorefield.data.points import Points, declared, notes_of, with_turns

    if data.columns.arrow:
        raise DataError(
            f"space={str(space)!r}: {data.name} was read as a table without a space; read it with "
            "one, as in scorefield.read(path, space='sphere', columns='lat,lon')."
        )
    points = declared(space, math.prod(data.shape), angles, data.name)
    names = data.columns.names
    notes = notes_of(points, names, data.name) if names else []
    encoding, bounds = Points(points, data.shape, data.columns.names), []
    for chunk in chunks(data.x):
        encoding.check(chunk, data.name)
        bounds.append(torch.stack(chunk.flatten(1).aminmax(dim=0)))
    low, high = torch.stack(bounds)[:, 0].amin(0), torch.stack(bounds)[:, 1].amax(0)
    if learn:
        encoding.check_varies(low, high, data.name)
    points = with_turns(points, low.tolist(), high.tolist())
    degrees = angles is None and points.forms == ("latlon",)
    if degrees and float(torch.maximum(-low, high).max()) <= 2 * math.pi:
        notes.append(
            "angles are read as degrees, though none is beyond 6.2832; angles declares radians"
        )
    columns, noted = ColumnsConfig(names=names), tuple(dict.fromkeys((*data.notes, *notes)))
    return replace(data, columns=columns, points=points, notes=noted)


def check_without_space(angles: str | None) -> None:
    """Reject a unit of angles without a space.

    Raises:
        UsageError: with the argument to add.
    """
    if angles is not None:
        raise UsageError(
            f"angles={angles!r}: the unit of points of a space; give it too, as in space='torus:2'."
        )


def _names(columns: str | Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the columns of points."""
    return (
        tuple(each.strip() for each in columns.split(","))
        if isinstance(columns, str)
        else tuple(columns)
    )


def _point_columns(
    there: Sequence[str], wanted: Sequence[str], others: Set[str], name: str
) -> ColumnsConfig:
    """Return the columns of points in a table: the named ones, or all except conditions.

    Raises:
        DataError: a column that is not there.
    """
    for column in wanted:
        if column not in there:
            raise DataError(f"columns={column!r}: {name} has no such column.")
    rest = tuple(column for column in there if column not in others)
    return ColumnsConfig(names=tuple(wanted) or rest)


def _of_table(
    table: Table,
    conditions: Conditions,
    like: ColumnsConfig | None,
    missing: Missing,
    learn: bool,
) -> Data:
    """Return the data of a table; the arguments are those of `read`."""
    vectors = table.vectors(like)
    absent = vectors.x.isnan().any(1)
    keep = ~absent if missing == "drop" else torch.ones_like(absent)
    if missing == "refuse":
        table.check_complete(vectors)
    if not bool(keep.all()):
        vectors = table.among(keep.numpy()).vectors(like)
    if learn:
        _check_count(len(vectors.x), table.name)
    if learn and bool(
        (vectors.x[1:].nan_to_num(nan=math.inf) == vectors.x[:1].nan_to_num(nan=math.inf)).all()
    ):
        raise DataError(f"{table.name} has only equal rows: they have no density.")
    return Data(vectors.x, conditions.rows(keep), table.name, vectors.columns, int(absent.sum()))


def _check_count(count: int, name: str) -> None:
    if count < 2:
        raise DataError(f"{name} has {count} sample(s): a distribution needs two or more.")


def as_data(source: Any, conditions: Any = None, **options: Any) -> Data:
    """Return data as it is, and anything else through `read`; with conditions unless None.

    Args:
        options: those of `read`.

    Raises:
        DataError: as `read`.
    """
    if not isinstance(source, Data):
        return read(source, conditions, **options)
    space = options.get("space")
    data = source if space is None else as_points(source, space, options.get("angles"))
    like, embeddings = options.get("like"), options.get("embeddings")
    channels = None if like is None else like.conditions
    if conditions is not None:
        own = _conditions(conditions, data.x, data.name, embeddings, channels)
        return replace(data, conditions=own)
    if channels is None:
        return data
    return replace(data, conditions=data.conditions.under(channels))


def read_contents(
    source: Any,
    choices: ReadingConfig = ReadingConfig(),
    use: Use = ALL,
    name: str = "data",
) -> Contents:
    """Return the contents of a file, a folder or an object; the arguments are those of `read_file`.

    Raises:
        DataError: it does not exist, it cannot be read, or a single sample is too large.
    """
    if not isinstance(source, str | Path):
        return from_object(source, name, choices, use)
    path = Path(source)
    if not path.exists():
        close = difflib.get_close_matches(str(source), BUILTIN, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Built in: {', '.join(BUILTIN)}."
        raise DataError(f"data {source}: no such file, and no such built-in set. {hint}")
    contents = read_file(path, choices, use)
    sample, there = contents.values.shape[1:], sizes.memory()
    if _COPIES * 8 * math.prod(sample) > there:
        raise DataError(
            f"{source} has samples of shape {sample}, which take "
            f"{sizes.words(8 * math.prod(sample))} each, and there are {sizes.words(there)} of "
            "memory."
        )
    return contents


def _check_choices(explicit: ReadingConfig, options: tuple[str, ...], name: str) -> None:
    for option, value in explicit.model_dump(exclude_none=True).items():
        if option not in options:
            has = f"only {', '.join(options)} apply" if options else "leave it out"
            raise DataError(f"{option}={value!r}: {name} has no such choice; {has}.")


def _checked(
    contents: Contents,
    explicit: ReadingConfig,
    choices: ReadingConfig,
    name: str,
    like: DataConfig | None,
) -> tuple[Contents, Axes]:
    """Return contents with notes, and the axes of their values.

    Raises:
        DataError: a choice that the source does not have; values that are not numbers; no samples.
    """
    _check_choices(explicit, contents.options, name)
    shape, kind = contents.values.shape, contents.values.dtype
    if kind.kind not in "biuf":
        raise DataError(
            f"{name} holds values of type {kind}: needs numbers.{_ADVICE.get(kind.kind, '')}"
        )
    axes, guessed = contents.axes, False
    if axes is None and 2 <= len(shape) <= 5 and 0 not in shape[1:]:
        sample = None if like is None else like.shape
        axes, guessed = axes_of(name, shape, kind == np.uint8, choices, sample)
    if axes is None:
        raise DataError(
            f"{name} has shape {shape}: needs (N, D) vectors, (N, C, L) signals, (N, C, H, W) "
            "images or (N, C, D, H, W) volumes."
            + " Write x[:, None] for N numbers."
            * (len(shape) == 1)
        )
    if shape[0] == 0:
        raise DataError(f"{name} has no samples.")
    if guessed:
        note = f"shape {shape} is read as {axes}; layout and channels declare another"
        logging.getLogger(__name__).warning("%s: %s", name, note)
        contents = replace(contents, notes=(*contents.notes, note))
    return contents, axes


def _check_resolved(survey: Survey, samples: Layout, name: str) -> None:
    """Refuse features or channels that float32 does not resolve or cannot sum.

    Raises:
        DataError: naming the first.
    """
    size = np.fmax(np.abs(survey.low), np.abs(survey.high)).astype(np.float64)
    spread = survey.moments.variance.sqrt().numpy()
    coarse = size * 2.0**-24 > _COARSEST * spread
    changes = spread > 1e-14 * size  # beyond what summing in float64 may leave of a constant
    bad = np.flatnonzero(changes & (coarse | (spread < _SMALLEST) | (size > _LARGEST)))
    if len(bad):
        k = int(bad[0])
        which = f"column {samples.names[k]}" if samples.names else f"feature or channel {k}"
        raise DataError(
            f"{name} has values of size {size[k]:.3g} in {which} that spread by {spread[k]:.3g}, "
            "which float32 does not resolve: subtract a common offset, or change the unit."
        )


def _array_columns(survey: Survey, samples: Layout, name: str) -> ColumnsConfig:
    """Return the columns of vectors without types: constant, with missing values, or plain.

    Raises:
        DataError: only constant columns; a column without values; a constant channel.
    """
    vectors = samples.axes.kind == "vectors"
    constant = (survey.low == survey.high) & ((survey.missing == 0) | (not vectors))
    if constant.any() and (not vectors or constant.all()):
        kind = "feature" if vectors else "channel"
        places = np.flatnonzero(constant).tolist()
        raise DataError(
            f"{name} has {len(places)} constant {kind}(s), {first_few(places)}: they have no "
            "density. Remove them."
        )
    config = ColumnsConfig(names=samples.names)
    if not vectors or not (constant.any() or survey.missing.any()):
        return config
    names, moments = samples.names or numbered(len(constant)), survey.moments
    std, kinds = moments.variance.sqrt(), []
    for k, column in enumerate(names):
        low, high = float(survey.low[k]), float(survey.high[k])
        if not low <= high:
            raise DataError(
                f"{name}, column {column} holds no values: leave it out with "
                f'without="{column}", or use missing="drop".'
            )
        facts: dict[str, Any] = {"name": column, "missing": bool(survey.missing[k])}
        facts |= {"low": low, "high": high}
        if low == high:
            kinds.append(NumberColumn(**facts, values=(low,)))
        else:
            kinds.append(NumberColumn(**facts, mean=float(moments.mean[k]), std=float(std[k])))
    return config.model_copy(update={"kinds": tuple(kinds)})
