"""What a network of another library is made with: JSON that is checked before anything is made.

It may come from anywhere. Refused are numbers that would make a network beyond all memory or keep a
loop going without end, and what the network's class has no name for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

_LONGEST = 2**16  # characters
_MOST = 1000  # values in all
_LARGEST = 2**20  # of a number
_BLOCKS = 256  # levels times layers


def parse(text: str, known: Collection[str], owner: str) -> dict[str, Any]:
    """Return the arguments of a network from JSON.

    Args:
        known: the names its class takes.
        owner: what the class is called.

    Raises:
        ValueError: no JSON object of plain values under these names; or one too large.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"arguments of {owner}: {len(text):,} characters of at most {_LONGEST:,}.")
    try:
        values = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"arguments of {owner} are no JSON: {str(error)[:100]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"arguments of {owner} are no JSON object of names and values.")
    if strange := sorted(set(values) - set(known)):
        raise ValueError(f"{owner} has no argument {strange[0]!r}.")
    for name, value in values.items():
        if problem := _problem(value):
            raise ValueError(f"arguments of {owner}: {name} holds {problem}.")
    if sum(map(_count, values.values())) > _MOST:
        raise ValueError(f"arguments of {owner} hold more than {_MOST:,} values.")
    _check_blocks(values, owner)
    return values


def _check_blocks(values: dict[str, Any], owner: str) -> None:
    levels = max([1, *(len(value) for value in values.values() if isinstance(value, list))])
    layers = math.prod(_greatest(value) for name, value in values.items() if "layers" in name)
    if levels * layers > _BLOCKS:
        raise ValueError(
            f"arguments of {owner}: {levels * layers:,} blocks, where {_BLOCKS:,} are the most."
        )


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _problem(value: Any, depth: int = 0) -> str:
    """Return what is wrong with a value, or nothing."""
    if isinstance(value, list) and depth < 2:
        return next(filter(None, (_problem(item, depth + 1) for item in value)), "")
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        return f"a number beyond {_LARGEST:,}"
    if isinstance(value, str | int | float | None):
        return ""
    return "more than numbers, texts and lists of them"


def _count(value: Any) -> int:
    return sum(map(_count, value)) + 1 if isinstance(value, list) else 1


def _greatest(value: Any) -> int:
    """Return the greatest integer in a value, 1 at least."""
    if isinstance(value, list):
        return max([1, *map(_greatest, value)])
    return max(1, math.ceil(value)) if isinstance(value, int | float) else 1
