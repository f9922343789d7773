"""Names and numbers as the page says them."""

from __future__ import annotations

import math

from scorefield._internal.text import one_line

_NAME = 160  # characters


def named(text: str) -> str:
    """Return a name from a file as one line that is not too long."""
    return one_line(text, _NAME)


def plus_minus(value: float, error: float) -> str:
    """Return a number and its error, both to two digits of the error."""
    if not 0 < error < math.inf:
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
