"""Text from files, made safe to print."""

from __future__ import annotations


def one_line(text: str, most: int = 1000) -> str:
    """Return text as one line of ``most`` characters, with control characters written out."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip())
    return shown if len(shown) <= most else f"{shown[: most // 2]} … {shown[-(most // 2) :]}"
