"""Weights of others, read from their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scorefield._internal import sizes
from scorefield._internal.errors import CheckpointError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_weights(path: Path, pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a file, in memory.

    Args:
        pickle: also of a file that is a pickle; by PyTorch's reader of weights alone.

    Raises:
        CheckpointError: a file that is missing, damaged or larger than memory; a pickle, unless
            asked for.
    """
    if path.suffix in PICKLES and path.is_file() and not pickle:
        raise CheckpointError(
            f"{path} is a pickle, which may run a program when it is read: save the weights as "
            ".safetensors where they come from, or say pickle if you trust them."
        )
    return by_name(read_checkpoint(path), str(path))


def by_name(found: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Return what is held by name, if that is weights alone.

    Raises:
        CheckpointError: it is more, or something else; tensors that are no arrays of real numbers.
    """
    if not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{where} holds no weights by name.")
    for name, value in found.items():
        if kind := _strange(value):
            raise CheckpointError(f"{where}: {name[:80]} is {kind}: save it as a plain tensor.")
    return dict(found)


def _strange(value: Tensor) -> str:
    """Return what kind of tensor it is, if none of real numbers that lie here one by one."""
    if value.is_nested:
        return "a nested tensor"
    if value.layout is not torch.strided:
        return f"a sparse tensor, {value.layout}"
    if value.is_quantized or value.is_complex():
        return f"a tensor of {value.dtype}"
    return "a tensor without values, on meta" if value.is_meta else ""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a file holds by name, weights or more; of a pickle, only what runs nothing.

    Raises:
        CheckpointError: a file that is missing, damaged or larger than memory, or holds no names.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} cannot be read: there is no such file.")
    if path.stat().st_size > sizes.memory():
        raise CheckpointError(
            f"{path} holds {sizes.words(path.stat().st_size)}, and there are "
            f"{sizes.words(sizes.memory())} of memory: take a machine with more."
        )
    try:
        if path.suffix in PICKLES:
            found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # whatever the reader of a damaged pickle comes to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason[:200]}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no weights by name.")
    return {str(name): value for name, value in found.items()}
