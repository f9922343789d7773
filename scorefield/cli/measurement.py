"""From the options of `scorefield restore` to the measurement of each item."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.data.contents import whole
from scorefield.data.formats import read_file
from scorefield.data.images import read_grey
from scorefield.inverse import Blur, Downsample, Grey, Operator
from scorefield.noise import CORRUPTION, Noise

Shape = tuple[int, ...]
_GREY = 128  # of a picture, from 0 to 255: known values are at least as bright
# the axis of each half, and whether it is the second
_HALVES = {"top": (0, 0), "bottom": (0, 1), "left": (1, 0), "right": (1, 1)}
_FORMS = "top, bottom, left, right, box:top,left,height,width, random:share"


@dataclass(frozen=True)
class Measurement:
    """How an item was measured.

    Attributes:
        operator: the operator of the measurement; None where entries are unknown.
        hidden: the unknown entries: a mask like a sample, a share of them at random, or None for
            entries that are NaN.
        noise: the standard deviation of the noise.
        corrupt: whether the items are complete, and are measured here.
        seed: of a random mask and of the noise.
    """

    operator: Operator | None
    hidden: Tensor | float | None
    noise: float
    corrupt: bool
    seed: int

    @classmethod
    def of(
        cls, options: Mapping[str, Any], shape: Shape, *, noise: float, corrupt: bool, seed: int
    ) -> Measurement:
        """Return the measurement of items of a shape, from mask, downsample, grey and blur.

        Raises:
            UsageError: options that exclude each other, or do not fit the shape.
            DataError: a mask that cannot be read.
        """
        names = [f"--{name}" for name, value in options.items() if value not in (None, False)]
        if len(names) > 1:
            raise UsageError(f"{' and '.join(names)} cannot be combined.")
        if corrupt and not (names or noise):
            raise UsageError(
                "--corrupt needs one of --mask, --downsample, --grey, --blur, --noise."
            )
        if not 0 <= noise < math.inf:
            raise UsageError(f"--noise {noise:g}: give a standard deviation of 0 or more.")
        hidden = None if options["mask"] is None else _hidden(options["mask"], shape)
        return cls(_operator(options, shape), hidden, noise, corrupt, seed)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything about the measurement that the options do not contain, in JSON's types."""
        hidden: object = self.hidden
        if isinstance(hidden, Tensor):
            hidden = hashlib.sha256(hidden.numpy().tobytes()).hexdigest()
        return {"hidden": hidden} | {k: getattr(self, k) for k in ("noise", "corrupt", "seed")}

    def measured(self, x: Tensor, ids: Sequence[int]) -> Tensor:
        """Return the measurements of items ``(B, ...)``, NaN where they are unknown."""
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


def _operator(options: Mapping[str, Any], shape: Shape) -> Operator | None:
    operator: Operator | None = None
    try:
        if options["downsample"] is not None:
            operator = Downsample(options["downsample"])
        elif options["grey"]:
            operator = Grey()
        elif (blur := options["blur"]) is not None:
            widest = (min(shape[1:], default=0) - 1) / 6
            if not blur <= widest:
                raise ValueError(
                    f"--blur {blur:g}: give at most {widest:g}, a sixth of the shorter side."
                )
            operator = Blur.gaussian(blur, len(shape) - 1)
        if operator is not None:
            operator.shape(shape)
    except ValueError as error:
        raise UsageError(f"this run has samples of shape {shape}: {error}") from None
    return operator


def _hidden(text: str, shape: Shape) -> Tensor | float:
    """Return the mask of the unknown entries of a sample, or their share at random."""
    kind, _, rest = text.partition(":")
    if kind == "random":
        share = _numbers(text, rest, 1)[0]
        if not 0 < share < 1:
            raise UsageError(f"--mask {text}: give a share between 0 and 1, such as random:0.7.")
        return share
    hidden = torch.zeros(shape, dtype=torch.bool)
    if kind in _HALVES or kind == "box":
        if len(shape) != 3:
            raise UsageError(f"--mask {text} is for images: this run has samples of shape {shape}.")
        rows, columns = _half(kind, shape) if kind in _HALVES else _box(text, rest)
        hidden[:, rows, columns] = True
    else:
        hidden |= ~_mask(Path(text), shape)
    count, total = int(hidden.sum()), hidden.numel()
    if not 0 < count < total:
        raise UsageError(
            f"--mask {text} hides {count} of {total} values of a sample: hide some, not all."
        )
    return hidden


def _half(name: str, shape: Shape) -> tuple[slice, slice]:
    axis, second = _HALVES[name]
    middle = shape[1 + axis] // 2
    half = slice(middle, None) if second else slice(0, middle)
    return (half, slice(None)) if axis == 0 else (slice(None), half)


def _box(text: str, rest: str) -> tuple[slice, slice]:
    values = _numbers(text, rest, 4)
    if not all(v.is_integer() for v in values):
        raise UsageError(f"--mask {text}: give whole numbers of pixels.")
    top, left, height, width = map(int, values)
    return slice(top, top + height), slice(left, left + width)


def _numbers(text: str, rest: str, count: int) -> list[float]:
    try:
        values = [float(word) for word in rest.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(0 <= v < 2**31 for v in values):
        raise UsageError(f"--mask {text}: give {_FORMS}, or a file.")
    return values


def _mask(path: Path, shape: Shape) -> Tensor:
    """Return the known entries of a sample from a file, true where they are known."""
    if path.suffix not in (".npy", ".png") or not path.is_file():
        raise UsageError(f"--mask {path}: give {_FORMS}, or a .npy or .png file that exists.")
    if path.suffix == ".png":
        mask = torch.from_numpy(read_grey(path) >= _GREY)
    else:
        values = whole(read_file(path).values)
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise DataError(f"{path} holds values of type {values.dtype}: a mask holds 0 and 1.")
        mask = torch.from_numpy(np.atleast_1d(values != 0))
    if mask.ndim > len(shape) or tuple(mask.shape) != shape[len(shape) - mask.ndim :]:
        raise DataError(f"{path} has shape {tuple(mask.shape)}: this run has samples of {shape}.")
    return mask
