"""The form of a table of text: its dialect and its first row, detected from the first rows."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from scorefield._internal.errors import DataError
from scorefield.data.contents import LINE
from scorefield.data.dialect import MISSING, NUMBER, Dialect, is_header
from scorefield.data.text_files import TextFile

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes", " ": "spaces"}
_SAMPLE, _ROWS = 1 << 20, 500  # characters and rows to detect from
_CLEAR = 0.5  # share of the rows that a delimiter divides, if some are not of the same length


@dataclass(frozen=True)
class Form:
    """The dialect of one file, detected.

    Attributes:
        delimiter, comment: of the dialect; the comment is empty without comments.
        skip: lines before the header or the first row.
        header: whether a row after these lines is the header.
        first: the cells of the header or of the first row.
        has_names: whether these are names.
        width: of the rows; one more than the header if each row ends with a delimiter.
    """

    delimiter: str
    comment: str
    skip: int
    header: bool
    first: tuple[str, ...]
    has_names: bool
    width: int

    @property
    def separated(self) -> str:
        """The separator of the cells in words."""
        return _DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def rows(self, file: TextFile) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of data with their numbers in the file, for messages."""
        with file.text() as text:
            for _ in range(self.skip):
                text.readline()
            reader = csv.reader(text, delimiter=self.delimiter)
            for number, row in islice(enumerate(reader, self.skip + 1), int(self.header), None):
                remark = self.comment and row and row[0].startswith(self.comment)
                blank = not row or (len(row) == 1 and row[0].isspace())
                if not remark and (self.width == 1 or not blank):
                    yield number, row or [""]


def detect(file: TextFile, dialect: Dialect) -> Form:
    """Return the form of a file.

    Raises:
        DataError: a file without rows, or with a line that is too long.
    """
    lines = _first_lines(file)
    marked = re.match(r"sep=(.)\s*$", lines[0]) if lines else None
    skip = int(marked is not None)
    delimiter = dialect.delimiter or (marked[1] if marked else None)
    comment = "#" if dialect.comment is None else dialect.comment
    blank = skip
    while skip < len(lines) and (not lines[skip].strip() or _is_comment(lines[skip], comment)):
        blank += not lines[skip].strip()
        skip += 1
    if skip == len(lines):
        raise DataError(f"{file.path} holds no rows.")
    comments = skip > blank or bool(dialect.comment)
    rest = [line for line in lines[skip:] if not _is_comment(line, comments and comment)]
    delimiter = delimiter or _delimiter(rest, file.path)
    rows = _parsed(rest, delimiter)
    if not rows:
        raise DataError(
            f"{file.path} begins with a cell of more than {csv.field_size_limit():,} characters, "
            "or with a quotation mark that opens a cell without end."
        )
    missing = MISSING if dialect.na is None else frozenset(("", *map(str.lower, dialect.na)))
    names = _named_by_comment(lines[skip - 1], comment, delimiter, rows, missing)
    if names and dialect.comment is None and dialect.header is None:
        return Form(delimiter, comment, skip, False, names, True, len(names))
    header = is_header(rows[0], missing) if dialect.header is None else dialect.header
    if not header and len(rows[0]) == 1 and not comments:
        skip = int(marked is not None)  # an empty line is a missing value
        rows = [[""]] * (blank - skip) + rows
    width = len(rows[0])
    ends = [row[-1].strip() for row in rows[1:] if len(row) == width + 1]
    width += header and bool(ends) and len(ends) == len(rows) - 1 and not any(ends)
    first = tuple(rows[0]) + ("",) * (width - len(rows[0]))
    return Form(delimiter, comment * comments, skip, header, first, header, width)


def _first_lines(file: TextFile) -> list[str]:
    """Return the first whole lines of a file, without their ends."""
    with file.text() as text:
        sample = text.read(_SAMPLE)
        if len(sample) == _SAMPLE and not re.search(r"[\r\n]", sample):
            sample += text.readline(LINE)
            if len(sample) >= LINE:
                raise DataError(
                    f"{file.path} holds a line of {LINE:,} characters or more: too long for a row."
                )
        complete = not text.read(1)
    lines = io.StringIO(sample, newline=None).read().split("\n")
    # after the last end of a line is nothing, or a line that the sample cuts
    return lines if complete and lines[-1] else lines[:-1]


def _is_comment(line: str, comment: str | bool) -> bool:
    return bool(comment) and line.startswith(str(comment))


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Return the first rows that are not empty, up to one that cannot be parsed."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter)
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(islice(filter(None, reader), _ROWS))
    return rows


def _delimiter(lines: Sequence[str], path: Path) -> str:
    """Return the delimiter that divides all rows alike; if several do, that of most numbers.

    A file that none divides has one column, or rows of different lengths that reading refuses.
    """
    usual = "\t" if ".tsv" in path.name.lower() else ","
    alike, shares = {}, {}
    for delimiter in sorted(_DELIMITERS, key=lambda d: d != usual):
        rows = _parsed(lines, delimiter)
        if not rows:
            continue
        widths = Counter(map(len, rows[1:] or rows))
        width = widths.most_common(1)[0][0]
        cells = [cell.strip() for row in rows for cell in row]
        numbers = sum(bool(NUMBER.fullmatch(cell)) for cell in cells) / len(cells)
        ends = not any(row[-1].strip() for row in rows[1:])
        whole = len(widths) == 1 and width - len(rows[0]) in (0, int(ends))
        if delimiter == " ":
            whole = whole and numbers > _CLEAR  # else texts of as many words
        elif width > 1:
            shares[delimiter] = widths[width] / widths.total()
        if width > 1 and whole:
            alike[delimiter] = numbers
    if alike:
        return max(alike, key=lambda d: alike[d])
    best = max(shares, key=lambda d: shares[d], default=usual)
    return best if shares.get(best, 0) > _CLEAR else usual


def _named_by_comment(
    line: str, comment: str, delimiter: str, rows: list[list[str]], missing: frozenset[str]
) -> tuple[str, ...]:
    """Return the names of columns in a comment right before the rows, if it is a header."""
    if not _is_comment(line, comment) or is_header(rows[0], missing):
        return ()
    names = next(csv.reader([line.lstrip(comment).strip()], delimiter=delimiter), [])
    return tuple(names) if 1 < len(names) == len(rows[0]) and is_header(names) else ()
