"""The configuration of data: its shape, its conditions and its columns."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_serializer,
    model_validator,
)

from scorefield._internal.errors import DataError
from scorefield._internal.frozen import Frozen


def numbered(count: int) -> tuple[str, ...]:
    """Return the names of columns without names: their positions, from 0."""
    return tuple(map(str, range(count)))


Kind = Literal["vectors", "signals", "images", "volumes"]
Channels = Literal["first", "last"]


class ReadingConfig(Frozen):
    """Choices in reading a source, each None for the default; see `scorefield.data.read`.

    Attributes:
        key: the array of an archive.
        matrix: of cells.
        layout: the kind of samples in an array.
        channels: the place of their channels.
        background: the colour under transparent pixels.
        resize: width and height that images are scaled to cover.
        crop: width and height of the middle of images.
    """

    key: str | None = None
    matrix: str | None = None
    layout: Kind | None = None
    channels: Channels | None = None
    background: str | None = None
    resize: str | None = None
    crop: str | None = None

    @classmethod
    def of(cls, **choices: Any) -> ReadingConfig:
        """Return choices from arguments, numbers as texts.

        Raises:
            DataError: a kind of samples or a place of channels that does not exist.
        """
        texts = {name: None if value is None else str(value) for name, value in choices.items()}
        try:
            return cls.model_validate(texts)
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0])
            raise DataError(f"{name}={choices[name]!r}: {problem['msg'].lower()}.") from None

    def over(self, other: ReadingConfig) -> ReadingConfig:
        """Return these choices, and those of another where there are none."""
        return other.model_copy(update=self.model_dump(exclude_none=True))


Map = Literal["standard", "log", "logit", "normal"]
MOST_KNOTS = 257


class _Column(Frozen):
    """A column of a table.

    Attributes:
        name: of the column.
        missing: whether values may be missing.
    """

    name: str
    missing: bool = False


class NumberColumn(_Column):
    """A column of numbers, dates or times: ``value = offset + unit x`` with ``x`` in float64.

    Attributes:
        low, high: the least and the greatest ``x``.
        step: of the grid ``low + k step`` that the numbers are on; 0 without one.
        digits: the number of decimals of ``x``, if it has a grid.
        on_grid: whether all numbers are on the grid, and not only nearly all.
        values: all numbers of the column, if they are few and not a whole grid.
        atoms: numbers that many rows share, among others that are spread.
        offset, unit: whole numbers.
        map: the increasing map to the coordinates of the field.
        knots: of the map normal: quantiles of the numbers at equally spaced shares.
        mean, std: of the mapped numbers that are not atoms; the coordinate has 0 and 1.
        format: of dates that are written as texts or whole numbers, as for ``strftime``.
    """

    kind: Literal["number"] = "number"
    low: float
    high: float
    step: float = Field(default=0.0, ge=0)
    digits: int = Field(default=0, ge=-38, le=38)
    on_grid: bool = True
    values: tuple[float, ...] = ()
    atoms: tuple[float, ...] = Field(default=(), max_length=16)
    offset: int = 0
    unit: int = Field(default=1, ge=1)
    map: Map = "standard"
    knots: tuple[float, ...] = Field(default=(), max_length=MOST_KNOTS)
    mean: float = 0.0
    std: PositiveFloat = 1.0
    format: str = Field(default="", max_length=64)


class CategoryColumn(_Column):
    """A column of texts, truth values or numbers without order, whose codes are their positions.

    Attributes:
        labels: the texts of the values; empty for a column without any.
        ordered: whether neighbours in the list are alike.
        every: all labels of the column's type in their order, if it has others too.
    """

    kind: Literal["category"] = "category"
    labels: tuple[str, ...] = ()
    ordered: bool = False
    every: tuple[str, ...] = ()


Column = Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")]


class ColumnsConfig(Frozen):
    """The columns of vectors.

    Attributes:
        names: of the columns; ``0, 1, ...`` if empty.
        kinds: the columns of a table; empty for vectors of continuous numbers.
        arrow: the schema of the table with all its columns, as base64 of Arrow's message.
        quantiles: the number of knots of the maps that are fitted after training; 0 without them.
    """

    names: tuple[str, ...] = ()
    kinds: tuple[Column, ...] = ()
    arrow: str = ""
    quantiles: int = Field(default=0, ge=0, le=MOST_KNOTS)

    @field_serializer("kinds")
    def _briefly(self, kinds: tuple[Column, ...]) -> list[dict[str, Any]]:
        return [{"kind": c.kind, **c.model_dump(exclude_defaults=True)} for c in kinds]

    @model_validator(mode="before")
    @classmethod
    def _refuse_old(cls, values: Any) -> Any:
        old = {"whole", "categories", "constant", "missing", "target"}
        if isinstance(values, dict) and any(values.get(name) for name in old - {"target"}):
            raise ValueError("its columns are those of an earlier version: train the run again")
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if name not in old}
        return values


# arguments of fields, networks and of the functions that call them
RESERVED = (
    "self",
    "x",
    "t",
    "at",
    "label",
    "x0",
    "eps",
    "denoiser",
    "field",
    "n",
    "seed",
    "progress",
)


class _Channel(Frozen):
    """A condition of samples.

    Attributes:
        name: of the condition.
        column: whether it is a column of the table of the samples.
    """

    name: str = Field(min_length=1, max_length=1000)
    column: bool = False

    @property
    def key(self) -> str:
        """The name of the argument of a field that it is."""
        return f"{self.name}_" if self.name in RESERVED else self.name


class ClassChannel(_Channel):
    """A class.

    Attributes:
        count: the number of classes.
        names: of the classes, if they have names.
        shares: of the classes in the data.
    """

    kind: Literal["class"] = "class"
    count: PositiveInt
    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()


class _Scaled(_Channel):
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[PositiveFloat, ...] = Field(min_length=1)

    @property
    def size(self) -> int:
        """The number of numbers of a row."""
        return len(self.mean)


class NumbersChannel(_Scaled):
    """One or more numbers.

    Attributes:
        log: whether the logarithms are taken first.
        mean, std: of each number, or of its logarithm.
        low, high: of each number in the data.
    """

    kind: Literal["numbers"] = "numbers"
    log: bool = False
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class EmbeddingChannel(_Scaled):
    """A name that stands for a row of a table of vectors.

    Attributes:
        names: of the rows.
        rows: the vectors, float32 ``(rows, size)``, as base64.
        mean, std: of each coordinate.
    """

    kind: Literal["embedding"] = "embedding"
    names: tuple[str, ...] = Field(min_length=1)
    rows: str = Field(max_length=2**26)


class SetChannel(_Scaled):
    """A set of any number of vectors.

    Attributes:
        mean, std: of each coordinate.
        most: the number of vectors of the largest set in the data.
    """

    kind: Literal["set"] = "set"
    most: PositiveInt = 1


class ImageChannel(_Channel):
    """A signal, an image or a volume.

    Attributes:
        shape: channels and sides.
        mean, std: of all its values.
    """

    kind: Literal["image"] = "image"
    shape: tuple[PositiveInt, ...] = Field(min_length=2, max_length=4)
    mean: float
    std: PositiveFloat


Channel = Annotated[
    ClassChannel | NumbersChannel | EmbeddingChannel | SetChannel | ImageChannel,
    Field(discriminator="kind"),
]


EXAMPLES = 64  # of the conditions in the data, in a run
_ROWS = 2048  # of conditions that are columns, which samples have too
_NUMBERS = 2**20  # at most, in more examples than 64


def value_shape(channel: ClassChannel | _Scaled | ImageChannel) -> tuple[int, ...]:
    """Return the shape of one value of a condition."""
    if isinstance(channel, _Scaled):
        most = (channel.most,) if isinstance(channel, SetChannel) else ()
        return (*most, channel.size)
    return channel.shape if isinstance(channel, ImageChannel) else ()


class CodecConfig(Frozen):
    """An autoencoder of diffusers, for pictures from -1 to 1.

    Attributes:
        architecture: the name of its class in diffusers.
        arguments: arguments of that class, as the JSON text of an object.
        scale: of the latents, after the shift.
        shift: of the latents.
    """

    architecture: Literal["AutoencoderKL", "VQModel"]
    arguments: str = Field(max_length=65536)
    scale: PositiveFloat = 1.0
    shift: float = 0.0


CodecKind = Literal["pca", "vae", "nb"]


class TrainedCodecConfig(Frozen):
    """A codec that was trained here, whose latents are vectors.

    Attributes:
        kind: principal components, a variational autoencoder, or that of counts.
        size: the number of latents; counts have one more, the library size.
        width: of the hidden layers; not of principal components.
    """

    kind: CodecKind
    size: PositiveInt = Field(le=2**12)
    width: PositiveInt = Field(default=128, le=2**14)


Form = Literal["vector", "angles", "latlon", "xyz", "quaternion", "matrix", "euler"]

LONGEST = 1000  # characters of the name of a space


class PointsConfig(Frozen):
    """The points of a space in the columns of data.

    Attributes:
        space: its name, as for `scorefield.spaces.parse`; empty for data that is not of points.
        forms: of the columns of each part of the space, as for `scorefield.data.points.declared`.
        angles: the unit of angles.
        positive: the columns of angles from 0 to a full turn; others are from minus half a turn.
    """

    space: str = Field(default="", max_length=LONGEST)
    forms: tuple[Form, ...] = ()
    angles: Literal["degrees", "radians"] = "radians"
    positive: tuple[NonNegativeInt, ...] = ()


class DataConfig(Frozen):
    """The data that a network was trained on.

    Attributes:
        name: of the source.
        shape: of one sample.
        count: the number of samples; None for an imported run.
        conditions: that the network takes.
        lengths: the lengths of signals and the shares of the data that have them, if they differ;
            the last is that of ``shape``.
        columns: of vectors.
        points: that the samples are, on a space.
        reading: choices in reading the source.
        codec: the codec, if the field is one of latents.
        source: the data set in the place of noise, of a run that translates from it.
    """

    name: str
    shape: tuple[PositiveInt, ...] = Field(min_length=1, max_length=4)
    count: PositiveInt | None = None
    conditions: tuple[Channel, ...] = ()
    lengths: tuple[tuple[PositiveInt, PositiveFloat], ...] = ()
    columns: ColumnsConfig = ColumnsConfig()
    points: PointsConfig = PointsConfig()
    reading: ReadingConfig = ReadingConfig()
    codec: CodecConfig | TrainedCodecConfig | None = None
    source: str | None = None

    @property
    def baseline(self) -> str:
        """The estimate that errors on held-out data are divided by the error of."""
        if self.points.space:
            return "no score at low noise"
        return "a Gaussian" if self.source is None else "no translation"

    @field_serializer("conditions")
    def _briefly(self, channels: tuple[Channel, ...]) -> list[dict[str, Any]]:
        return [{"kind": c.kind, **c.model_dump(exclude_defaults=True)} for c in channels]

    @model_validator(mode="before")
    @classmethod
    def _refuse_old(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("classes"):
            raise ValueError("its classes are those of an earlier version: train the run again")
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if "class" not in name}
        return values

    @model_validator(mode="after")
    def _distinct(self) -> DataConfig:
        if len({channel.key for channel in self.conditions}) < len(self.conditions):
            raise ValueError("two conditions have the same name")
        there = [length for length, _ in self.lengths]
        if there and (len(self.shape) != 2 or there != sorted({*there, self.shape[1]})):
            raise ValueError("lengths do not rise to that of a signal")
        return self

    @property
    def examples(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the conditions that a run has examples of, by their keys.

        A single class needs none.
        """
        if self.classes is not None:
            return {}
        shapes = {channel.key: value_shape(channel) for channel in self.conditions}
        most = _NUMBERS // max(1, sum(map(math.prod, shapes.values())))
        count = max(EXAMPLES, min(_ROWS, most)) if self.are_columns else EXAMPLES
        return {key: (count, *shape) for key, shape in shapes.items()}

    @property
    def are_columns(self) -> bool:
        """Whether there are conditions, and all of them are columns of the samples' table."""
        return bool(self.conditions) and all(channel.column for channel in self.conditions)

    @property
    def classes(self) -> ClassChannel | None:
        """The condition, if there is one and it is a class."""
        only = self.conditions[0] if len(self.conditions) == 1 else None
        return only if isinstance(only, ClassChannel) else None
