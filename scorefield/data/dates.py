"""Dates and times that are written as texts: their formats, and the seconds they stand for.

A format is one of ``strftime``. After a leading ``-`` days and months have no leading zero.
"""

from __future__ import annotations

from typing import Any

_DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y"),
    *("%m-%d-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%b %d %Y", "%b %d, %Y"),
    *("%d %B %Y", "%B %d %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%Y%m%d"),
)
_TIMES = ("%H:%M:%S", "%H:%M", "%I:%M %p", "%I:%M:%S %p")
FORMATS = (
    *(f"{zero}{day}" for zero in ("", "-") for day in _DAYS),
    *_TIMES,
    *("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S"),
    *(f"{zero}{day} {time}" for zero in ("", "-") for day in _DAYS for time in _TIMES),
)


def find_format(texts: Any) -> str:
    """Return the format that reads all of an Arrow array of texts and writes them again, or ''."""
    from pyarrow import compute

    texts = texts.drop_null()
    first = texts[:1]
    for form in FORMATS if len(texts) else ():
        if not read_dates(first, form).null_count:
            seconds = read_dates(texts, form)
            if (
                not seconds.null_count
                and compute.all(compute.equal(write_dates(seconds, form), texts)).as_py()
            ):
                return form
    return ""


def read_dates(texts: Any, form: str) -> Any:
    """Return the seconds since 1970 of an Arrow array of texts, null for others: int64."""
    from pyarrow import compute

    plain = form.removeprefix("-")
    return compute.strptime(texts, format=plain, unit="s", error_is_null=True).cast("int64")


def write_dates(seconds: Any, form: str) -> Any:
    """Return the texts of seconds since 1970."""
    import pyarrow
    from pyarrow import compute

    plain = form.removeprefix("-")
    texts = compute.strftime(seconds.cast(pyarrow.timestamp("s")), format=plain)
    if plain == form:
        return texts
    zero = r"(^|[./ -])0(\d)"
    return compute.replace_substring_regex(
        texts, pattern=zero, replacement=r"\1\2", max_replacements=2
    )
