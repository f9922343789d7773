"""One axis of a chart: where values lie on it, and which of them get a tick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_TICKS, _ROOM = 5, 0.06

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis, whose values lie at places from 0 to 1.

    Attributes:
        label: the quantity and its unit.
        low, high: the ends of the axis; a logarithmic axis may fall.
        log: whether it is logarithmic.
        ticked: the values that get a tick; round values by default.
    """

    label: str
    low: float
    high: float
    log: bool = False
    ticked: Sequence[float] | None = None

    @classmethod
    def around(cls, label: str, values: Sequence[float], log: bool = False) -> Axis:
        """Return an axis that contains values with some room on both sides.

        A logarithmic axis contains those above 0.
        """
        if log:
            positive = [v for v in values if v > 0] or [1.0]
            grow = max((max(positive) / min(positive)) ** _ROOM, 1.05)
            return cls(label, min(positive) / grow, max(positive) * grow, log=True)
        low, high = min(values), max(values)
        room = _ROOM * (high - low)
        if high - low < 1e-9 * max(abs(low), abs(high)) or high == low:
            room = 0.75 * (abs(high) or 1)
        return cls(label, low - room, high + room)

    def place(self, value: float) -> float:
        """Return the place of a value; a value beyond an end lies at that end."""
        ends = sorted((self.low, self.high))
        value = min(max(value, ends[0]), ends[1])
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The place and the name of each tick."""
        values = self.ticked
        if values is None:
            values = self._decades() if self.log else self._round()
        return [(self.place(v), f"{v:g}") for v in values if self._contains(v)]

    def _contains(self, value: float) -> bool:
        return min(self.low, self.high) <= value <= max(self.low, self.high)

    def _round(self) -> list[float]:
        """Return multiples of 1, 2 or 5 times a power of ten."""
        low, high = sorted((self.low, self.high))
        rough = (high - low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [float(f"{k * step:.12g}") for k in range(first, last + 1)]

    def _decades(self) -> list[float]:
        """Return powers of ten and, if these are few, round values between them."""
        low, high = sorted((math.log10(self.low), math.log10(self.high)))
        powers = range(math.floor(low), math.ceil(high) + 1)
        for parts in ((1, 2, 5), (1, 3), (1,)):
            values = [p * 10.0**k for k in powers for p in parts]
            inside = [v for v in values if self._contains(v)]
            if 2 <= len(inside) <= _TICKS + 2:
                return inside
        return inside[:: -(-len(inside) // _TICKS)] if len(inside) > 1 else self._round()
