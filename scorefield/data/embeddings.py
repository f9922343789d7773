"""Embeddings of texts, the condition of networks with cross attention, from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorefield._internal import files
from scorefield._internal.errors import DataError
from scorefield.data.contents import whole
from scorefield.data.formats import read_file

CONDITION = "encoder_hidden_states"  # the argument of the networks of diffusers
_NAMES = ("prompt_embeds", CONDITION)  # in a file of several tensors


def read_embeddings(path: Path) -> Tensor:
    """Return embeddings, float32 ``(K, tokens, width)``, of a .npy or a .safetensors file.

    One text may have the shape ``(tokens, width)``.

    Raises:
        DataError: a file that is missing or damaged, or holds other values.
    """
    if not path.exists():
        raise DataError(f"embeddings={path}: no such file.")
    if path.suffix == ".safetensors":
        values = _tensor(path)
    else:
        array = whole(read_file(path).values)
        values = torch.from_numpy(array.astype(np.float32)) if array.dtype.kind == "f" else None
    if values is None or not values.is_floating_point() or values.ndim not in (2, 3):
        raise DataError(
            f"embeddings={path}: needs floating-point numbers of shape (K, tokens, width)."
        )
    values = values.float().reshape(-1, *values.shape[-2:])
    if not values.numel() or not bool(values.isfinite().all()):
        raise DataError(f"embeddings={path}: has no values, or values that are not finite.")
    return values


def _tensor(path: Path) -> Tensor | None:
    """Return the one tensor of a file, or the one with a usual name."""
    with files.reading(f"embeddings={path}", "", DataError, SafetensorError):
        files.check(path)
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            chosen = names if len(names) == 1 else [name for name in _NAMES if name in names]
            tensor: Tensor | None = file.get_tensor(chosen[0]) if chosen else None
    if tensor is None:
        raise DataError(
            f"embeddings={path}: holds {', '.join(names[:8]) or 'nothing'}: name one tensor "
            f"{_NAMES[0]}."
        )
    return tensor
