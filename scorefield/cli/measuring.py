"""From the options of `scorefield restore` to what was measured of each item."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.options import RestoreOptions
from scorefield.data.contents import whole
from scorefield.data.formats import read_file
from scorefield.data.images import read_grey
from scorefield.inverse import Blur, Downsample, Grey, Operator
from scorefield.noise import CORRUPTION, Noise

Shape = tuple[int, ...]
_KNOWN = 128  # from this grey of a picture on, of 0 to 255
_HALVES = {"top": (0, 0), "bottom": (0, 1), "left": (1, 0), "right": (1, 1)}  # axis, which half


@dataclass(frozen=True)
class Measurement:
    """What becomes of an item.

    Attributes:
        operator: what measured it; None where entries are unknown.
        hidden: which are: like a sample, a share of them at random, or None for those that are NaN.
        noise: the deviation of the noise.
        corrupt: items are whole.
        seed: of a random mask and the noise added.
    """

    operator: Operator | None
    hidden: Tensor | float | None
    noise: float
    corrupt: bool
    seed: int

    @classmethod
    def of(cls, options: RestoreOptions, shape: Shape) -> Measurement:
        """Return what the options ask for, of items of a shape.

        Raises:
            UsageError: options that exclude each other, or do not fit the shape.
            DataError: a mask that cannot be read.
        """
        given = {
            "mask": options.mask is not None,
            "downsample": options.downsample is not None,
            "grey": options.grey,
            "blur": options.blur is not None,
        }
        names = [f"--{name}" for name, there in given.items() if there]
        if len(names) > 1:
            raise UsageError(f"{' and '.join(names)}: give one of them.")
        if options.corrupt and not (names or options.noise):
            raise UsageError("--corrupt: say how, by one of --mask, --downsample, --grey, --blur.")
        if not (0 <= options.noise < math.inf and options.n >= 1):
            raise UsageError(
                f"--noise {options.noise:g} --n {options.n}: give a deviation of 0 or more, and at "
                "least 1 sample."
            )
        hidden = None if options.mask is None else _hidden(options.mask, shape)
        operator = _operator(options, shape)
        return cls(operator, hidden, options.noise, options.corrupt, options.seed)

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on beside the options."""
        if not isinstance(self.hidden, Tensor):
            return {"hidden": self.hidden}
        return {"hidden": hashlib.sha256(self.hidden.numpy().tobytes()).hexdigest()}

    def measured(self, x: Tensor, ids: Sequence[int]) -> Tensor:
        """Return what was measured of items ``(B, ...)``, NaN where it is not known."""
        noise = Noise(self.seed, torch.tensor(ids, dtype=torch.int64), stream=CORRUPTION)
        if self.corrupt and self.operator is not None:
            x = self.operator.forward(x)
        if self.corrupt and self.noise:
            x = x + self.noise * noise.normal(x)[0]
        hidden = self.hidden
        if hidden is None:
            return x
        if isinstance(hidden, float):
            u, _ = noise.skipped().uniform_like(x[:, :1] if x.ndim > 2 else x)
            hidden = u < hidden
        return torch.where(hidden, math.nan, x)


def _operator(options: RestoreOptions, shape: Shape) -> Operator | None:
    try:
        operator: Operator | None = None
        if options.downsample is not None:
            operator = Downsample(options.downsample)
        elif options.grey:
            operator = Grey()
        elif options.blur is not None:
            widest = (min(shape[1:], default=0) - 1) / 6
            if not options.blur <= widest:
                raise ValueError(
                    f"--blur {options.blur:g}: give at most {widest:g}, a sixth of their shorter "
                    "side."
                )
            operator = Blur.gaussian(options.blur, len(shape) - 1)
        if operator is not None:
            operator.shape(shape)
    except ValueError as error:
        raise UsageError(f"this run has samples of shape {shape}: {error}") from None
    return operator


def _hidden(text: str, shape: Shape) -> Tensor | float:
    """Return which entries of a sample are unknown, or the share that is at random."""
    kind, _, rest = text.partition(":")
    if kind == "random":
        share = _numbers(text, rest, 1)[0]
        if not 0 < share < 1:
            raise UsageError(f"--mask {text}: give a share between 0 and 1, such as random:0.7.")
        return share
    hidden = torch.zeros(shape, dtype=torch.bool)
    if kind in _HALVES or kind == "box":
        if len(shape) != 3:
            raise UsageError(f"--mask {text}: it is for images, and this run has {shape}.")
        rows, columns = _half(kind, shape) if kind in _HALVES else _box(text, rest)
        hidden[:, rows, columns] = True
    else:
        hidden |= ~_known(Path(text), shape)
    count, total = int(hidden.sum()), hidden.numel()
    if not 0 < count < total:
        raise UsageError(
            f"--mask {text} hides {count} of {total} values of a sample {shape}: hide some, not "
            "all."
        )
    return hidden


def _half(kind: str, shape: Shape) -> tuple[slice, slice]:
    axis, which = _HALVES[kind]
    middle = shape[1 + axis] // 2
    half = slice(0, middle) if which == 0 else slice(middle, None)
    return (half, slice(None)) if axis == 0 else (slice(None), half)


def _box(text: str, rest: str) -> tuple[slice, slice]:
    found = _numbers(text, rest, 4)
    if not all(v.is_integer() for v in found):
        raise UsageError(f"--mask {text}: give whole numbers of pixels.")
    top, left, height, width = map(int, found)
    return slice(top, top + height), slice(left, left + width)


def _numbers(text: str, rest: str, count: int) -> list[float]:
    words = rest.split(",")
    try:
        found = [float(word) for word in words]
    except ValueError:
        found = []
    if len(found) != count or not all(0 <= v < 2**31 for v in found):
        raise UsageError(
            f"--mask {text}: give top, bottom, left, right, box:top,left,height,width, "
            "random:share or a file."
        )
    return found


def _known(path: Path, shape: Shape) -> Tensor:
    """Return which entries of a sample a file says are known."""
    if path.suffix not in (".npy", ".png") or not path.is_file():
        raise UsageError(
            f"--mask {path}: there is no such .npy or .png file, and it is none of top, bottom, "
            "left, right, box:top,left,height,width and random:share."
        )
    if path.suffix == ".png":
        known = torch.from_numpy(read_grey(path) >= _KNOWN)
    else:
        values = whole(read_file(path).values)
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise DataError(f"{path} holds values of type {values.dtype}: a mask is of 0 and 1.")
        known = torch.from_numpy(np.atleast_1d(values != 0))
    fits = known.ndim <= len(shape) and tuple(known.shape) == shape[len(shape) - known.ndim :]
    if not fits:
        raise DataError(f"{path} has shape {tuple(known.shape)}: this run has samples of {shape}.")
    return known
