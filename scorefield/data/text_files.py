"""Files of text, plain or packed by gzip: their encoding, and checks of all their bytes."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, TextIO, cast

from scorefield._internal import files
from scorefield._internal.errors import DataError
from scorefield.data.contents import check_size

_BLOCK = 1 << 20
_MARKS = {  # a mark of four bytes begins with one of two
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    b"PK\3\4": "an archive or a workbook",
    b"\xd0\xcf\x11\xe0": "a workbook",
    b"\x1f\x8b": "packed by gzip",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"PAR1": "parquet",
    b"ARROW1": "an Arrow file",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "HDF5",
    b"SQLite format 3": "a database",
    b"%PDF": "a PDF document",
    b"{\\rtf": "a document",
    b"version https://git-lfs": "a pointer of Git LFS, not the file (git lfs pull fetches it)",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "XML",
}
_OBJECTS = {
    b'{"': "JSON (a file of one object a line ends in .jsonl)",
    b"[{": "JSON (save one object a line, and end the name in .jsonl)",
}
_WESTERN = "cp1252"  # latin-1 with the characters that Windows puts in its place


@dataclass(frozen=True)
class TextFile:
    """A file of text.

    Attributes:
        path: of the file; one that ends in ``.gz`` is unpacked.
        encoding: of its bytes.
        odd_quotes: whether the number of quotation marks is odd.
    """

    path: Path
    encoding: str
    odd_quotes: bool = False

    @classmethod
    def of(cls, path: Path, encoding: str | None, *, objects: bool = False) -> TextFile:
        """Return a file whose encoding is detected from all of its bytes, and check these.

        Args:
            objects: whether it may begin with an object of JSON, as no table of text does.

        Raises:
            DataError: bytes of another encoding or of no text; more text than memory.
        """
        with opened(path) as file:
            start = file.read(64)
        begin = start.removeprefix(codecs.BOM_UTF8).lstrip()
        begins = (start, begin, begin.lower())
        others = _OTHERS if objects else _OTHERS | _OBJECTS
        for sign, kind in others.items():
            if any(text.startswith(sign) for text in begins):
                raise DataError(
                    f"{path} is not a table of text: it is {kind}. Save a table, or correct the "
                    "ending of its name."
                )
        mark = next((codec for mark, codec in _MARKS.items() if start.startswith(mark)), None)
        codec = encoding or mark or "utf-8"
        try:
            return cls(path, codec, _odd_quotes(path, codec))
        except UnicodeDecodeError as error:
            if codec != "utf-8" or encoding:
                raise DataError(_undecoded(path, codec, error)) from None
        try:
            return cls(path, _WESTERN, _odd_quotes(path, _WESTERN))
        except UnicodeDecodeError as error:
            raise DataError(_undecoded(path, f"utf-8 or {_WESTERN}", error)) from None

    def bytes(self) -> BinaryIO:
        """Return the file opened for reading bytes, unpacked."""
        return opened(self.path)

    def text(self) -> TextIO:
        """Return the file opened for reading text, with its line ends."""
        return io.TextIOWrapper(cast(IO[bytes], self.bytes()), self.encoding, newline="")


def opened(path: Path) -> BinaryIO:
    """Return a file opened for reading bytes, unpacked if its name ends in ``.gz``."""
    if path.suffix.lower() != ".gz":
        return files.opened(path)
    files.check(path)
    return cast(BinaryIO, gzip.open(path))


def _odd_quotes(path: Path, encoding: str) -> bool:
    """Return whether the number of quotation marks in a file is odd.

    Raises:
        DataError: text with zero bytes, or more than memory.
        UnicodeDecodeError: bytes of another encoding.
    """
    quotes, size = 0, 0
    for text, size in _decoded(path, encoding):
        check_size(path, size)
        quotes += text.count('"')
        if "\0" in text:
            raise DataError(
                f"{path} holds zero bytes, which text does not: save it as UTF-8"
                + (
                    ", or pass its encoding, as in encoding='utf-16'."
                    if encoding[:3] == "utf"
                    else "."
                )
            )
    if not size:
        raise DataError(f"{path} is empty: it holds no rows.")
    return quotes % 2 == 1


def _decoded(path: Path, encoding: str) -> Iterator[tuple[str, int]]:
    """Yield the text of a file with the number of bytes so far."""
    decoder, size = codecs.getincrementaldecoder(encoding)(), 0
    with opened(path) as file:
        while block := file.read(_BLOCK):
            size += len(block)
            yield decoder.decode(block), size
    yield decoder.decode(b"", final=True), size


def _undecoded(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return (
        f"{path} is not text in {encoding}: it holds the byte 0x{byte:02x}. Pass its encoding, as "
        "in encoding='latin-1', or save it as UTF-8."
    )
