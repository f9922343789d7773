"""Shards: the share of a job that one process does, as it is told or as its launcher says.

A launcher tells a process its place in environment variables. The tasks of a SLURM array may each
have several processes, and so the places multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scorefield._internal.errors import UsageError

# of a process among those started with it; the first pair that is set tells
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
        origin: the variables that say so, empty if the user did.
    """

    index: int = 0
    count: int = 1
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def share(self, parts: int) -> range:
        """Return its parts: neighbours, and as many as every other shard's or one more."""
        return range(parts * self.index // self.count, parts * (self.index + 1) // self.count)


def owner(part: int, parts: int, count: int) -> Shard:
    """Return which of ``count`` shards has a part in its share."""
    return Shard((count * (part + 1) - 1) // parts, count)


def find_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """Return the shard that ``i/n`` names, or the environment if there is no text.

    Raises:
        UsageError: no shard, or variables that contradict each other.
    """
    if text is not None:
        first, _, last = text.partition("/")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise UsageError(f"--shard {text}: give i/n, with i from 0 to n - 1, such as 0/4.")
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
            f"{name} {environment[name]} is not among {count} evenly spaced from {first}: number "
            "the array so, or give --shard."
        )
    return Shard(index, count, name)


def _process(environment: Mapping[str, str]) -> Shard:
    for name, counts in _PROCESSES:
        if name not in environment:
            continue
        if counts not in environment:
            if name == "JOB_COMPLETION_INDEX":
                raise UsageError(
                    f"{name} is set but {counts} is not: set it to the job's completions, or give "
                    "--shard."
                )
            continue
        index, count = _number(environment, name), _number(environment, counts)
        if not 0 <= index < count:
            raise UsageError(f"{name} {index} is not below {counts} {count}: give --shard.")
        return Shard(index, count, name)
    return Shard()


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} {text!r} is no whole number: give --shard.") from None
