"""Files as their owners hold them: each comes back with its values and types, or is refused.

A case is a file that the test makes, and an expectation with a method ``check``. To add a case,
append to `CASES`; to add a kind of file, write another expectation.
"""

import datetime
import decimal
import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from odd_arrays import ARRAYS
from odd_images import IMAGES
from pyarrow import parquet

from scorefield._internal.errors import DataError, UsageError
from scorefield.data import read
from scorefield.data.contents import Use
from scorefield.data.dialect import Dialect
from scorefield.data.formats import read_file
from scorefield.data.source import read_contents
from scorefield.data.tabular import Choices, Table
from scorefield.runs.jobs.tables import write_table


@dataclass(frozen=True)
class Columns:
    """A table of these columns, with types by Arrow's names and a part of the note on its form."""

    columns: dict
    types: dict = field(default_factory=dict)
    note: str = ""

    def check(self, path, **options):
        contents = read_file(path, use=use(**options))
        table = contents.table
        expected = {
            name: pa.array(cells, self.types.get(name)) for name, cells in self.columns.items()
        }
        assert table.to_pydict() == {name: cells.to_pylist() for name, cells in expected.items()}
        assert table.schema.types == [cells.type for cells in expected.values()]
        assert self.note in " ".join(contents.notes)


@dataclass(frozen=True)
class Refused:
    """A refusal that names the file and has these parts."""

    parts: tuple

    def check(self, path, **options):
        with pytest.raises(DataError) as refused:
            read(path, **options)
        text = str(refused.value)
        assert str(path) in text or text.startswith("without=")
        assert [part for part in self.parts if part not in text] == [], text


@dataclass(frozen=True)
class Case:
    """A file by its name and its content: text, bytes, or a function that writes it."""

    id: str
    name: str
    content: str | bytes | Callable[[Path], None]
    expected: object
    options: dict = field(default_factory=dict)


def use(without=(), columns=None, **dialect):
    """Return the choice of columns for arguments of `read`."""
    return Use.of((), without, None, Dialect(**dialect), Choices.of(columns).texts)


def refused(*parts):
    return Refused(parts)


def parquet_of(table, **options):
    return lambda path: parquet.write_table(pa.table(table), path, **options)


XY = {"x": [1, 2, 3], "y": [2.5, 3.5, 4.5]}
POINTS = "x,y\n1,2.5\n2,3.5\n3,4.5\n"
WORDS = {"city": ["Köln", "Málaga"], "x": [1, 2]}


def points(delimiter=",", end="\n", comma=False):
    """Return the text of `XY` in another dialect."""
    text = POINTS.replace(",", delimiter).replace("\n", end)
    return text.replace(".", ",") if comma else text


def lines(name, cells):
    return "".join(f"{cell}\n" for cell in [name, *cells])


DIALECTS = [
    Case("commas", "t.csv", POINTS, Columns(XY, note="separated by commas, header")),
    Case("semicolons", "t.csv", points(";"), Columns(XY, note="separated by semicolons")),
    Case("tabs", "t.csv", points("\t"), Columns(XY, note="separated by tabs")),
    Case("pipes", "t.csv", points("|"), Columns(XY, note="separated by pipes")),
    Case("spaces", "t.txt", points(" "), Columns(XY, note="separated by spaces")),
    Case("tsv", "t.tsv", points("\t"), Columns(XY, note="separated by tabs")),
    Case("tsv of commas", "t.tsv", POINTS, Columns(XY, note="separated by commas")),
    Case("txt of semicolons", "t.txt", points(";"), Columns(XY)),
    Case("another delimiter", "t.txt", points(":"), Columns(XY), {"delimiter": ":"}),
    Case("tab by name", "t.txt", points("\t"), Columns(XY), {"delimiter": "tab"}),
    Case("upper case", "T.CSV", POINTS, Columns(XY)),
    Case("upper case of tabs", "T.TSV", points("\t"), Columns(XY)),
    Case("packed", "t.csv.gz", gzip.compress(POINTS.encode()), Columns(XY)),
    Case("packed tsv", "t.TSV.GZ", gzip.compress(points("\t").encode()), Columns(XY)),
    Case("packed txt", "t.txt.gz", gzip.compress(points(";").encode()), Columns(XY)),
    Case("packed, not named so", "t.csv", gzip.compress(POINTS.encode()), refused("gzip")),
    Case("half a packed file", "t.csv.gz", gzip.compress(POINTS.encode())[:-9], refused("end")),
    Case("windows", "t.csv", points(end="\r\n"), Columns(XY)),
    Case("old mac", "t.csv", points(end="\r"), Columns(XY)),
    Case("no end of line", "t.csv", POINTS[:-1], Columns(XY)),
    Case("excel's first line", "t.csv", "sep=;\r\n" + points(";", "\r\n", True), Columns(XY)),
    Case("empty lines", "t.csv", "\n\n" + points(end="\n\n") + "\n  \n", Columns(XY)),
    Case("spaces around cells", "t.csv", points(" , "), Columns(XY)),
    Case("text with commas in a file of semicolons", "t.csv", "n;t\n1;a, b\n2;c, d, e\n",
         Columns({"n": [1, 2], "t": ["a, b", "c, d, e"]})),
    Case("commas in all texts of a file of tabs", "t.txt", "n\tt\n|1|\ta,b\n|2|\tc,d\n",
         Columns({"n": ["|1|", "|2|"], "t": ["a,b", "c,d"]})),
    Case("one row", "t.csv", "a;b\n1,5;2\n", Columns({"a": [1.5], "b": [2]})),
    Case("commas in a header of semicolons", "t.csv", "a, b;c\n1;2\n3;4\n",
         Columns({"a, b": [1, 3], "c": [2, 4]})),
]  # fmt: skip

ENCODINGS = [
    Case("bom", "t.csv", ("\ufeff" + POINTS).encode(), Columns(XY)),
    Case("utf-8", "t.csv", "city,x\nKöln,1\nMálaga,2\n".encode(), Columns(WORDS)),
    Case("latin-1", "t.csv", "city,x\nKöln,1\nMálaga,2\n".encode("latin-1"),
         Columns(WORDS, note="encoding cp1252")),
    Case("windows-1252", "t.csv", "price,x\n5 €,1\n7 €,2\n".encode("cp1252"),
         Columns({"price": ["5 €", "7 €"], "x": [1, 2]})),
    Case("latin-1 late in the file", "t.csv",
         b"t,x\n" + b"a,1\n" * 300_000 + "é,2\n".encode("latin-1"),
         Columns({"t": ["a"] * 300_000 + ["é"], "x": [1] * 300_000 + [2]})),
    Case("utf-16", "t.csv", POINTS.encode("utf-16"), Columns(XY, note="encoding utf-16")),
    Case("utf-16 without a mark", "t.csv", POINTS.encode("utf-16-le"),
         refused("zero bytes", "encoding='utf-16'")),
    Case("utf-16 as said", "t.csv", POINTS.encode("utf-16-le"), Columns(XY),
         {"encoding": "utf-16-le"}),
    Case("shift-jis", "t.csv", "名,x\n東京,1\n大阪,2\n".encode("shift-jis"), refused("encoding=")),
    Case("shift-jis as said", "t.csv", "名,x\n東京,1\n大阪,2\n".encode("shift-jis"),
         Columns({"名": ["東京", "大阪"], "x": [1, 2]}), {"encoding": "shift-jis"}),
    Case("another encoding than said", "t.csv", "x\né\n".encode("latin-1"),
         refused("not text in utf-8", "0xe9"), {"encoding": "utf-8"}),
    Case("names in any script", "t.csv", "größe,位,😀\n1,2,3\n",
         Columns({"größe": [1], "位": [2], "😀": [3]})),
]  # fmt: skip

NUMBERS = [
    Case("decimal commas", "t.csv", points(";", comma=True), Columns(XY, note="decimal commas")),
    Case("decimal commas in quotes", "t.csv", 'x,y\n1,"2,5"\n2,"3,5"\n',
         Columns({"x": [1, 2], "y": [2.5, 3.5]})),
    Case("thousands", "t.csv", 'x,y\n"1,234",1\n"12,345,678",2\n',
         Columns({"x": [1234, 12345678], "y": [1, 2]})),
    Case("thousands and decimals", "t.csv", 'x\n"1,234.5"\n"-12,345.25"\n7\n',
         Columns({"x": [1234.5, -12345.25, 7.0]})),
    Case("thousands as in german", "t.csv", "x;y\n1.234,5;1.000\n2,25;2.000.000\n",
         Columns({"x": [1234.5, 2.25], "y": [1000, 2_000_000]})),
    Case("thousands as in french", "t.csv", "x;y\n1 234,5;1\n12\u202f345,25;2\n",
         Columns({"x": [1234.5, 12345.25], "y": [1, 2]})),
    Case("thousands as in swiss", "t.csv", "x;y\n1'234.5;1\n12’345.25;2\n",
         Columns({"x": [1234.5, 12345.25], "y": [1, 2]})),
    Case("thousands or decimals", "t.csv", "x;y\n1,234;1\n5,678;2\n",
         refused("column x", "'1,234'", "decimal='.'")),
    Case("thousands, as said", "t.csv", "x;y\n1,234;1\n5,678;2\n",
         Columns({"x": [1234, 5678], "y": [1, 2]}), {"decimal": "."}),
    Case("three decimals, as said", "t.csv", "x;y\n1,234;1\n5,678;2\n",
         Columns({"x": [1.234, 5.678], "y": [1, 2]}), {"decimal": ","}),
    Case("three decimals with a zero", "t.csv", "x;y\n0.234;1\n5.678;2\n",
         Columns({"x": [0.234, 5.678], "y": [1, 2]})),
    Case("points and commas", "t.csv", "x;y\n1,5;1.5\n2,5;2.25\n",
         refused("column x", "'1,5'", "column y", "'1.5'", "decimal=")),
    Case("postal codes", "t.csv", "zip,x\n01234,1\n12345,2\n",
         Columns({"zip": ["01234", "12345"], "x": [1, 2]})),
    Case("codes with and without a letter", "t.csv", "d,x\n01,1\n2A,2\n13,3\n",
         Columns({"d": ["01", "2A", "13"], "x": [1, 2, 3]})),
    Case("large whole numbers", "t.csv", "x\n9007199254740993\n-9223372036854775808\n",
         Columns({"x": [9007199254740993, -9223372036854775808]})),
    Case("unsigned numbers", "t.csv", "x\n18446744073709551615\n1\n",
         Columns({"x": [18446744073709551615, 1]}, {"x": "uint64"})),
    Case("whole numbers beyond 64 bits", "t.csv", "x\n1\n123456789012345678901234567890\n",
         refused("row 3", "column x", "1234567890", "64 bits", 'x=drop"')),
    Case("long digits as texts", "t.csv", "x\n123456789012345678901234567890\n1\n",
         Columns({"x": ["123456789012345678901234567890", "1"]}), {"columns": "x=category"}),
    Case("all digits of a number", "t.csv", "x\n0.1\n0.30000000000000004\n1e-300\n",
         Columns({"x": [0.1, 0.30000000000000004, 1e-300]})),
    Case("signs and exponents", "t.csv", "x,n\n+1.5E3,+5\n-.5,-7\n5.,0\n",
         Columns({"x": [1500.0, -0.5, 5.0], "n": [5, -7, 0]})),
    Case("hexadecimal digits", "t.csv", "x,y\n0x10,1\n0xff,2\n",
         Columns({"x": ["0x10", "0xff"], "y": [1, 2]})),
    Case("underscores", "t.csv", "x,y\n1_0,1\n1_1,2\n",
         Columns({"x": ["1_0", "1_1"], "y": [1, 2]})),
    Case("dates", "t.csv", "day,x\n2020-01-02,1\n01.02.2020,2\n",
         Columns({"day": ["2020-01-02", "01.02.2020"], "x": [1, 2]})),
    Case("truth values", "t.csv", "b,x\nTrue,1\nFALSE,2\n",
         Columns({"b": ["True", "FALSE"], "x": [1, 2]})),
    Case("a text among numbers", "t.csv", "x,y\n1,2\n\n2,red\n",
         refused("row 4", "column y", "'red'", "numbers such as 2", "na='red'")),
    Case("a number among texts", "t.csv", "x,y\n1,a\n2,7\n3,b\n",
         refused("row 2", "column y", "'a'", "numbers such as 7")),
    Case("numbers of texts, as said", "t.csv", "x,y\n1,a\n2,7\n",
         Columns({"x": [1, 2], "y": ["a", "7"]}),
         {"columns": "y=category"}),
]  # fmt: skip

GAPS = [
    Case("one column", "t.csv", "x\n1\n\n3\n\n", Columns({"x": [1, None, 3, None]})),
    Case("one column from a gap", "t.csv", "x\n\n2.5\n", Columns({"x": [None, 2.5]})),
    Case("one column without header", "t.csv", "\n1\n\n3\n", Columns({"1": [None, 1, None, 3]})),
    Case("one column with a long row", "t.csv", "x\n1\n\n2,3\n",
         refused("row 4", "2 cells, but 1 column(s)")),
    Case("one column of windows", "t.csv", "x\r\n1\r\n\r\n3\r\n", Columns({"x": [1, None, 3]})),
    Case("one column of texts", "t.txt", "t\na b\n\nc d\n", Columns({"t": ["a b", None, "c d"]})),
    Case("usual marks", "t.csv",
         "x,t\n1,a\nNA,NA\nnan,NaN\nnull,Null\nNone,none\n,\n?,?\n#N/A,n/a\n",
         Columns({"x": [1, *[None] * 7], "t": ["a", *[None] * 7]},
         note="missing cells written as")),
    Case("dashes among numbers", "t.csv", "x,y\n1,1.5\n-,.\n3,--\n",
         Columns({"x": [1, None, 3], "y": [1.5, None, None]}, note="'-', '--', '.'")),
    Case("dashes among texts", "t.csv", "strand,x\n+,1\n-,2\n",
         Columns({"strand": ["+", "-"], "x": [1, 2]})),
    Case("other marks", "t.csv", "x,t\n1,a\n-999,NA\n3,unknown\n",
         Columns({"x": [1, None, 3], "t": ["a", "NA", None]}), {"na": ("-999", "unknown")}),
    Case("no marks", "t.csv", "x,t\n1,NA\n,\n3,None\n",
         Columns({"x": [1, None, 3], "t": ["NA", None, "None"]}), {"na": ""}),
    Case("quoted gaps", "t.csv", 'x,t\n"1",""\n"","a"\n',
         Columns({"x": [1, None], "t": [None, "a"]})),
    Case("a column without values", "t.csv", "x,t\n1,\n2,NA\n",
         Columns({"x": [1, 2], "t": [None, None]}, {"t": "string"})),
]  # fmt: skip

SHAPES = [
    Case("no header", "t.csv", POINTS[4:], Columns({"1": XY["x"], "2": XY["y"]}, note="no header")),
    Case("no header, decimal commas", "t.csv", points(";", comma=True)[4:],
         Columns({"1": XY["x"], "2": XY["y"]})),
    Case("texts without header, as said", "t.csv", "a,b\nc,d\n",
         Columns({"1": ["a", "c"], "2": ["b", "d"]}), {"header": False}),
    Case("a header of years, as said", "t.csv", "2019,2020\n1,2\n",
         Columns({"2019": [1], "2020": [2]}), {"header": True}),
    Case("header only, without its end", "t.csv", "# a\nx;y", refused("no rows", "2 column(s)")),
    Case("header only", "t.csv", "x;y\n", refused("no rows", "2 column(s)", "header=False")),
    Case("empty", "t.csv", b"", refused("is empty")),
    Case("empty lines only", "t.csv", "\n\n\n", refused("holds no rows")),
    Case("comments only", "t.csv", "# a\n# b\n", refused("holds no rows")),
    Case("empty, packed", "t.csv.gz", gzip.compress(b""), refused("is empty")),
    Case("two columns of a name", "t.csv", "a,b,a\n1,2,3\n",
         refused("two columns named a", "1 and 3", "rename")),
    Case("columns without names", "t.csv", ",a,\n1,2,3\n",
         Columns({"column 1": [1], "a": [2], "column 3": [3]})),
    Case("separators at the ends", "t.csv", "a,b,\n1,2,\n3,4,\n",
         Columns({"a": [1, 3], "b": [2, 4]})),
    Case("separators at the ends of rows", "t.csv", "a,b\n1,2,\n3,4,\n",
         Columns({"a": [1, 3], "b": [2, 4]})),
    Case("a short row", "t.csv", "a,b,c\n1,2,3\n\n4,5\n6,7,8\n",
         refused("row 4", "2 cells, but 3 column(s) separated by commas", "'4,5'")),
    Case("a row of one empty cell", "t.csv", 'a,b\n1,2\n""\n3,4\n', refused("row 3", "1 cells")),
    Case("a long row", "t.csv", "a,b\n1,2\n3,4,5\n6,7\n",
         refused("row 3", "3 cells, but 2 column(s)")),
    Case("decimal commas between commas", "t.csv", "x\n1,5\n2,5\n",
         refused("row 2", "2 cells, but 1 column(s)", "'1,5'", "delimiter=")),
    Case("names of rows as R writes them", "t.csv", "x,y\na,1,2\nb,3,4\n", refused("cells, but")),
    Case("quoted line breaks", "t.csv", 't,x\n"a\nb",1\n"c\r\nd",2\n',
         Columns({"t": ["a\nb", "c\r\nd"], "x": [1, 2]})),
    Case("a quoted line break in the header", "t.csv", '"a\nb",x\n1,2\n',
         Columns({"a\nb": [1], "x": [2]})),
    Case("quoted separators and quotes", "t.csv", 't,x\n"a,""b""",1\n"c",2\n',
         Columns({"t": ['a,"b"', "c"], "x": [1, 2]})),
    Case("a quote in a cell", "t.csv", 't,x\n5" pipe,1\na,2\n',
         Columns({"t": ['5" pipe', "a"], "x": [1, 2]})),
    Case("a quote that does not end", "t.csv", 'a,b\n1,2\n3,"4\n5,6\n',
         refused("row 3", "quotation mark")),
    Case("a cell that is too long", "t.csv", 'a,b\n1,"' + "2" * 10**6,
         refused("row 2", "quotation mark")),
    Case("a quote that opens the file", "t.csv", '"a,b\n1,2\n', refused("quotation mark")),
    Case("a long text", "t.csv", "t,x\n" + "a" * 200_000 + ",1\nb,2\n",
         Columns({"t": ["a" * 200_000, "b"], "x": [1, 2]})),
    Case("comments first", "t.csv", "# made by hand\n# in 2020, late\n" + POINTS,
         Columns(XY, note="comments after #")),
    Case("comments between rows", "t.csv",
         "# one\nx,y\n1,2.5\n# two\n2,3.5\n#a,b\n3,4.5\n", Columns(XY)),
    Case("comments in a column", "t.csv", "# one\nx\n1\n\n# two\n3\n",
         Columns({"x": [1, None, 3]})),
    Case("a header after a mark", "t.txt", "# made by numpy\n# x y\n1 2.5\n2 3.5\n3 4.5\n",
         Columns(XY)),
    Case("colours are not comments", "t.csv", "c,x\n#ff0000,1\n#00ff00,2\n",
         Columns({"c": ["#ff0000", "#00ff00"], "x": [1, 2]})),
    Case("comments later, not said", "t.csv", "x,y\n1,2\n% note\n3,4\n",
         refused("row 3", "'% note'", "comment")),
    Case("comments as said", "t.csv", "x,y\n1,2\n% note\n3,4\n",
         Columns({"x": [1, 3], "y": [2, 4]}),
         {"comment": "%"}),
    Case("columns left out are not looked at", "t.csv", "x,y\n1,a\n2,7\n", Columns({"x": [1, 2]}),
         {"without": ("y",)}),
    Case("a column left out that is not there", "t.csv", POINTS,
         refused("without='z'", "x, y"), {"without": ("z",)}),
    Case("a workbook", "t.csv", b"PK\3\4 and more", refused("an archive or a workbook")),
    *(
        Case(f"not a table: {start!r}", "t.csv", start + b"\n1,2\n3,4\n", refused(kind))
        for start, kind in [
            (b"<!DOCTYPE html>", "a web page"),
            (b"\n  <HTML><body>404", "a web page"),
            (b"<?xml version='1.0'?>", "XML"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b'{"a": 1, "b": 2}', "JSON (a file of one object a line"),
            (b'[{"a": 1}]', "JSON (save one object a line"),
            (b"BZh91AY", "packed by bzip2"),
            (b"\xfd7zXZ\0", "packed by xz"),
            (b"\x28\xb5\x2f\xfd", "packed by zstd"),
            (b"%PDF-1.7", "a PDF document"),
            (b"SQLite format 3\0", "a database"),
            (b"\x89HDF\r\n", "HDF5"),
            (b"ARROW1\0\0", "an Arrow file"),
            (b"\xd0\xcf\x11\xe0", "a workbook"),
        ]
    ),
    Case("zero bytes", "t.csv", b"a,b\n1,\0\n", refused("zero bytes")),
]  # fmt: skip

NESTED = {"x": [1, 2], "y": [{"a": 1}, {"a": 2}]}
JSON_LINES = [
    Case("json lines", "t.jsonl", '{"x": 1, "t": "a"}\n{"x": 2, "t": "01"}\n',
         Columns({"x": [1, 2], "t": ["a", "01"]})),
    Case("json with gaps", "t.jsonl", '{"x": 1.5}\n{"t": "NA", "x": null}\n',
         Columns({"x": [1.5, None], "t": [None, "NA"]})),
    Case("json truth values", "t.ndjson", '{"b": true}\n{"b": false}\n',
         Columns({"b": [True, False]})),
    Case("json dates", "t.jsonl", '{"d": "2020-01-01", "x": 1}\n{"d": null, "x": 2}\n',
         Columns({"d": ["2020-01-01", None], "x": [1, 2]})),
    Case("json large numbers", "t.jsonl", '{"x": 9007199254740993}\n',
         Columns({"x": [9007199254740993]})),
    Case("json packed", "t.jsonl.gz", gzip.compress(b'{"x": 1}\n'), Columns({"x": [1]})),
    Case("json of two types", "t.jsonl", '{"x": 1}\n{"x": "a"}\n',
         refused("x", "from number to string in row 1")),
    Case("json nested", "t.jsonl", '{"x": 1, "y": {"a": 2}}\n', refused("column y", "y=drop")),
    Case("json array", "t.jsonl", '[{"x": 1}, {"x": 2}]\n', refused("lines of JSON objects")),
    Case("json that ends early", "t.jsonl", '{"x": 1}\n{"x":', refused("lines of JSON objects")),
    Case("json of nothing", "t.jsonl", "", refused("is empty")),
]  # fmt: skip

PRICES = [decimal.Decimal("1.10"), None, decimal.Decimal("-20.05")]
PARQUET = [
    Case("parquet dictionary", "t.parquet",
         parquet_of({"t": pa.array(["a", "b", "a"]).dictionary_encode()}),
         Columns({"t": ["a", "b", "a"]}, {"t": pa.dictionary("int32", "string")})),
    Case("parquet decimals", "t.parquet", parquet_of({"x": pa.array(PRICES, pa.decimal128(9, 2))}),
         Columns({"x": PRICES}, {"x": pa.decimal128(9, 2)})),
    Case("parquet numbers", "T.PARQUET",
         parquet_of({"i": pa.array([1, None], "int8"), "f": pa.array([0.5, None], "float32")}),
         Columns({"i": [1, None], "f": [0.5, None]}, {"i": "int8", "f": "float32"})),
    Case("parquet texts", "t.parquet",
         parquet_of({"t": ["a", None, "NA"], "b": [True, None, False]}),
         Columns({"t": ["a", None, "NA"], "b": [True, None, False]})),
    Case("parquet nested", "t.parquet", parquet_of(NESTED),
         refused("column y", "struct", "y=drop")),
    Case("parquet lists", "t.parquet", parquet_of({"x": [1, 2], "y": [[1], [2]]}),
         refused("column y", "list", "y=drop")),
    Case("parquet lists left out", "t.parquet", parquet_of({"x": [1, 2], "y": [[1], [2]]}),
         Columns({"x": [1, 2]}), {"without": ("y",)}),
    Case("parquet bytes", "t.parquet", parquet_of({"x": [1], "y": [b"ab"]}),
         refused("column y", "binary")),
    Case("parquet of no rows", "t.parquet", parquet_of({"x": pa.array([], "int64")}),
         refused("no rows")),
    Case("parquet of no columns", "t.parquet", parquet_of({}), refused("no columns")),
    Case("csv named parquet", "t.parquet", POINTS, refused("as parquet")),
    Case("parquet named csv", "t.csv", parquet_of(XY), refused("it is parquet")),
]  # fmt: skip

CASES = [*DIALECTS, *ENCODINGS, *NUMBERS, *GAPS, *SHAPES, *JSON_LINES, *PARQUET]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_file_comes_back_as_it_is_or_is_refused(tmp_path, case):
    path = tmp_path / case.name
    if callable(case.content):
        case.content(path)
    else:
        content = case.content.encode() if isinstance(case.content, str) else case.content
        path.write_bytes(content)
    case.expected.check(path, **case.options)


@pytest.mark.parametrize("case", [*IMAGES, *ARRAYS], ids=lambda case: case.id)
def test_images_arrays_and_cells_come_back_as_they_are_or_are_refused(tmp_path, case):
    case.expected.check(case.make(tmp_path), **case.options)


ODD = pa.table({
    "t": ["a,b", None, 'say "x"', "two\nlines", "tab\there", "a;b|c"],
    "x": [1.5, None, 1e-300, 0.1, 1e20, 0.30000000000000004],
    "n": [2**53 + 1, None, -5, 0, 1, 2],
    "zip": ["01234", "12345", None, "00001", "5", "6"],
})  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_that_is_written_comes_back(tmp_path, ending):
    """In blocks, with the same types."""
    path = tmp_path / f"t.{ending}"
    write_table(path, iter([ODD.slice(0, 2), ODD.slice(2)]))
    table = read_file(path).table
    assert table.schema.equals(ODD.schema)
    assert table.to_pydict() == ODD.to_pydict()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_samples_of_types_that_text_lacks_are_read_for_their_run(tmp_path, ending):
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(k * k % 97) for k in range(60)]
    table = pa.table({
        "day": days,
        "time": pa.array([datetime.datetime(2020, 1, 1, k % 24) for k in range(60)]),
        "price": pa.array([decimal.Decimal(k * k % 89).scaleb(-2) for k in range(60)]),
        "flag": [k % 3 == 0 for k in range(60)],
    })  # fmt: skip
    data = read(table)
    write_table(tmp_path / f"t.{ending}", iter([table]))
    again = Table(read_file(tmp_path / f"t.{ending}").table, "t", Choices.of(None), frozenset())
    assert torch.equal(again.vectors(data.columns).x, data.x.double())


@pytest.mark.parametrize(
    ("source", "columns", "types"),
    [
        ({"x": np.arange(3), "t": ["a", None, "b"]}, None, ["int64", "string"]),
        ({"x": torch.tensor([1.0, torch.nan])}, {"x": [1.0, None]}, ["float"]),
        (pd.DataFrame({"x": [1.5, None], "k": pd.array([1, None], "Int64")}),
         {"x": [1.5, None], "k": [1, None]}, ["double", "int64"]),
        (pd.Series([1, 2], name="x"), {"x": [1, 2]}, ["int64"]),
        (pl.DataFrame({"x": [1, None], "b": [True, None]}), None, ["int64", "bool"]),
        (pl.Series("x", [0.5]), {"x": [0.5]}, ["double"]),
        (pa.record_batch({"x": [1]}), {"x": [1]}, ["int64"]),
        (np.array([(1, 2.5)], [("i", "<i4"), ("f", ">f8")]), {"i": [1], "f": [2.5]},
         ["int32", "double"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_objects_come_back_as_they_are(source, columns, types):
    table = read_contents(source).table
    columns = columns or {name: list(source[name]) for name in table.column_names}
    assert table.to_pydict() == columns
    assert list(map(str, table.schema.types)) == types


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named a, columns 1 and 2"),
        (pd.DataFrame({"a": [1, "x"]}), "column a .*'x'.* leave the column out"),
        ({"a": np.eye(2)}, r"columns of shape \(N,\); a has \(2, 2\)"),
        ({"a": [1, 2], "b": [1]}, "columns of different lengths"),
        ({}, "no columns"),
        (pl.DataFrame({"a": []}), "no rows"),
    ],
)
def test_objects_that_are_no_tables_are_refused(source, parts):
    with pytest.raises(DataError, match=f"prices .*{parts}"):
        read(source, name="prices")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ";;"}, "delimiter=';;': must be one character"),
        ({"decimal": ";"}, "decimal=';': must be"),
        ({"encoding": "klingon"}, "encoding='klingon': Python has no such encoding"),
        ({"encoding": "hex"}, "encoding='hex': Python has no such encoding"),
        ({"comment": "//"}, "comment='//': must be one character"),
    ],
)
def test_a_dialect_that_no_file_has_is_refused(tmp_path, options, message):
    (tmp_path / "t.csv").write_text(POINTS)
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "t.csv", **options)


def test_cases_have_names_of_their_own():
    every = [*CASES, *IMAGES, *ARRAYS]
    assert len({case.id for case in every}) == len(every)
