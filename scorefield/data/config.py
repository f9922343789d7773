"""The configuration of data: its shape, its classes and its columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

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

    def over(self, other: ReadingConfig) -> ReadingConfig:
        """Return these choices, and those of another where there are none."""
        return other.model_copy(update=self.model_dump(exclude_none=True))


class ColumnsConfig(Frozen):
    """The kinds of the columns of vectors; columns not listed here are continuous numbers.

    Attributes:
        names: of the columns; ``0, 1, ...`` if empty.
        whole: columns of whole numbers, with the least and the greatest.
        categories: columns of texts or truth values, with their labels, whose codes are their
            positions; an empty text stands for a missing value.
        constant: columns that never change, with their value.
        missing: columns of numbers that may be missing, with the mean and deviation of the rest.
    """

    names: tuple[str, ...] = ()
    whole: dict[str, tuple[float, float]] = Field(default={})
    categories: dict[str, tuple[str, ...]] = Field(default={})
    constant: dict[str, float] = Field(default={})
    missing: dict[str, tuple[float, float]] = Field(default={})

    @property
    def plain(self) -> bool:
        """Whether all are continuous numbers."""
        return not (self.whole or self.categories or self.constant or self.missing)


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


class DataConfig(Frozen):
    """The data that a network was trained on.

    Attributes:
        name: of the source.
        shape: of one sample.
        count: the number of samples; None for an imported run.
        classes: the number of classes; 0 for an unconditional run.
        class_names: names of the classes, if they have any.
        columns: of vectors.
        reading: choices in reading the source.
        codec: the autoencoder, if the field is one of latents.
    """

    name: str
    shape: tuple[PositiveInt, ...] = Field(min_length=1, max_length=4)
    count: PositiveInt | None = None
    classes: int = Field(default=0, ge=0)
    class_names: tuple[str, ...] = ()
    columns: ColumnsConfig = ColumnsConfig()
    reading: ReadingConfig = ReadingConfig()
    codec: CodecConfig | None = None
