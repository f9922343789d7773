"""The configuration of data: its shape, its classes and its columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from scorefield._internal.frozen import Frozen


def numbered(count: int) -> tuple[str, ...]:
    """Return what columns without names are called: by their places, from 0."""
    return tuple(map(str, range(count)))


class ColumnsConfig(Frozen):
    """What the columns of vectors hold; those that are not named below are continuous numbers.

    Attributes:
        names: of the columns; ``0, 1, ...`` if there are none.
        whole: columns of whole numbers, with the least and the greatest.
        categories: columns of text or of truth values, which are codes ``0, 1, ...`` in order; an
            empty text stands for a missing value.
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
        architecture: the name of its class there.
        arguments: what its class is made with, as the JSON text of an object.
        scale: of the latents, after the shift.
        shift: of the latents.
    """

    architecture: Literal["AutoencoderKL", "VQModel"]
    arguments: str = Field(max_length=65536)
    scale: PositiveFloat = 1.0
    shift: float = 0.0


class DataConfig(Frozen):
    """What the network was trained on.

    Attributes:
        name: the source as it was given.
        shape: of one sample, as the data has it.
        count: of samples; None for a run that was imported.
        classes: 0 unless the run is conditional.
        class_names: what they are called, if they have names.
        columns: of vectors.
        layer: of a file of cells, unless it was the main matrix.
        codec: what makes the latents that were learned of pictures, unless they were themselves.
    """

    name: str
    shape: tuple[PositiveInt, ...] = Field(min_length=1, max_length=3)
    count: PositiveInt | None = None
    classes: int = Field(default=0, ge=0)
    class_names: tuple[str, ...] = ()
    columns: ColumnsConfig = ColumnsConfig()
    layer: str | None = None
    codec: CodecConfig | None = None
