"""Names and numbers as the page and the charts write them."""

from __future__ import annotations

from scorefield._internal.text import one_line

_NAME = 160  # characters


def printable(value: str) -> str:
    """Return text with escapes for characters that change how it reads, such as its direction."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in value)


def short_name(text: str) -> str:
    """Return a name from a file as one line of bounded length."""
    return one_line(text, _NAME)
