"""Configurations of others: JSON that is read, and checked against what is known of it."""

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
        CheckpointError: a file that is missing, too large, or no such thing.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        values = json.loads(text) if len(text) <= _LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is no configuration: it holds no JSON object.")
    return values


def given(config: str | Path | Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """Return a configuration, and where it was said: in its own file, or with the weights.

    Raises:
        CheckpointError: as `read_json`.
    """
    if isinstance(config, Mapping):
        return config, where
    return read_json(Path(config)), str(config)


@contextmanager
def agreeing(source: str, kind: type[ValueError] = UsageError) -> Iterator[None]:
    """Say of settings that contradict each other which they are, in one line.

    Raises:
        kind: naming the first that a configuration made of them does not take.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise kind(f"{source}: {place}: {first['msg']}.") from None


def checked(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Return values as a model has them.

    Raises:
        UsageError: naming the first that it does not take.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] == "missing" else f" = {repr(first['input'])[:60]}"
        raise UsageError(f"{source}: {place}{given}: {first['msg']}.") from None
