"""Weight files of other libraries."""

from __future__ import annotations

import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from scorefield._internal import files
from scorefield._internal.errors import CheckpointError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_weights(path: Path, pickle: bool = False, folder: Path | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file, by name.

    Args:
        path: a ``.safetensors`` file, or a pickle.
        pickle: allow a pickle, read by PyTorch with ``weights_only``.
        folder: that the file must lie in, links resolved.

    Raises:
        CheckpointError: a file that is missing, damaged or larger than memory; a pickle that is not
            allowed.
    """
    if path.suffix in PICKLES and path.is_file() and not pickle:
        raise CheckpointError(
            f"{path} is a pickle, which may run a program when it is read: save the weights as "
            ".safetensors, or set pickle=True if you trust the source."
        )
    with files.reading(path, "", CheckpointError):
        files.check(path, folder=folder)
    return state_of(path, "state_dict")[0]  # an entry of Lightning's checkpoints


def state_of(
    weights: str | Path | Mapping[str, Any], *entries: str
) -> tuple[dict[str, Tensor], str]:
    """Return tensors by name and their place, from a mapping or a file.

    Args:
        weights: the tensors, or a checkpoint that contains them; or the file of either.
        entries: names of entries of a checkpoint; the first that it has contains the tensors.

    Raises:
        CheckpointError: as `read_checkpoint` and `by_name`.
    """
    where = "weights" if isinstance(weights, Mapping) else str(weights)
    content = weights if isinstance(weights, Mapping) else read_checkpoint(Path(weights))
    states = (content.get(name) for name in entries)
    state = next((one for one in states if isinstance(one, Mapping)), content)
    return by_name(state, where), where


def by_name(values: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Return values as tensors by name.

    Raises:
        CheckpointError: a value that is not a dense tensor of real numbers.
    """
    if not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{where} is not a mapping of names to tensors.")
    for name, value in values.items():
        if kind := _unsupported(value):
            raise CheckpointError(f"{where}: {name[:80]} is {kind}: save it as a plain tensor.")
    return dict(values)


def _unsupported(value: Tensor) -> str:
    """Return the kind of a tensor that is not dense and real, or an empty text."""
    if value.is_nested:
        return "a nested tensor"
    if value.layout is not torch.strided:
        return f"a sparse tensor, {value.layout}"
    if value.is_quantized or value.is_complex():
        return f"a tensor of {value.dtype}"
    return "a tensor without values, on meta" if value.is_meta else ""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a file by name, weights or more; pickles are read without running code.

    Raises:
        CheckpointError: a file that is missing, damaged, larger than memory, or not a mapping.
    """
    with files.reading(path, "", CheckpointError, SafetensorError):
        files.check(path)
        content = _unpickled(path) if path.suffix in PICKLES else load_file(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a mapping of names to tensors.")
    return {str(name): value for name, value in content.items()}


def _unpickled(path: Path) -> Any:
    """Return the content of a pickle, read without running code, or raise `CheckpointError`.

    PyTorch's own messages advise to allow code, so they are not repeated.
    """
    try:
        with warnings.catch_warnings(action="ignore"), safe_globals([Namespace]):
            # a namespace holds plain values, as in checkpoints of DiT
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        names = re.findall(r"(?:GLOBAL|global:?|class) `?([\w.]{1,80})", str(error))
        content = f"it contains {names[0]}" if names else "it is damaged"
        raise CheckpointError(
            f"{path} cannot be read as weights: {content}, and only tensors and plain values are "
            "read; save the weights as .safetensors."
        ) from None
    except Exception:  # a damaged pickle raises anything
        raise CheckpointError(
            f"{path} cannot be read as weights: it is damaged, or not a file of PyTorch."
        ) from None
