"""Text from files on its way to a terminal."""

from __future__ import annotations

_MOST = 1000  # characters


def one_line(text: str) -> str:
    """Return text as one line of limited length, with what a terminal would obey written out."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip())
    return shown if len(shown) <= _MOST else f"{shown[: _MOST // 2]} … {shown[-_MOST // 2 :]}"
