"""What is told of the machine beside figures that depend on it."""

from __future__ import annotations

import os
import platform


def facts() -> dict[str, object]:
    """Return processor, number of CPUs, system and Python."""
    return {
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
