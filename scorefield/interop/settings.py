"""Configurations of other libraries: reading and validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from scorefield._internal.errors import CheckpointError, UsageError

_LARGEST = 2**20  # bytes

Model = TypeVar("Model", bound=BaseModel)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        CheckpointError: a file that is missing, too large, or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        values = json.loads(text) if len(text) <= _LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a configuration: it must contain a JSON object.")
    return values


def read_config(
    config: str | Path | Mapping[str, Any], where: str
) -> tuple[Mapping[str, Any], str]:
    """Return a configuration and its place: its own file, or that of the weights, ``where``.

    Raises:
        CheckpointError: as `read_json`.
    """
    if isinstance(config, Mapping):
        return config, where
    return read_json(Path(config)), str(config)


@contextmanager
def one_line_errors(source: str, kind: type[ValueError] = UsageError) -> Iterator[None]:
    """Reduce a validation error in the block to one line.

    Raises:
        kind: with the first setting that a configuration rejects.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise kind(f"{source}: {_place(first)}: {first['msg']}.") from None


def validate(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Return a model of values.

    Raises:
        UsageError: with the first value that it rejects.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        value = "" if first["type"] == "missing" else f"={repr(first['input'])[:60]}"
        raise UsageError(f"{source}: {_place(first)}{value}: {first['msg']}.") from None


def _place(error: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in error["loc"])
