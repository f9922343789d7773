"""The devices of this machine, by name."""

from __future__ import annotations

import platform

import torch

from scorefield._internal.errors import UsageError


def find_device(device: str | torch.device) -> torch.device:
    """Return the device of a name, such as ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UsageError: an unknown name, or a device that is not available here.
    """
    try:
        result = torch.device(device)
        if result.type == "meta":
            raise RuntimeError
        torch.empty(1, device=result)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        listed = ", ".join(available())
        raise UsageError(
            f"device={str(device)!r}: not available here; available: {listed}."
        ) from None
    return result


def available() -> list[str]:
    """Return the names of the devices of this machine."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return ["cpu", *([kind.type] if count == 1 else [f"{kind.type}:{k}" for k in range(count)])]


def conditions(device: torch.device) -> dict[str, str]:
    """Return the conditions of equal bits besides settings and data, as texts by their names."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
    }
