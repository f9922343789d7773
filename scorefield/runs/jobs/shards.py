"""Shards: the share of a job that one process computes.

Its number is an argument, or comes from environment variables of the launcher. The tasks of a SLURM
array may have several processes each; then the numbers are combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scorefield._internal.errors import UsageError

# number and count of the processes of a launcher; the first pair that is set is used
_PROCESSES = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("JOB_COMPLETION_INDEX", "SCOREFIELD_SHARDS"),  # Kubernetes gives no count
)
_ARRAY = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"


@dataclass(frozen=True)
class Shard:
    """One of the shares of a job.

    Attributes:
        index: from 0.
        count: how many shares there are.
        origin: the environment variables that it comes from; empty for an argument.
    """

    index: int = 0
    count: int = 1
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def share(self, parts: int) -> range:
        """Return its parts, which are neighbours; shards differ by at most one part."""
        return range(parts * self.index // self.count, parts * (self.index + 1) // self.count)


def owner(part: int, parts: int, count: int) -> Shard:
    """Return the one of ``count`` shards that a part belongs to."""
    return Shard((count * (part + 1) - 1) // parts, count)


def find_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """Return the shard of ``i/n``; without text, that of the environment.

    Raises:
        UsageError: another form, or variables that contradict each other.
    """
    if text is not None:
        first, _, last = text.partition("/")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise UsageError(f"shard={text}: must be i/n, with i from 0 to n - 1, such as 0/4.")
        return Shard(int(first), int(last))
    shard = Shard()
    for place in (_array(environment), _process(environment)):
        if place.count > 1:
            origin = " and ".join(name for name in (shard.origin, place.origin) if name)
            index = shard.index * place.count + place.index
            shard = Shard(index, shard.count * place.count, origin)
    return shard


def _array(environment: Mapping[str, str]) -> Shard:
    name, counts = _ARRAY
    if name not in environment or counts not in environment:
        return Shard()
    first = _number(environment, "SLURM_ARRAY_TASK_MIN", 0)
    step = max(_number(environment, "SLURM_ARRAY_TASK_STEP", 1), 1)
    index, rest = divmod(_number(environment, name) - first, step)
    count = _number(environment, counts)
    if rest or not 0 <= index < count:
        raise UsageError(
            f"{name} {environment[name]} is not one of {count} numbers with equal steps from "
            f"{first}: change the array, or pass shard."
        )
    return Shard(index, count, name)


def _process(environment: Mapping[str, str]) -> Shard:
    for name, counts in _PROCESSES:
        if name not in environment:
            continue
        if counts not in environment:
            if name == "JOB_COMPLETION_INDEX":
                raise UsageError(
                    f"{name} is set but {counts} is not: set it to the number of completions, or "
                    "pass shard."
                )
            continue
        index, count = _number(environment, name), _number(environment, counts)
        if not 0 <= index < count:
            raise UsageError(f"{name} {index} is not below {counts} {count}: pass shard.")
        return Shard(index, count, name)
    return Shard()


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} {text!r} is not a whole number: pass shard.") from None
