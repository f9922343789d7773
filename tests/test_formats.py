"""Data from files of several kinds: the same numbers from each, and one clear refusal."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch
from cases import values_of

from scorefield._internal.errors import DataError
from scorefield.data import Columns, inspect, read

X = np.array([[1.5, -2.0, 3e-3], [0.25, 7.0, -1.0], [4.0, 0.0, 2.0]])


def idx(array, kind=0x08):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return head + array.tobytes()


def write_csv(path):
    path.write_text("a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in X.tolist()))


def write_plain_csv(path):
    path.write_text("\ufeff" + "".join(",".join(map(repr, row)) + "\r\n" for row in X.tolist()))


def write_parquet(path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}), path)


def write_idx(path):
    data = idx(X.astype(">f8"), 0x0E)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.npy", lambda path: np.save(path, X)),
        ("x.npz", lambda path: np.savez(path, only=X)),
        ("two.npz", lambda path: np.savez_compressed(path, x=X, y=np.arange(3))),
        ("x.csv", write_csv),
        ("plain.csv", write_plain_csv),
        ("x.parquet", write_parquet),
        ("x.idx", write_idx),
        ("x.idx.gz", write_idx),
        ("x-ubyte", write_idx),
        ("x-ubyte.gz", write_idx),
    ],
)
def test_the_same_numbers_come_from_every_kind_of_file(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    x = torch.from_numpy(X)
    assert torch.equal(read(path).x, x if path.suffix in (".csv", ".parquet") else x.float())


def test_images_come_as_mnist_does(tmp_path):
    """Grey images of bytes with a label each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 6, 4), dtype=np.uint8)
    labels = np.array([3, 0, 1, 1, 2], dtype=np.uint8)
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(labels))
    data = read(tmp_path / "images-idx3-ubyte.gz", tmp_path / "labels-idx1-ubyte")
    assert torch.equal(data.x, torch.from_numpy(images).float()[:, None])
    assert values_of(data).tolist() == labels.tolist()


@pytest.mark.parametrize(("kind", "code"), [(">i2", 0x0B), (">i4", 0x0C), (">f4", 0x0D), ("i1", 9)])
def test_numbers_of_every_type_of_idx(tmp_path, kind, code):
    values = np.array([[-3, 100], [5, 7]], dtype=kind)
    (tmp_path / "x.idx").write_bytes(idx(values, code))
    assert read(tmp_path / "x.idx").x.tolist() == values.tolist()


def test_labels_may_be_a_column_of_a_table(tmp_path):
    write_csv(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("class\n1\n0\n2\n")
    assert values_of(read(tmp_path / "x.csv", tmp_path / "y.csv")).tolist() == [1, 0, 2]
    (tmp_path / "y.csv").write_text("class\n1\n0.5\n2\n")
    with pytest.raises(DataError, match="needs 3 integers"):
        read(tmp_path / "x.csv", tmp_path / "y.csv")


BAD = {
    "words.csv": (b"a,b\n1,2\n3,red\n", "row 3, column b: 'red', but the column holds both"),
    "names.csv": (
        b"a\n" + "".join(f"name{k}\n" for k in range(65)).encode(),
        'a category may have 64. Use columns="a=drop".',
    ),
    "twice.csv": (b"a,b,a\n1,2,3\n3,4,5\n", "has two columns named a"),
    "ragged.csv": (b"a,b\n1,2\n3\n", "row 3: 1 cells, but 2 column(s)"),
    "none.csv": (b"", "holds no rows"),
    "bytes.csv": (b"\xff\xfe\x00", "is not text in utf-16"),
    "not.parquet": (b"PAR1 and nothing else", "cannot be read as parquet"),
    "not.npz": (b"PK and nothing else", "cannot be read as a .npz file"),
    "not.npy": (b"nothing", "cannot be read as a .npy file"),
    "not.idx": (b"\x00\x01\x08\x01", "is not in the idx format"),
    "short.idx": (b"\x00\x00\x08\x03\x00\x00", "ends inside its header"),
    "less.idx": (idx(np.zeros((3, 4), np.uint8))[:-1], "of data (3, 4) and holds 11"),
    "more.idx": (idx(np.zeros((3, 4), np.uint8)) + b"\0", "declares 12 bytes of data (3, 4)"),
    "huge.idx": (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "and holds 0"),
    "not-ubyte.gz": (b"\x1f\x8b but no more", "cannot be read"),
    "x.xlsx": (b"PK", "ends in none of .npy, .npz, .csv, .tsv"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_what_it_says_is_refused(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


def test_columns_of_parquet_that_are_no_use_are_named(tmp_path):
    import pyarrow
    from pyarrow import parquet

    for column, message in [
        ([[1.0], [2.0, 3.0]], "column b: values of type list<.*> have no kind"),
        ([f"name{k}" for k in range(70)], "column b: 70 different identifiers such as 'name0'"),
    ]:
        table = {"a": [k / 3 for k in range(len(column))], "b": column}
        parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=f"{message}.*columns=.b=drop"):
            read(tmp_path / "x.parquet")
        assert read(tmp_path / "x.parquet", without=("b",)).shape == (1,)


def test_archives_without_one_set_of_data_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=X, b=X)
    with pytest.raises(DataError, match=r"holds a, b: choose one with key='a'"):
        read(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="cannot be read as"):
        read(tmp_path / "x.npz")
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, a=X)
    with pytest.raises(DataError, match=r"not one array: name it \.npz"):
        read(tmp_path / "x.npy")
    with (tmp_path / "y.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"not an archive: name it \.npy"):
        read(tmp_path / "y.npz")


NAN = np.nan


@pytest.mark.parametrize(
    ("first", "names", "row"),
    [
        ("a,b,c", ("a", "b", "c"), None),
        ("NA,k,cl", ("NA", "k", "cl"), None),
        ("NA,,none", ("NA", "column 2", "none"), None),
        ("2019,2020,total", ("2019", "2020", "total"), None),
        ("0_0,10_1,1_000", ("0_0", "10_1", "1_000"), None),
        ("1.5,NA,2", ("1", "2", "3"), [1.5, NAN, 2.0]),
        ("?, 7 ,", ("1", "2", "3"), [NAN, 7.0, NAN]),
        ("nan,nan,1e3", ("1", "2", "3"), [NAN, NAN, 1e3]),
        (",,", ("1", "2", "3"), [NAN, NAN, NAN]),
    ],
)
def test_a_first_row_of_numbers_and_gaps_is_no_header(tmp_path, first, names, row):
    rest = [[1.0, 2.5, 3.0], [4.0, 5.5, 6.0]]
    lines = [first, *(",".join(map(str, values)) for values in rest)]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    data = read(tmp_path / "x.csv")
    assert data.columns.names == names
    exact = torch.tensor(rest if row is None else [row, *rest], dtype=torch.float64)
    torch.testing.assert_close(data.x, exact, rtol=0, atol=0, equal_nan=True)


def test_digits_that_a_line_joins_are_a_text(tmp_path):
    """As codes of sites and versions are written; Python reads 10_1 as 101."""
    (tmp_path / "x.csv").write_text("site,x\n10_1,0.5\n10_2,1.5\n")
    data = read(tmp_path / "x.csv")
    assert data.columns.kinds[0].labels == ("10_1", "10_2")


def write_table(path, table):
    """Write columns as CSV, a gap as an empty cell, or as parquet."""
    import pyarrow
    from pyarrow import parquet

    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table(table), path)
    else:
        rows = [list(table), *zip(*table.values(), strict=True)]
        cells = [["" if v is None else str(v) for v in row] for row in rows]
        path.write_text("".join(",".join(row) + "\n" for row in cells))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_of_classes_may_hold_many_texts(tmp_path, ending):
    kinds = [f"kind{k % 70:02}" for k in range(140)]
    path = tmp_path / f"x.{ending}"
    write_table(path, {"kind": kinds, "x": [k / 4 for k in range(140)]})
    with pytest.raises(DataError, match=r"70 different texts such as .*columns=.kind=drop"):
        read(path)
    data = read(path, conditions="kind")
    assert data.columns.names == ("x",)
    assert [data.conditions.channels[0].names[k] for k in values_of(data)] == kinds
    assert inspect(path, "kind")["conditions"].startswith("kind, 70 classes: kind00")
    many = [f"{k}th" for k in range(10_001)] * 2
    write_table(path, {"kind": many, "x": [k / 3 for k in range(20_002)]})
    with pytest.raises(DataError, match="column kind: 10001 different texts"):
        read(path, conditions="kind")


def test_texts_are_the_same_from_csv_and_parquet(tmp_path):
    """Without the space around them. Words for missing values are texts where a null exists."""
    texts = [" a", "a", "", "b ", None, "", "b", "a", "NA", "b"]
    found = []
    for ending in ("csv", "parquet"):
        write_table(tmp_path / f"x.{ending}", {" t ": texts, "x": [k / 4 for k in range(10)]})
        found.append(read(tmp_path / f"x.{ending}"))
    codes = [0, 0, NAN, 1, NAN, NAN, 1, 0, NAN, 1]
    labels = [("a", "b"), ("NA", "a", "b")]
    for data, those, shift in zip(found, labels, (0, 1), strict=True):
        assert data.columns.names == ("t", "x")
        assert data.columns.kinds[0].labels == those
        np.testing.assert_array_equal(data.x[:8, 0], np.add(codes[:8], shift))
    assert math.isnan(found[0].x[8, 0])
    assert found[1].x[8, 0] == 0


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_without_values_is_constant(tmp_path, ending):
    write_table(tmp_path / f"x.{ending}", {"t": ["", "", None], "x": [0.5, 1.5, 2.5]})
    data = read(tmp_path / f"x.{ending}")
    back = Columns(data.columns, 2).inverse(torch.zeros(2, 1))
    assert back[:, 0].isnan().all()


def test_a_misspelt_column_to_leave_out_is_named_before_the_contents_of_others(tmp_path):
    path = tmp_path / "birds.csv"
    path.write_text("size,note\n1,2\n3,ill\n")
    with pytest.raises(DataError, match="without='notes': the data has size, note"):
        read(path, without="notes")
    assert read(path, without="note").shape == (1,)
