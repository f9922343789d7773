"""Arguments of a network of another library: JSON that is checked before the network is built.

The JSON may come from an untrusted file. It is rejected if it has names that the class does not
accept, or numbers that would exhaust the memory or never end a loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

_LONGEST = 2**16  # characters
_MOST = 1000  # values in total
_LARGEST = 2**20  # absolute value of a number
_BLOCKS = 256  # scales times layers


def parse(text: str, names: Collection[str], owner: str) -> dict[str, Any]:
    """Return the arguments of a network from JSON.

    Args:
        text: the JSON.
        names: the arguments that the class accepts.
        owner: the name of the class.

    Raises:
        ValueError: not a JSON object of plain values with these names; or one that is too large.
    """
    if len(text) > _LONGEST:
        raise ValueError(
            f"arguments of {owner} have {len(text):,} characters: at most {_LONGEST:,} are allowed."
        )
    try:
        values = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"arguments of {owner} are not JSON: {str(error)[:100]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"arguments of {owner} are not a JSON object.")
    if unknown := sorted(set(values) - set(names)):
        raise ValueError(f"{owner} has no argument {unknown[0]!r}.")
    for name, value in values.items():
        if problem := _problem(value):
            raise ValueError(f"arguments of {owner}: {name} contains {problem}.")
    if sum(map(_count, values.values())) > _MOST:
        raise ValueError(f"arguments of {owner} contain more than {_MOST:,} values.")
    _check_blocks(values, owner)
    return values


def _check_blocks(values: dict[str, Any], owner: str) -> None:
    scales = max([1, *(len(value) for value in values.values() if isinstance(value, list))])
    layers = math.prod(_greatest(value) for name, value in values.items() if "layers" in name)
    if scales * layers > _BLOCKS:
        raise ValueError(
            f"arguments of {owner} give {scales * layers:,} blocks: at most {_BLOCKS:,} are valid."
        )


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _problem(value: Any, depth: int = 0) -> str:
    """Return a description of the problem with a value, or an empty text."""
    if isinstance(value, list) and depth < 2:
        return next(filter(None, (_problem(item, depth + 1) for item in value)), "")
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        return f"a number beyond {_LARGEST:,}"
    if isinstance(value, str | int | float | None):
        return ""
    return "a value that is not a number, a text or a list of these"


def _count(value: Any) -> int:
    return sum(map(_count, value)) + 1 if isinstance(value, list) else 1


def _greatest(value: Any) -> int:
    """Return the greatest integer in a value, or 1."""
    if isinstance(value, list):
        return max([1, *map(_greatest, value)])
    return max(1, math.ceil(value)) if isinstance(value, int | float) else 1
