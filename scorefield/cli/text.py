"""Options that are given as text."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield._internal.errors import UsageError


def numbers(option: str, given: Sequence[str]) -> list[int]:
    """Return the whole numbers of an option, with commas or blanks between, in order, each once.

    Raises:
        UsageError: something else.
    """
    words = [word for text in given for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"--{option} {' '.join(given)}: give whole numbers, such as 5,10,20.")
    return sorted({int(word) for word in words})
