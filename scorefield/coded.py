"""Frozen values as JSON and back, bit for bit: dataclasses of a closed set, numbers and times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

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
        return known[kind](**{k: decode(v, kinds) for k, v in fields.items()})
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{kind} is no kind that is known, or has not such fields: {error}."
        ) from (error)
