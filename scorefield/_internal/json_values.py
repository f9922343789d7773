"""Frozen values as JSON and back, bit for bit: dataclasses of a closed set, numbers and times.

A file of them says in its first entry what it is, and of which version.
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

from scorefield._internal.atomic_files import write

VERSION, LARGEST = 1, 2**25  # of files, and bytes of one
KIND, VALUES = "kind", "values"
_NUMBER, _TIMES = "number", "times"


def encode(value: Any, kinds: Iterable[type]) -> Any:
    """Return what JSON can hold for a value: a dataclass as its kind and fields.

    Raises:
        ValueError: a value of no kind that `decode` would take.
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
        f"{value!r} cannot be written: {type(value).__name__} is none of the kinds that can be "
        "read."
    )


def decode(held: Any, kinds: Iterable[type]) -> Any:
    """Return the value that `encode` made ``held`` of.

    Raises:
        ValueError: what no value of these kinds is.
    """
    kinds = tuple(kinds)
    if isinstance(held, list):
        return tuple(decode(item, kinds) for item in held)
    if not isinstance(held, dict):
        return held
    kind, fields = str(held.get(KIND)), {k: v for k, v in held.items() if k != KIND}
    known = {k.__name__: k for k in kinds}
    try:
        if kind == _NUMBER:
            return float(fields[VALUES])
        if kind == _TIMES:
            return torch.tensor(fields[VALUES], dtype=torch.float64)
        return known[kind](
            **_checked(known[kind], {k: decode(v, kinds) for k, v in fields.items()})
        )
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{kind} is no kind that is known, or has not such fields: {error}."
        ) from (error)


def _checked(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a kind if they are of its types."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(
                f"{kind.__name__} has {name} = {value!r}, of another type than it needs."
            )
    return fields


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return isinstance(value, int | float)
    return not isinstance(hint, type) or isinstance(value, hint)


def write_file(path: str | PathLike[str], what: str, held: Mapping[str, Any]) -> None:
    """Write JSON of a kind of file, at once or not at all.

    Raises:
        StorageError: there is no room for it.
    """
    text = json.dumps({what: VERSION, **held}, indent=1, allow_nan=False)
    write(Path(path), lambda file: file.write(f"{text}\n".encode()))


def read_file(path: str | PathLike[str], what: str) -> dict[str, Any]:
    """Return what `write_file` was given.

    Raises:
        ValueError: the file holds something else, or is larger than any of these.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    try:
        held = json.loads(text)
    except RecursionError:
        raise ValueError("it is too deep") from None
    version = held.pop(what, None) if isinstance(held, dict) else None
    if version != VERSION:
        raise ValueError(f"it is no {what} of version {VERSION}")
    found: dict[str, Any] = held
    return found
