"""Memory, room on the disk, and sizes as words."""

from __future__ import annotations

import math
import os
import shutil
import sys
from pathlib import Path

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory() -> int:
    """Return the bytes of memory that this process may have: the machine's, or its group's.

    Without a figure from the system, the largest integer.
    """
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return sys.maxsize
    try:
        return min(most, int(_GROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no group, or one without a limit
        return most


def room(folder: Path) -> int:
    """Return the bytes that a new file in a folder may have, by the disk and by the system.

    The folder need not exist yet.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    try:
        import resource
    except ImportError:  # not every system has limits
        return free
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, limit)


def words(size: float) -> str:
    """Return a number of bytes to read: ``1.5 MiB``."""
    if size >= 2**70:
        return "more than 1024 EiB"
    power = 0 if size < 1 else min(6, int(math.log2(size)) // 10)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")[power]
    return f"{size:.0f} bytes" if power == 0 else f"{size / 2 ** (10 * power):.1f} {unit}"
