"""A digest of a field, for results that hold for that field alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Set
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from scorefield.field.base import ScoreField

_MODULE = frozenset(vars(nn.Module()))
_CACHE: Any = (
    WeakTensorKeyDictionary()
)  # tensor -> (state, digest): weights are read once, not per call


def digest(value: Any) -> str:
    """Return the sha256 of all that determines a field's values, or a process's; hexadecimal.

    Of modules that is their kind, weights, buffers and attributes; of this package's functions the
    name, of others their code, which another Python may compile otherwise. Views of a field, by
    another process or with conditions bound, have its digest. Private
    attributes (``_name``) other than weights are assumed to follow from the rest. Globals that a
    function reads, and weights changed in place through ``.data``, are not noticed.

    Raises:
        ValueError: a part of a kind that has no digest.
    """
    return hashlib.sha256(_hashed(value)).hexdigest()


def check_same(
    field: ScoreField, digests: tuple[str, str], subject: str, advice: tuple[str, str]
) -> None:
    """Reject a field whose digest, or that of its process, is another one.

    Args:
        digests: of the field and of its process.
        subject: the start of the message, such as "the plan was tuned for".
        advice: the ends of the two messages.

    Raises:
        ValueError: with the first letters of both digests.
    """
    actual, of_process = digest(field), digest(field.process)
    if actual != digests[0]:
        raise ValueError(
            f"{subject} the field {digests[0][:12]}, but this field is {actual[:12]}: other "
            f"weights, another process or another guidance. {advice[0]}"
        )
    if of_process != digests[1]:
        raise ValueError(
            f"{subject} the process {digests[1][:12]}, but this field's, {field.process!r}, is "
            f"{of_process[:12]}. {advice[1]}"
        )


def _hashed(value: Any) -> bytes:
    if isinstance(value, ScoreField):
        value = value.origin
    value = getattr(value, "_orig_mod", value)  # what torch.compile has wrapped
    if isinstance(value, Tensor):
        return _tensor(value)
    parts = _parts(value)
    sha = hashlib.sha256(_kind(value).encode())
    for part in parts if isinstance(parts, list) else [parts]:
        content = part if isinstance(part, bytes) else _hashed(part)
        sha.update(len(content).to_bytes(8, "big") + content)
    return sha.digest()


def _parts(value: Any) -> list[Any] | bytes:
    """Return the parts of a value, or bytes that determine it."""
    if value is None or isinstance(value, bool | int | float | complex | str | torch.dtype):
        return repr(value).encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, torch.device):  # where it is computed, not what
        return b""
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Set):
        return sorted(_hashed(item) for item in value)
    if isinstance(value, Mapping):
        return sorted(_hashed(key) + _hashed(item) for key, item in value.items())
    if isinstance(value, type | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}".encode()
    if isinstance(value, FunctionType):
        return _of_function(value)
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, Enum):
        return value.name.encode()
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, value.co_consts]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, nn.Module):
        return _of_module(value)
    if dataclasses.is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if hasattr(value, "__dict__") and (_public(_own(value)) or not _own(value)):
        return [_public(_own(value))]
    raise ValueError(f"{value!r} is of {type(value).__name__}, which no digest can be made of.")


def _of_function(value: FunctionType) -> list[Any]:
    name = f"{value.__module__}.{value.__qualname__}"
    if name.startswith("scorefield.") and "<" not in name:  # neither a lambda nor a closure
        return [name]
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    code = value.__code__
    consts = [const for const in code.co_consts if const is not value.__doc__]
    return [
        value.__qualname__,
        code.co_code,
        code.co_names,
        consts,
        value.__defaults__,
        value.__kwdefaults__,
        cells,
    ]


def _of_module(module: nn.Module) -> list[Any]:
    own = {k: v for k, v in _own(module).items() if k not in _MODULE}
    return [module._parameters, module._modules, _public(module._buffers), _public(own)]


def _own(value: Any) -> dict[str, Any]:
    """Return the attributes, without the values of cached properties."""
    kind, cached = type(value), functools.cached_property
    return {k: v for k, v in vars(value).items() if not isinstance(getattr(kind, k, None), cached)}


def _public(items: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in items.items() if not name.startswith("_")}


def _kind(value: Any) -> str:
    kind = type(value)
    # a user's class has another module where its file is run as a script
    cached = kind.__module__.partition(".")[0] in ("scorefield", "torch", "builtins")
    return f"{kind.__module__}.{kind.__qualname__}" if cached else kind.__qualname__


def _tensor(value: Tensor) -> bytes:
    state = None if value.is_inference() else (value._version, value.data_ptr(), value.dtype)
    cached = _CACHE.get(value)
    if cached is not None and state is not None and cached[0] == state:
        result: bytes = cached[1]
        return result
    values = value.detach().cpu().contiguous()
    sha = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    sha.update(values.flatten().view(torch.uint8).numpy().data)
    if state is not None:
        _CACHE[value] = state, sha.digest()
    return sha.digest()
