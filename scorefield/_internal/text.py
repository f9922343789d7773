"""Text to print: lines from files made safe, numbers with their errors, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence


def one_line(text: str, most: int = 1000) -> str:
    """Return text as one line of ``most`` characters, with control characters written out."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip())
    return shown if len(shown) <= most else f"{shown[: most // 2]} … {shown[-(most // 2) :]}"


def short_name(text: str) -> str:
    """Return a name from a file as one line of bounded length."""
    return one_line(text, 160)


def printable(value: str) -> str:
    """Return text with escapes for characters that change how it reads, such as its direction."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in value)


def plus_minus(value: float, error: float) -> str:
    """Return a number and its error, both to two digits of the error."""
    if not 0 < error < math.inf:
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
