"""Numbers that are written as texts with a currency, a percent sign or a unit.

A format is the text of 1000, or of -1000 if the sign has another place than the first:
``$1,000.00``, ``1.000,00 €``, ``1000%``, ``1000 kg``, ``$-1000``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_MONEY = "[$€£¥₹₩₽₺₫₪₱฿₦]"
_SPACE = "[ \u00a0\u202f]?"
# currencies by their ISO codes: other capitals before digits are codes of articles
_CODE = (
    "(?:USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|RUB|UAH|TRY|ILS|"
    "BRL|MXN|ARS|CLP|COP|ZAR|NGN|EGP|KRW|TWD|SGD|HKD|THB|IDR|MYR|PHP|VND|AED|SAR)"
)
_PREFIX = rf"[A-Z]{{0,3}}{_MONEY}{_SPACE}|{_CODE}{_SPACE}"
_UNIT = r"°?[^\W\d_]{1,12}[²³]?"
_SUFFIX = rf"{_SPACE}(?:[%‰]|{_MONEY}|{_UNIT}(?:/{_UNIT})?)"
_AMOUNT = re.compile(rf"(-?)({_PREFIX})?(-?)(\d[\d,.'\u00a0\u202f ]*\d|\d)({_SUFFIX})?", re.UNICODE)
_THOUSAND = re.compile(r"1(\D?)000(?:(\D)(0+))?")
_GROUPS = ("", ",", ".", "'", " ", "\u00a0", "\u202f")
_MOST_DIGITS = 17  # of 64 bits


class _Parts(NamedTuple):
    """A format: around the number, between groups of digits, and before the decimals."""

    prefix: str
    suffix: str
    inner_sign: bool
    group: str
    point: str
    digits: int

    @classmethod
    def of(cls, form: str) -> _Parts | None:
        """Return the parts of a format, or None for a text that is none."""
        match = _AMOUNT.fullmatch(form)
        thousand = match and _THOUSAND.fullmatch(match[4])
        if not match or not thousand or not (match[2] or match[5]):
            return None
        point, zeros = thousand[2] or "", thousand[3] or ""
        return cls(match[2] or "", match[5] or "", bool(match[3]), thousand[1], point, len(zeros))

    def write(self, number: int) -> str:
        """Return the text of a number of units of the last decimal."""
        whole, rest = divmod(abs(number), 10**self.digits)
        text = f"{whole:,}".replace(",", self.group)
        text += f"{self.point}{rest:0{self.digits}d}" if self.digits else ""
        outer, inner = ("", "") if number >= 0 else ("", "-") if self.inner_sign else ("-", "")
        return f"{outer}{self.prefix}{inner}{text}{self.suffix}"

    def read(self, text: str) -> int | None:
        """Return the number of units of a text, or None for a text of another format."""
        match = _AMOUNT.fullmatch(text)
        digits = re.sub(r"\D", "", match[4]) if match else ""
        if match is None or not digits.isascii() or len(digits) > _MOST_DIGITS:
            return None
        number = -int(digits) if match[1] or match[3] else int(digits)
        return number if self.write(number) == text else None


def amounts(text: str) -> Iterator[str]:
    """Yield the formats that a text may have."""
    match = _AMOUNT.fullmatch(text)
    if not match or not (match[2] or match[5]):
        return
    last = re.search(r"([.,])(\d+)$", match[4])
    for point, digits in [("", 0), *([(last[1], len(last[2]))] if last else [])]:
        for group in _GROUPS:
            around = match[2] or "", match[5] or ""
            form = _Parts(*around, bool(match[3]), group, point, digits)
            if (not group or group != point) and form.read(text) is not None:
                yield form.write((-1000 if match[3] else 1000) * 10**digits)


def is_amount(form: str) -> bool:
    """Return whether a format is one of this module."""
    return _Parts.of(form) is not None


def has_symbol(form: str) -> bool:
    """Return whether an amount has a currency or a percent sign, as no category has."""
    return re.search(rf"{_MONEY}|[%‰]|^-?{_CODE}", form) is not None


def decimals(form: str) -> int:
    """Return the number of decimals of a format, 0 for another one."""
    parts = _Parts.of(form)
    return parts.digits if parts else 0


def read_amounts(texts: Any, form: str) -> Any:
    """Return numbers of units of the last decimal, null for texts of other formats: int64."""
    import pyarrow

    parts = _Parts.of(form)
    return _each(texts, lambda text: parts and parts.read(text), pyarrow.int64())


def write_amounts(numbers: Any, form: str) -> Any:
    """Return the texts of numbers of units of the last decimal."""
    import pyarrow

    parts = _Parts.of(form)
    return _each(numbers, lambda number: parts and parts.write(number), pyarrow.string())


def _each(values: Any, function: Callable[[Any], Any], kind: Any) -> Any:
    """Return a function of each value, which is called once for equal ones."""
    import pyarrow
    from pyarrow import compute

    unique = values.unique()
    results = [None if value is None else function(value) for value in unique.to_pylist()]
    return pyarrow.array(results, kind).take(compute.index_in(values, value_set=unique))
