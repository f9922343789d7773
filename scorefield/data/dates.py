"""Dates and times that are written as texts: their formats, and the ticks they stand for.

A format is one of ``strftime``, behind these flags: ``-`` for days and months without a leading
zero, ``--`` for hours too, and ``^`` and ``_`` for names of months in upper and lower case. Behind
it may stand the decimals of the seconds, as in ``.%3f``, and the offset to UTC, if all texts have
the same: ``%Y-%m-%dT%H:%M:%S.%3f+02:00``. A tick is the last decimal of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

_DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y"),
    *("%m-%d-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%b %d %Y", "%b %d, %Y"),
    *("%d %B %Y", "%B %d %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%d%b%Y", "%Y%m%d"),
)
_TIMES = ("%H:%M:%S", "%H:%M", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")
_PLAIN = (
    *(f"{zero}{day}" for zero in ("", "-") for day in _DAYS),
    *(f"{zero}{time}" for zero in ("", "--") for time in _TIMES),
    *("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%Y-%m-%dT%H:%M:%S"),
    *(f"{zero}{day} {time}" for zero in ("", "-", "--") for day in _DAYS for time in _TIMES),
)
FORMATS = (
    *_PLAIN,
    *(f"{case}{form}" for form in _PLAIN if re.search("%[bBp]", form) for case in "^_"),
)
_ENDS = r"(?:\.{digits})?(Z|[+-]\d\d:?\d\d)?"
_FORM = re.compile(r"([-^_]*)(.*?)" + _ENDS.format(digits=r"%(\d)f"))
_TEXT = re.compile(r"(.*?\d:\d\d(?::\d\d)?)" + _ENDS.format(digits=r"(\d{1,9})"))


class _Parts(NamedTuple):
    flags: str
    plain: str
    digits: int
    zone: str

    @classmethod
    def of(cls, form: str) -> _Parts:
        match = _FORM.fullmatch(form)
        assert match is not None  # as all texts match
        return cls(match[1], match[2], int(match[3] or 0), match[4] or "")


def dates(text: str) -> Iterator[str]:
    """Yield the formats that read a text and write it again."""
    import pyarrow
    from pyarrow import compute

    match = _TEXT.fullmatch(text)
    ends = ""
    if match:
        ends = (f".%{len(match[2])}f" if match[2] else "") + (match[3] or "")
    one = pyarrow.array([text])
    for plain in _by_shape().get(_shape(match[1] if match else text), ()):
        form = plain + ends
        ticks = read_dates(one, form)
        if not ticks.null_count and compute.equal(write_dates(ticks, form), one)[0].as_py():
            yield form


@cache
def _by_shape() -> dict[str, list[str]]:
    """Return the formats by the shapes of their texts."""
    shapes: dict[str, list[str]] = {}
    for form in FORMATS:
        text = re.sub("%[bBp]", "a", form.lstrip("-^_"))
        shapes.setdefault(_shape(re.sub("%[a-zA-Z]", "0", text)), []).append(form)
    return shapes


def _shape(text: str) -> str:
    """Return a text with one digit for each number and one letter for each word."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", text))


def digits_of(form: str) -> int:
    """Return the number of decimals of the seconds of a format."""
    return _Parts.of(form).digits


def read_dates(texts: Any, form: str) -> Any:
    """Return the ticks since 1970 of an Arrow array of texts, null for others: int64."""
    import pyarrow
    from pyarrow import compute

    _, plain, digits, zone = _Parts.of(form)
    rest = rf"\.\d{{{digits}}}" * bool(digits) + re.escape(zone)
    if rest:
        ended = compute.match_substring_regex(texts, rf"{rest}$")
        texts = compute.if_else(ended, texts, None)
        texts = compute.utf8_slice_codeunits(texts, 0, -len(zone) or None)
    fraction: Any = 0
    if digits:
        fraction = compute.utf8_slice_codeunits(texts, -digits).cast("int64")
        texts = compute.utf8_slice_codeunits(texts, 0, -digits - 1)
    seconds = compute.strptime(texts, format=plain, unit="s", error_is_null=True).cast("int64")
    return compute.add(compute.multiply(seconds, pyarrow.scalar(10**digits)), fraction)


def write_dates(ticks: Any, form: str) -> Any:
    """Return the texts of ticks since 1970."""
    import pyarrow
    from pyarrow import compute

    flags, plain, digits, zone = _Parts.of(form)
    absent = ticks.is_null().to_numpy(zero_copy_only=False)
    seconds, rest = np.divmod(ticks.fill_null(0).to_numpy(), 10**digits)
    times = pyarrow.array(seconds, mask=absent).cast(pyarrow.timestamp("s"))
    if "-" not in flags:
        texts = compute.strftime(times, format=plain)
    else:
        short = ("%d", "%m", "%H", "%I") if "--" in flags else ("%d", "%m")
        pieces = [piece for piece in re.split("(%[a-zA-Z])", plain) if piece]
        written = [
            compute.replace_substring_regex(text, pattern="^0", replacement="")
            if piece in short
            else text
            for piece in pieces
            for text in [compute.strftime(times, format=piece)]
        ]
        texts = compute.binary_join_element_wise(*written, "")
    if "^" in flags:
        texts = compute.utf8_upper(texts)
    elif "_" in flags:
        texts = compute.utf8_lower(texts)
    end = [f".{k:0{digits}d}{zone}" for k in rest.tolist()] if digits else zone
    return compute.binary_join_element_wise(texts, end if digits == 0 else pyarrow.array(end), "")
