"""A device of tests: tensors with values on the CPU, on a device that has no float64.

PyTorch calls the kernels of a device by its dispatch key, and here they are those of the CPU.
Whatever a small GPU refuses is an error: a float64 tensor on the device, and tensors of two
devices in one operation. Values that are read back are counted, since a GPU would be waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "standin"
_WIDE = (torch.float64, torch.complex128)
_READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")
_ACROSS = ("copy_", "_to_copy")  # between devices
_waits: list[list[str]] = []
_libraries: list[torch.library.Library] = []


class OnDevice(Tensor):
    """A tensor of the device; ``on_cpu`` has its values."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        if values.dtype in _WIDE:
            raise TypeError(f"{NAME} has no {values.dtype}, not of shape {tuple(values.shape)}")
        form = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, dtype=values.dtype, device=f"{NAME}:0", **form
        )
        made.on_cpu = values
        return made

    @classmethod
    def __torch_dispatch__(
        cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(operator, *args, **(kwargs or {}))

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME} tensor to numpy: copy it to the CPU first")
        return self.detach().cpu().numpy()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.on_cpu!r})"


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator on the values of the tensors of the device."""
    name, every = operator.overloadpacket.__name__, tree_leaves((args, kwargs))
    own = {id(x.on_cpu): x for x in every if isinstance(x, OnDevice)}
    others = [x for x in every if isinstance(x, Tensor) and not isinstance(x, OnDevice) and x.ndim]
    if others and name not in _ACROSS and not name.startswith(("index", "_index")):
        raise RuntimeError(f"{name}: tensors on the CPU and on {NAME}")
    target = kwargs.get("device")
    out = target is not None and torch.device(target).type != NAME
    out |= name == "copy_" and not isinstance(args[0], OnDevice)
    if name in _READS or out:
        for counted in _waits:
            counted.append(name)

    def values(x: Any) -> Any:
        if isinstance(x, OnDevice):
            return x.on_cpu
        return torch.device("cpu") if isinstance(x, torch.device) else x

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return own[id(x)] if id(x) in own else OnDevice(x)

    result = operator(*tree_map(values, args), **tree_map(values, kwargs))
    if out:
        return args[0] if name == "copy_" else result
    return tree_map(placed, result)


def _copy(x: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy values to the device where PyTorch does not dispatch, as in ``torch.tensor``."""
    _run(torch.ops.aten.copy_.default, target, x, non_blocking)
    return target


class _Module(_DummyBackendModule):  # type: ignore[misc]
    """The functions of ``torch.standin`` that PyTorch calls."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@cache
def start() -> str:
    """Register the device, once in a process, and return its name."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    copies = torch.library.Library("aten", "IMPL")
    copies.impl("_copy_from", _copy, "PrivateUse1")
    copies.impl("eye", lambda n, **_: OnDevice(torch.eye(n, dtype=_["dtype"])), "PrivateUse1")
    _libraries.extend((library, copies))
    return NAME


@contextmanager
def waits() -> Iterator[list[str]]:
    """Yield the operators that have waited for the device inside the ``with`` block."""
    counted: list[str] = []
    _waits.append(counted)
    try:
        yield counted
    finally:
        _waits.remove(counted)
