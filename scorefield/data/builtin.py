"""Built-in data: handwritten digits and two-dimensional toy sets."""

from __future__ import annotations

import math
from importlib import resources
from typing import Literal

import numpy as np
import torch
from torch import Tensor

TOYS = ("checkerboard", "moons", "rings", "spiral")
BUILTIN = ("digits", "digits-test", *TOYS)
_HELD_OUT = 500


def digits(split: Literal["train", "test"] = "train") -> tuple[Tensor, Tensor]:
    """Return images ``(N, 1, 8, 8)`` with values 0 to 16, and labels ``(N,)``.

    1,297 images to train on and 500 held out, split by a fixed permutation.

    Reference: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, CC BY 4.0.
    """
    with (
        resources.files("scorefield.data").joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        images, labels = archive["images"], archive["labels"]
    order = np.random.default_rng(0).permutation(len(images))
    chosen = order[:-_HELD_OUT] if split == "train" else order[-_HELD_OUT:]
    x = torch.from_numpy(images[chosen].astype(np.float32))[:, None]
    return x, torch.from_numpy(labels[chosen].astype(np.int64))


def builtin(name: str) -> tuple[Tensor, Tensor | None]:
    """Return the samples of a built-in set, and the classes of digits."""
    if name.startswith("digits"):
        return digits("test" if name == "digits-test" else "train")
    return toy(name), None


def toy(name: str, n: int = 4096, seed: int = 0) -> Tensor:
    """Return ``n`` points of a two-dimensional set, ``(n, 2)``.

    Args:
        name: ``checkerboard`` (eight squares), ``moons`` (two arcs), ``rings`` (two circles) or
            ``spiral`` (two arms).

    Raises:
        ValueError: another name.
    """
    rng = np.random.default_rng(seed)
    u, half = rng.random(n), rng.integers(0, 2, n)
    z = rng.standard_normal((n, 2))
    if name == "checkerboard":
        column, row = rng.integers(0, 4, n), rng.integers(0, 2, n)
        corner = np.stack([column, 2 * row + column % 2], 1)
        points = corner + rng.random((n, 2)) - 2.0
    elif name == "moons":
        angle = math.pi * u
        points = np.stack([np.cos(angle), np.sin(angle)], 1)
        points = np.where(half[:, None], points, [1, 0.5] - points) + 0.06 * z
    elif name == "rings":
        angle, radius = 2 * math.pi * u, 1.0 + half
        points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.06 * z
    elif name == "spiral":
        angle = 3 * math.pi * np.sqrt(u)
        arm = np.stack([np.cos(angle), np.sin(angle)], 1) * angle[:, None] / 4
        points = np.where(half[:, None], arm, -arm) + 0.06 * z
    else:
        raise ValueError(f"name={name!r}: not a toy set; give one of {', '.join(TOYS)}.")
    return torch.from_numpy(points.astype(np.float32))
