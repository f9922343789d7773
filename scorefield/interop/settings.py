"""Configurations of other libraries: reading and validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from scorefield._internal import files, json_values
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.frozen import Frozen

_LARGEST = 2**20  # bytes

Model = TypeVar("Model", bound=BaseModel)


class Part(Frozen):
    """A part of the settings of another library; further entries have no effect here."""

    model_config = ConfigDict(extra="ignore")


def read_json(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """Return the JSON object of a file.

    Args:
        folder: that the file must lie in, links resolved.

    Raises:
        CheckpointError: a file that is missing, too large, or not a JSON object.
    """
    with files.reading(path, "", CheckpointError):
        values = json_values.parse(files.read(path, _LARGEST, folder))
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a configuration: it must contain a JSON object.")
    return values


def read_config(
    config: str | Path | Mapping[str, Any] | None, where: str, content: str
) -> tuple[Mapping[str, Any], str]:
    """Return a configuration and its place: its own file, or that of the weights, ``where``.

    Args:
        content: description of the configuration.

    Raises:
        UsageError: a missing configuration.
        CheckpointError: as `read_json`.
    """
    if config is None:
        raise UsageError(f"config=None: {where} needs a configuration: give {content}.")
    if isinstance(config, Mapping):
        return config, where
    return read_json(Path(config)), str(config)


@contextmanager
def one_line_errors(source: str, kind: type[ValueError] = UsageError) -> Iterator[None]:
    """Reduce a validation error in the block to one line.

    Raises:
        kind: with the first setting that a model rejects.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        plain = isinstance(first["input"], str | int | float | list | tuple)
        value = f"={repr(first['input'])[:60]}" if plain else ""
        raise kind(f"{source}: {place}{value}: {first['msg']}.") from None


def validate(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Return a model of values.

    Raises:
        UsageError: with the first value that it rejects.
    """
    with one_line_errors(source):
        return model.model_validate(dict(values))
