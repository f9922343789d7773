"""Reading data: from a file or a built-in set to one finite float tensor, or a clear refusal."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scorefield.data.builtin import BUILTIN, digits, toy
from scorefield.data.formats import read_file
from scorefield.errors import DataError

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Data:
    """Samples, and their classes where there are any.

    Attributes:
        x: float32 ``(N, ...)``: ``(N, D)`` vectors, ``(N, C, L)`` signals, ``(N, C, H, W)`` images.
        y: int64 ``(N,)`` classes from 0, or None.
        name: what to call it in messages.
    """

    x: Tensor
    y: Tensor | None
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether one sample is ``(C, H, W)``."""
        return self.x.ndim == 4

    @property
    def classes(self) -> int:
        """How many classes there are; 0 without labels."""
        return 0 if self.y is None else int(self.y.max()) + 1


def read(source: str | Path, labels: str | Path | None = None, *, learn: bool = True) -> Data:
    """Read a built-in set by name, or a file.

    Files are ``.npy``; ``.npz`` with one array or one named ``x``; ``.csv`` and ``.parquet`` of
    numbers, a row for each sample; ``.idx``, ``-ubyte`` and their ``.gz``, as MNIST comes.

    An array ``(N, D)`` holds vectors, ``(N, C, L)`` signals and ``(N, C, H, W)`` images. Images
    with the channels last are turned, and ``(N, H, W)`` of unsigned bytes are grey images. Of
    `digits` this is the training split, and ``digits-test`` is what was held out.

    Args:
        source: a name from `BUILTIN` or a path; a file of such a name is ``./moons``.
        labels: a file of ``N`` integers from 0.
        learn: refuse what a distribution cannot be learned from.

    Raises:
        DataError: the name or file is unknown, cannot be read, has an unsuitable shape or type,
            holds values that are not finite, has no samples; to learn from: fewer than two, or
            features that never change.
    """
    name = str(source)
    if name in BUILTIN:
        split: Literal["train", "test"] = "test" if name == "digits-test" else "train"
        x, y = digits(split) if name.startswith("digits") else (toy(name), None)
    else:
        x, y = _checked(read_array(source), name, learn), None
    if labels is not None:
        y = _labels(labels, len(x))
    return Data(x, y, name)


def read_array(source: str | Path) -> np.ndarray:
    """Return the array of a file.

    Raises:
        DataError: there is no such file, or it cannot be read as one array.
    """
    path = Path(source)
    if not path.exists():
        close = difflib.get_close_matches(str(source), BUILTIN, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Built in: {', '.join(BUILTIN)}."
        raise DataError(f"there is no data {source}: no such file, no such built-in set. {hint}")
    return read_file(path)


def _checked(array: np.ndarray, name: str, learn: bool) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} holds values of type {array.dtype}: needs numbers.")
    if not 2 <= array.ndim <= 4 or 0 in array.shape[1:]:
        raise DataError(
            f"{name} has shape {array.shape}: needs (N, D) vectors, (N, C, L) signals or "
            "(N, C, H, W) images."
        )
    if len(array) == 0:
        raise DataError(f"{name} has no samples.")
    if learn and len(array) < 2:
        raise DataError(f"{name} has {len(array)} sample(s): a distribution needs two or more.")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        first = tuple(bad[0].tolist())
        raise DataError(
            f"{name} has {len(bad)} value(s) that are not finite numbers in float32, the first at "
            f"index {first}: {array[first]}. Remove or impute them."
        )
    if array.ndim == 3 and array.dtype == np.uint8:
        values = values[:, None]
    if array.ndim == 4 and array.shape[3] in _CHANNELS and array.shape[1] not in _CHANNELS:
        values = np.moveaxis(values, 3, 1)
    x = torch.from_numpy(np.ascontiguousarray(values))
    if learn:
        _check_constant(x, name)
    return x


def _check_constant(x: Tensor, name: str) -> None:
    """Refuse features of vectors, or channels of the rest, that never change."""
    what = "feature" if x.ndim == 2 else "channel"
    columns = x.transpose(0, 1).flatten(1)
    constant = (columns == columns[:, :1]).all(1).nonzero().flatten().tolist()
    if constant:
        shown = ", ".join(map(str, constant[:8])) + (" …" if len(constant) > 8 else "")
        raise DataError(
            f"{name} has {len(constant)} constant {what}(s), {shown}: they have no density. "
            "Remove them."
        )


def _labels(path: str | Path, count: int) -> Tensor:
    y = read_array(path)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "f" and bool((y == np.floor(y)).all()):
        y = y.astype(np.int64)  # from a table, whose numbers are all of one type
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise DataError(
            f"{path} has shape {y.shape} and type {y.dtype}: needs {count} integers, one a sample."
        )
    if y.min() < 0 or y.max() >= count:
        raise DataError(
            f"{path} holds labels from {y.min()} to {y.max()} for {count} samples: classes count "
            "from 0 without large gaps."
        )
    return torch.from_numpy(y.astype(np.int64))
