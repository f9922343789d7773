"""Text from a terminal, and on its way there."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.errors import UsageError

_MOST = 1000  # characters


def one_line(text: str) -> str:
    """Return text as one line of limited length, with what a terminal would obey written out."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip())
    return shown if len(shown) <= _MOST else f"{shown[: _MOST // 2]} … {shown[-_MOST // 2 :]}"


def numbers(option: str, given: Sequence[str]) -> list[int]:
    """Return the whole numbers of an option, with commas or blanks between, in order, each once.

    Raises:
        UsageError: something else.
    """
    words = [word for text in given for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"--{option} {' '.join(given)}: give whole numbers, such as 5,10,20.")
    return sorted({int(word) for word in words})
