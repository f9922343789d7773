"""The header of a weights file, checked against the file.

Reference: the safetensors format, https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from scorefield._internal import files
from scorefield._internal.errors import CheckpointError

_LARGEST = 1 << 21  # bytes: 200 for each tensor there may be


class Place(BaseModel):
    """The entry of one tensor: weights (F32), or counts (I64)."""

    dtype: Literal["F32", "I64"]
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]

    @property
    def size(self) -> int:
        """The size of the tensor in bytes."""
        return (4 if self.dtype == "F32" else 8) * math.prod(self.shape)


Places = dict[str, Place]
_HEADER = TypeAdapter(Places)


def read(path: Path, copies: int = 1) -> Places:
    """Return the places of the tensors in a file; together they fill the file.

    Args:
        copies: the largest number of copies of a network's tensors.

    Raises:
        CheckpointError: the file is missing, or its header does not describe it.
    """
    most = copies * _LARGEST
    try:
        size = path.stat().st_size
        with files.opened(path, sys.maxsize) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(most, size - 8):
                raise CheckpointError(
                    f"{path} cannot be read: it declares a header of {length} bytes; the file has "
                    f"{size}, and a header at most {most}."
                )
            values = json.loads(file.read(length))
        if isinstance(values, dict):
            values.pop("__metadata__", None)
        places = _HEADER.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{path} cannot be read: {place}: {first['msg']}.") from None
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: its header is {error}") from None
    _check(path, places, size - 8 - length)
    return places


def _check(path: Path, places: Places, size: int) -> None:
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1].data_offsets):
        start, stop = place.data_offsets
        if start != end or stop - start != place.size:
            raise CheckpointError(
                f"{path} cannot be read: {name} of shape {place.shape} has the bytes from {start} "
                f"to {stop}, but the previous tensor ends at {end}."
            )
        end = stop
    if end != size:
        raise CheckpointError(f"{path} cannot be read: it declares {end} bytes and holds {size}.")
