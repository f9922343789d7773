"""Values of conditions, as people write them, as the tensors that a network takes."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.data.config import (
    Channel,
    ClassChannel,
    EmbeddingChannel,
    ImageChannel,
    NumbersChannel,
    SetChannel,
)
from scorefield.data.contents import Coded, first_few

_DIGITS = 6  # that float32 has


def encode(channel: Channel, value: Any) -> Tensor:
    """Return the values of a condition, with a row for each sample or one for all.

    A class alone has the shape ``()``.

    Args:
        value: of a class, its number or its name, or a list or an array of them, -1 for none; of
            numbers, ``(size,)`` or a number, or ``(N, size)``; of an embedding, a name, a vector,
            or a list of them; of a set, ``(n, size)`` or a list of them; of an image, its array, or
            ``(N, *shape)``.

    Raises:
        UsageError: a value of another kind, shape or range than the values that were learned.
    """
    if isinstance(value, Tensor):
        value = value.numpy(force=True)
    elif hasattr(value, "to_numpy"):  # of pandas or polars
        value = value.to_numpy()
    if isinstance(channel, ClassChannel):
        return _classes(channel, value)
    if isinstance(channel, NumbersChannel):
        return _numbers(channel, value)
    if isinstance(channel, EmbeddingChannel):
        return _embedded(channel, value)
    if isinstance(channel, SetChannel):
        return _sets(channel, value)
    return _images(channel, value)


def converted(own: Channel, channel: Channel, value: Tensor) -> Tensor:
    """Return the values of a condition as another channel of the same name describes them.

    Raises:
        UsageError: a channel of another kind or size; a class that it does not have.
    """
    if isinstance(own, ClassChannel) and isinstance(channel, ClassChannel):
        if not own.names or not channel.names or own.names == channel.names:
            return encode(channel, value)
        places = [_class(channel, name) for name in own.names]
        return torch.tensor([*places, -1])[value]
    if own.kind != channel.kind or getattr(own, "log", 0) != getattr(channel, "log", 0):
        raise UsageError(f"{own.name} is of kind {own.kind}, and the run has kind {channel.kind}.")
    pairs = [
        [torch.tensor(getattr(each, name)) for name in ("mean", "std")] for each in (own, channel)
    ]
    (mean, std), (new_mean, new_std) = pairs
    if mean.shape != new_mean.shape:
        raise UsageError(f"{own.name} has size {mean.numel()}, and the run {new_mean.numel()}.")
    return (value * std + mean - new_mean) / new_std


def column(channel: Channel, value: Tensor, count: int) -> np.ndarray:
    """Return a condition as a column ``(count,)``: codes of names, or numbers in their units.

    Raises:
        UsageError: another number of rows.
    """
    if not value.ndim or len(value) == 1:
        value = value.expand(count, *value.shape[1:])
    if len(value) != count:
        raise UsageError(f"{channel.name}: given {len(value)} rows for {count} samples.")
    if isinstance(channel, ClassChannel):
        return value.numpy(force=True)
    if isinstance(channel, EmbeddingChannel):
        return _nearest(channel, value)
    assert isinstance(channel, NumbersChannel)
    numbers = value[:, 0].double() * channel.std[0] + channel.mean[0]
    numbers = numbers.exp() if channel.log else numbers
    return np.array([float(f"{number:.{_DIGITS}g}") for number in numbers.tolist()])


def is_column(channel: Channel) -> bool:
    """Return whether a `column` has the values of a condition."""
    if isinstance(channel, NumbersChannel):
        return channel.size == 1
    return isinstance(channel, ClassChannel | EmbeddingChannel)


def labelled(channel: Channel, values: np.ndarray) -> Coded | np.ndarray:
    """Return a `column` with the names of its codes."""
    if isinstance(channel, ClassChannel):
        return Coded(values, channel.names or tuple(map(str, range(channel.count))))
    return Coded(values, channel.names) if isinstance(channel, EmbeddingChannel) else values


def _nearest(channel: EmbeddingChannel, value: Tensor) -> np.ndarray:
    """Return the numbers of the names whose vectors these are, -1 for other vectors."""
    apart = torch.cdist(value.cpu(), torch.stack([*_rows_of(channel).values()]))
    least, places = apart.min(1)
    return torch.where(least < 1e-4, places, -1).numpy()


def described(channel: Channel) -> str:
    """Return a condition in words: its name and its values."""
    if isinstance(channel, ClassChannel):
        names = f": {first_few(channel.names)}" if channel.names else ""
        return f"{channel.name}, {channel.count} classes{names}"
    if isinstance(channel, NumbersChannel):
        numbers = "a number" if channel.size == 1 else f"{channel.size} numbers"
        span = f" from {min(channel.low):g} to {max(channel.high):g}" if channel.low else ""
        return f"{channel.name}, {numbers}{span}" + ", by the logarithm" * channel.log
    if isinstance(channel, EmbeddingChannel):
        return f"{channel.name}, {len(channel.names)} names of vectors of size {channel.size}"
    if isinstance(channel, SetChannel):
        return f"{channel.name}, a set of vectors of {channel.size} numbers"
    return f"{channel.name}, an image of shape {channel.shape}"


def absent(value: Tensor) -> Tensor:
    """Return the tensor ``()`` that stands for no value of a condition like another tensor."""
    return torch.tensor(torch.nan if value.is_floating_point() else -1).to(value)


def _error(channel: Channel, value: Any, wanted: str) -> UsageError:
    shown = f"of shape {tuple(np.shape(value))}" if np.ndim(value) else repr(value)
    return UsageError(f"{channel.name}={shown}: {wanted}.")


def _classes(channel: ClassChannel, value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return torch.tensor([_class(channel, each) for each in value])
    return torch.tensor(_class(channel, value))


def _class(channel: ClassChannel, value: Any) -> int:
    """Return the number of a class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | Integral) and str(value) in channel.names:
        return channel.names.index(str(value))
    if isinstance(value, str) and value.removeprefix("-").isdecimal():
        value = int(value)
    if isinstance(value, Integral) and -1 <= int(value) < channel.count:
        return int(value)
    listed = f", or one of its names {first_few(channel.names)}" if channel.names else ""
    raise UsageError(
        f"{channel.name}={value!r}: give the number of a class, 0 to {channel.count - 1}{listed}."
    )


def _as_numbers(channel: Channel, value: Any, wanted: str) -> Tensor:
    """Return finite numbers, float64.

    Raises:
        UsageError: other values.
    """
    try:
        numbers = torch.as_tensor(
            float(value) if isinstance(value, str) else np.array(value, np.float64)
        ).double()
    except (TypeError, ValueError):
        raise _error(channel, value, wanted) from None
    if not bool(numbers.isfinite().all()):
        raise _error(channel, value, f"is not finite; {wanted}")
    return numbers


def _as_rows(channel: NumbersChannel | EmbeddingChannel, value: Any, wanted: str) -> Tensor:
    """Return finite numbers, float64 ``(N, size)``; one row of them without its axis is one row.

    Raises:
        UsageError: other values.
    """
    numbers = _as_numbers(channel, value, wanted)
    if numbers.ndim < 2:
        numbers = numbers.reshape((-1, 1) if channel.size == 1 else (1, -1))
    if numbers.ndim != 2 or numbers.shape[1] != channel.size:
        raise _error(channel, value, wanted)
    return numbers


def _numbers(channel: NumbersChannel, value: Any) -> Tensor:
    size = channel.size
    wanted = f"give {'a number' if size == 1 else f'{size} numbers'}, or {size} for each sample"
    numbers = _as_rows(channel, value, wanted)
    if channel.log:
        if bool((numbers <= 0).any()):
            raise _error(channel, value, "its logarithm was learned; give numbers above 0")
        numbers = numbers.log()
    return _scaled(channel, numbers)


def _scaled(channel: NumbersChannel | EmbeddingChannel | SetChannel, numbers: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (channel.mean, channel.std))
    return ((numbers - mean) / std).float()


def _embedded(channel: EmbeddingChannel, value: Any) -> Tensor:
    names = "give a name of its table, or a vector"
    if isinstance(value, str):
        return _row(channel, value)[None]
    if isinstance(value, list | tuple | np.ndarray) and len(value) and isinstance(value[0], str):
        return torch.stack([_row(channel, str(each)) for each in value])
    return _scaled(channel, _as_rows(channel, value, f"{names} of {channel.size} numbers"))


def _row(channel: EmbeddingChannel, name: str) -> Tensor:
    rows = _rows_of(channel)
    if name not in rows:
        raise UsageError(
            f"{channel.name}={name!r}: no such name in its table, which has "
            f"{first_few(channel.names)}; give its vector of {channel.size} numbers instead."
        )
    return rows[name]


@functools.lru_cache(maxsize=8)
def _rows_of(channel: EmbeddingChannel) -> Mapping[str, Tensor]:
    """Return the vectors by name, as a network takes them."""
    flat = np.frombuffer(base64.b64decode(channel.rows), np.float32)
    rows = torch.from_numpy(flat.reshape(len(channel.names), channel.size).astype(np.float64))
    return dict(zip(channel.names, _scaled(channel, rows), strict=True))


def _sets(channel: SetChannel, value: Any) -> Tensor:
    wanted = f"give vectors of {channel.size} numbers, (n, {channel.size}), or a list of such sets"
    if isinstance(value, str) or not hasattr(value, "__len__") or not len(value):
        raise UsageError(f"{channel.name}={value!r}: {wanted}.")
    one = not isinstance(value, list | tuple) and np.ndim(value) == 2
    one |= isinstance(value, list | tuple) and np.ndim(value[0]) < 2
    sets: Sequence[Any] = [value] if one else value
    parts = []
    for each in sets:
        try:
            numbers = torch.as_tensor(np.array(each, np.float64))
        except (TypeError, ValueError):
            raise UsageError(f"{channel.name}: {wanted}.") from None
        if numbers.ndim != 2 or numbers.shape[1] != channel.size or bool(numbers.isinf().any()):
            raise UsageError(f"{channel.name}=of shape {tuple(numbers.shape)}: {wanted}.")
        parts.append(_scaled(channel, numbers[~numbers.isnan().any(1)]))
    longest = max(1, *map(len, parts))
    result = torch.full((len(parts), longest, channel.size), torch.nan)
    for row, part in zip(result, parts, strict=True):
        row[: len(part)] = part
    return result


def _images(channel: ImageChannel, value: Any) -> Tensor:
    shape = channel.shape
    wanted = f"give values of shape {shape}, or (N, {', '.join(map(str, shape))})"
    numbers = _as_numbers(channel, value, wanted)
    numbers = numbers[None] if numbers.ndim == len(shape) else numbers
    if tuple(numbers.shape[1:]) != shape:
        raise _error(channel, value, wanted)
    return ((numbers - channel.mean) / channel.std).float()


def given_values(channels: Sequence[Channel], given: Any) -> dict[str, Tensor]:
    """Return the conditions that are given, by their keys.

    Args:
        given: a mapping of the names of conditions to values, as for `encode`; or the value alone,
            for a single condition. A value None is for no condition.

    Raises:
        UsageError: a condition that does not exist; as `encode`; different numbers of rows.
    """
    by_name = {channel.name: channel for channel in channels}
    there = f"this run has the conditions {first_few([*by_name])}"
    if not channels:
        raise UsageError(f"given={_short(given)}: this run has no conditions; train with some.")
    if not isinstance(given, Mapping):
        if len(channels) > 1:
            raise UsageError(f"given={_short(given)}: {there}; name them, as in given={{...}}.")
        given = {channels[0].name: given}
    result = {}
    for name, value in given.items():
        if name not in by_name:
            raise UsageError(f"given={name}: {there}.")
        if value is not None:
            result[by_name[name].key] = encode(by_name[name], value)
    counts = {k: len(v) for k, v in result.items() if v.ndim and len(v) > 1}
    if len({*counts.values()}) > 1:
        raise UsageError(f"given: {counts} rows; give one for all samples, or one for each.")
    return result


def _short(given: Any) -> str:
    return repr(given) if isinstance(given, str | Real) else type(given).__name__
