"""What a file of data holds, and what training would make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scorefield.data.builtin import BUILTIN
from scorefield.data.source import Data, read, read_array
from scorefield.errors import DataError

_MOST_LEVELS = 65536


def inspect(source: str | Path) -> dict[str, str]:
    """Return what there is to know of data before training on it, by name.

    Raises:
        DataError: there is no such file, or it cannot be read at all.
    """
    built_in = str(source) in BUILTIN
    array = read(source).x.numpy() if built_in else read_array(source)
    found = {"shape": f"{array.shape}", "type": f"{array.dtype}"}
    if array.dtype.kind in "biuf" and array.size:
        found |= _values(array)
    try:
        data = read(source)
    except DataError as error:
        return found | {"training": f"refused: {error}"}
    return found | _training(data, array)


def _values(array: np.ndarray) -> dict[str, str]:
    wide = array.astype(np.float64)
    finite = np.isfinite(wide)
    bad = np.argwhere(~finite)
    found = {}
    if finite.any():
        some = wide[finite]
        found["values"] = f"{some.min():g} to {some.max():g}, mean {some.mean():.4g}, " + (
            f"deviation {some.std():.4g}"
        )
    found["not finite"] = (
        f"{len(bad)}, the first at index {tuple(bad[0].tolist())}" if len(bad) else "none"
    )
    return found


def _training(data: Data, array: np.ndarray) -> dict[str, str]:
    kind = {2: "vectors", 3: "signals (C, L)", 4: "images (C, H, W)"}[data.x.ndim]
    turned = data.is_image and array.ndim == 4 and tuple(array.shape[1:]) != data.shape
    each = "feature" if data.x.ndim == 2 else "channel"
    network = "a U-Net" if data.is_image else "an MLP"
    found = {
        "training": f"{len(data.x)} {kind} of shape {data.shape}"
        + (", turned from channels last" if turned else ""),
        "transform": f"to zero mean and unit variance, each {each} by itself",
        "network": f"{network}, unless --network.kind says otherwise",
    }
    low, high = float(data.x.min()), float(data.x.max())
    whole = bool((data.x == data.x.floor()).all())
    if whole and low >= 0 and high < _MOST_LEVELS:
        found["whole numbers"] = (
            f"from {low:.0f} to {high:.0f}: with --levels {high + 1:.0f} likelihoods are bits per "
            "dimension, and samples whole numbers"
        )
    if data.classes:
        found["classes"] = f"{data.classes}, for --conditional"
    return found
