"""Frozen values as JSON and back, bit for bit: dataclasses of a closed set, numbers and times.

The first entry of a file is its kind and version.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from scorefield._internal import files
from scorefield._internal.atomic_files import write
from scorefield._internal.errors import CheckpointError

VERSION, LARGEST = 1, 2**23  # of files, and bytes of one
KIND, VALUES = "kind", "values"
_NUMBER, _TIMES = "number", "times"


def encode(value: Any, kinds: Iterable[type]) -> Any:
    """Return a value in JSON's types: a dataclass as its kind and fields.

    Raises:
        ValueError: a value that `decode` would not take.
    """
    kinds = tuple(kinds)
    if isinstance(value, float) and not math.isfinite(value):
        return {KIND: _NUMBER, VALUES: str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [encode(item, kinds) for item in value]
    if isinstance(value, Tensor) and value.ndim == 1:
        return {KIND: _TIMES, VALUES: value.double().tolist()}
    if type(value) in kinds:
        fields = {f.name: encode(getattr(value, f.name), kinds) for f in dataclasses.fields(value)}
        return {KIND: type(value).__name__, **fields}
    raise ValueError(
        f"{value!r} cannot be written: {type(value).__name__} is not one of the kinds that can be "
        "read."
    )


def decode(coded: Any, kinds: Iterable[type]) -> Any:
    """Return the value that `encode` has coded.

    Raises:
        ValueError: it is not a value of these kinds.
    """
    kinds = tuple(kinds)
    if isinstance(coded, list):
        return tuple(decode(item, kinds) for item in coded)
    if not isinstance(coded, dict):
        if isinstance(coded, int) and not -(2**63) <= coded < 2**64:
            raise ValueError(f"{coded} is too large a number.")
        return coded
    kind, fields = str(coded.get(KIND)), {k: v for k, v in coded.items() if k != KIND}
    classes = {k.__name__: k for k in kinds}
    try:
        if kind == _NUMBER:
            return float(fields[VALUES])
        if kind == _TIMES:
            return torch.tensor(fields[VALUES], dtype=torch.float64)
        values = {k: decode(v, kinds) for k, v in fields.items()}
        return classes[kind](**_checked(classes[kind], values))
    except (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"{kind} is not a kind, or does not have these fields: {error}."
        ) from error


def _checked(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a kind, or raise `ValueError` for one of another type."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(
                f"{kind.__name__} has {name} = {value!r}, of another type than it needs."
            )
    return fields


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if len(parts) == 2 and parts[1] is Ellipsis:
            parts = parts[:1] * len(value) if isinstance(value, tuple) else ()
        return (
            isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
        )
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return isinstance(value, int | float)
    return not isinstance(hint, type) or isinstance(value, hint)


def write_file(path: str | PathLike[str], kind: str, values: Mapping[str, Any]) -> None:
    """Write JSON of a kind of file, as a whole or not at all.

    Raises:
        StorageError: it does not fit on the disk.
    """
    text = json.dumps({kind: VERSION, **values}, indent=1, allow_nan=False)
    write(Path(path), lambda file: file.write(f"{text}\n".encode()))


def read_file(path: str | PathLike[str], kind: str, folder: Path | None = None) -> dict[str, Any]:
    """Return the values of a file that `write_file` has written.

    Raises:
        CheckpointError: the file does not exist, or as `files.read`.
        ValueError: a file of another kind.
    """
    try:
        text = files.read(Path(path), LARGEST, folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {files.reason(error)}; give a file that save has written."
        ) from None
    values = parse(text)
    if not isinstance(values, dict) or values.pop(kind, None) != VERSION:
        raise ValueError(f"it is not a {kind} of version {VERSION}")
    return dict(values)


def parse(text: bytes) -> Any:
    """Return the value of a JSON text of a file.

    Raises:
        ValueError: it is not JSON, or it is too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is too deep") from None
