"""Declared bounds of a column of numbers, such as ``0..100``, ``0..`` and ``..1.5``."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import NamedTuple

from scorefield.data.config import NumberColumn

_END = r"([-+]?\d{1,30}(?:\.\d{1,30})?(?:e[-+]?\d\d?)?)?"
_PATTERN = re.compile(rf"{_END}\.\.{_END}")
_ROUNDING = 1e-9  # of a step


class Bounds(NamedTuple):
    """The least and the greatest number that a column may have; None without such a bound."""

    low: Fraction | None
    high: Fraction | None

    @classmethod
    def of(cls, text: str | None) -> Bounds | None:
        """Return the bounds that a text names, or None if it names none, or none in order."""
        match = _PATTERN.fullmatch(text or "")
        if match is None or match[0] == "..":
            return None
        low, high = (None if end is None else Fraction(end) for end in match.groups())
        return cls(low, high) if low is None or high is None or low < high else None

    def applied(self, column: NumberColumn) -> NumberColumn:
        """Return a column with these ends, or the nearest ones inside them on its grid.

        An end without a bound stays that of the column.
        """
        low, high = (
            end if bound is None else float((bound - column.offset) / column.unit)
            for bound, end in zip(self, (column.low, column.high), strict=True)
        )
        if step := column.step:
            below = math.floor((column.low - low) / step + _ROUNDING)
            above = math.floor((high - column.high) / step + _ROUNDING)
            low = round(column.low - below * step, column.digits)
            high = round(column.high + above * step, column.digits)
        return column.model_copy(update={"low": low, "high": high})
