"""Cells × genes from .h5ad files in each of the forms they come in."""

import os

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch
from cases import values_of
from shell import end

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import inspect, read
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig

RNG = np.random.default_rng(0)
X = np.round(RNG.exponential(size=(30, 8)) * (RNG.random((30, 8)) < 0.4), 3).astype(np.float32)
GENES = [f"gene{k}" for k in range(8)]
KINDS = np.array([["T cell", "B cell", "NK"][k % 3] for k in range(30)])


def texts(group, name, values):
    group.create_dataset(name, data=[v.encode() for v in values])


def sparse(file, name, x):
    """Write a matrix row by row, as SciPy's csr_matrix is stored."""
    group = file.create_group(name)
    group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", x.shape
    rows = [np.flatnonzero(row) for row in x]
    group["indptr"] = np.cumsum([0, *map(len, rows)])
    group["indices"] = np.concatenate(rows).astype(np.int32)
    group["data"] = np.concatenate([row[at] for row, at in zip(x, rows, strict=True)])
    return group


def write(path, matrix="dense"):
    with h5py.File(path, "w") as file:
        if matrix == "dense":
            file.create_dataset("X", data=X, compression="gzip", chunks=(7, 8))
        else:
            sparse(file, "X", X)
        sparse(file, "layers/counts", np.floor(10 * X))
        var, obs = file.create_group("var"), file.create_group("obs")
        var.attrs["_index"], obs.attrs["_index"] = "symbol", "barcode"
        texts(var, "symbol", GENES)
        texts(obs, "barcode", [f"cell{k}" for k in range(30)])
        kind = obs.create_group("kind")
        kind.attrs["encoding-type"] = "categorical"
        texts(kind, "categories", ["B cell", "NK", "T cell"])
        codes = np.searchsorted(["B cell", "NK", "T cell"], KINDS).astype(np.int8)
        codes[4] = -1
        kind["codes"] = codes
        texts(obs, "batch", ["one" if k < 10 else "two" for k in range(30)])
        obs["depth"] = np.arange(30.0)
    return path


def write_older(path):
    """The form before 2019: tables as compound arrays, categories among what is unstructured."""
    with h5py.File(path, "w") as file:
        file["X"] = X
        file["var"] = np.array([(g.encode(), 1) for g in GENES], [("index", "S8"), ("n", "i4")])
        codes = np.searchsorted(["B cell", "NK", "T cell"], KINDS)
        rows = [(f"cell{k}".encode(), codes[k]) for k in range(30)]
        file["obs"] = np.array(rows, [("index", "S8"), ("kind", "i1")])
        texts(file.create_group("uns"), "kind_categories", ["B cell", "NK", "T cell"])
    return path


@pytest.mark.parametrize("matrix", ["dense", "sparse"])
@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_cells_are_the_same_in_every_form_and_order(tmp_path, matrix, in_memory):
    data = read(write(tmp_path / "x.h5ad", matrix), in_memory=in_memory)
    items = torch.from_numpy(RNG.permutation(30))
    assert torch.equal(data.x[items], torch.from_numpy(X)[items])
    assert torch.equal(data.x[torch.tensor([5, 5, 2])], torch.from_numpy(X[[5, 5, 2]]))
    assert torch.equal(data.x[torch.arange(3, 9)], torch.from_numpy(X[3:9]))
    assert data.columns.names == tuple(GENES)


def test_the_older_form_is_read(tmp_path):
    data = read(write_older(tmp_path / "x.h5ad"), conditions="kind")
    assert torch.equal(data.x, torch.from_numpy(X))
    assert [data.conditions.channels[0].names[k] for k in values_of(data)] == KINDS.tolist()


def test_a_layer_and_what_is_said_of_cells(tmp_path):
    path = write(tmp_path / "x.h5ad")
    assert torch.equal(read(path, matrix="layers/counts").x, torch.from_numpy(np.floor(10 * X)))
    data = read(path, conditions="kind")
    known = [data.conditions.channels[0].names[k] for k in values_of(data) if k >= 0]
    assert known == np.delete(KINDS, 4).tolist()
    assert values_of(data)[4] == -1
    assert read(path, conditions="batch").conditions.channels[0].names == ("one", "two")
    assert "kind" in inspect(path)["columns for conditions"]
    with pytest.raises(DataError, match="depth has 30 different values"):
        read(path, conditions="depth")
    with h5py.File(path, "a") as file:
        file["obs/dose"] = np.linspace(0.5, 2, 30)
    for conditions in ("dose,depth=number", {"dose": "number", "depth": "number"}):
        dose, depth = read(path, conditions=conditions).conditions.channels
        assert (dose.kind, dose.low, dose.high) == ("numbers", (0.5,), (2.0,))
        assert (depth.kind, depth.low, depth.high) == ("numbers", (0.0,), (29.0,))
    with pytest.raises(DataError, match=r"matrix='raw': .* has X, layers/counts"):
        read(path, matrix="raw")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"matrix='layers/counts': .* has no such choice"):
        read(tmp_path / "x.npy", matrix="layers/counts")


def test_genes_are_found_by_name(tmp_path):
    path = write(tmp_path / "x.h5ad")
    data = read(path, without=("gene2",))
    assert torch.equal(data.x, torch.from_numpy(np.delete(X, 2, 1)))
    with pytest.raises(DataError, match="has no column gene9"):
        read(path, without="gene9")
    config = TrainConfig(
        network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=2, batch_size=8)
    )
    run = sf.train(data, config=config)
    other = tmp_path / "other.h5ad"
    with h5py.File(write(other), "a") as file:
        order = np.arange(8)[::-1]
        file["X"][:] = X[:, order]
        del file["var/symbol"]
        texts(file["var"], "symbol", [GENES[k] for k in order])
    assert torch.equal(read(other, like=run.config.data).x, data.x)


def test_a_training_that_reads_as_it_goes_ends_at_the_same_weights(tmp_path):
    path = write(tmp_path / "x.h5ad", "sparse")
    config = TrainConfig(
        network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=9, batch_size=8)
    )
    runs = [sf.train(read(path, in_memory=limit), config=config) for limit in (2**30, 0)]
    first, second = (run.field.network.state_dict() for run in runs)
    assert all(torch.equal(second[k], v) for k, v in first.items())


def spoil_link(file, path):
    del file["X"]
    file["X"] = h5py.ExternalLink(str(path.with_name("other.h5ad")), "X")


def spoil_external(file, path):
    (path.parent / "secret").write_bytes(X.tobytes())
    del file["X"]
    where = [(str(path.parent / "secret"), 0, X.nbytes)]
    file.create_dataset("X", X.shape, X.dtype, external=where)


def spoil_size(file, path):
    del file["X"]
    file.create_dataset("X", (30, 10**9), "f4", chunks=(1, 2**18), compression="gzip")


def spoil_kind(file, path):
    del file["X"]
    sparse(file, "X", X).attrs["encoding-type"] = "coo_matrix"


def spoil_rows(file, path):
    del file["X"]
    group = sparse(file, "X", X)
    group["indptr"][3] = 10**6


def spoil_genes(file, path):
    del file["var/symbol"]
    texts(file["var"], "symbol", GENES[:5])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_link, "X is missing or a link"),
        (spoil_external, "the data of X lies in other files"),
        (spoil_size, "X declares 120000000000 bytes and holds"),
        (spoil_kind, "stores /X as coo_matrix: save it as a csr_matrix"),
        (spoil_rows, "the rows of /X do not add up"),
        (spoil_genes, r"has a matrix of shape \(30, 8\) for 5 genes"),
    ],
)
def test_files_that_lead_elsewhere_or_do_not_add_up_are_refused(tmp_path, spoil, message):
    write(tmp_path / "other.h5ad")
    path = write(tmp_path / "x.h5ad")
    with h5py.File(path, "a") as file:
        spoil(file, path)
    with pytest.raises(DataError, match=message):
        read(path)


def test_what_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "x.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + os.urandom(200))
    with pytest.raises(DataError, match=r"cannot be read as \.h5ad"):
        read(tmp_path / "x.h5ad")


def test_samples_of_a_layer_can_be_asked_about(tmp_path):
    path = write(tmp_path / "x.h5ad")
    config = TrainConfig(
        network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=2, batch_size=8)
    )
    run = sf.train(read(path, matrix="layers/counts"), config=config)
    assert torch.equal(read(path, like=run.config.data).x, torch.from_numpy(np.floor(10 * X)))
    table = tmp_path / "s.csv"
    table.write_text(",".join(GENES) + "\n" + "1,2,3,4,5,6,7,8\n" * 3)
    assert read(table, like=run.config.data, learn=False).x.shape == (3, 8)


def entries(file, **parts):
    """Replace parts of a matrix that is stored row by row."""
    for name, values in parts.items():
        del file[f"X/{name}"]
        file[f"X/{name}"] = values


def spoil_gene(file):
    entries(file, indices=np.where(np.arange(len(file["X/data"])) == 4, 8, file["X/indices"]))


def spoil_negative(file):
    entries(file, indices=np.where(np.arange(len(file["X/data"])) == 4, -1, file["X/indices"]))


def spoil_kind_of_index(file):
    entries(file, indices=file["X/indices"][:].astype(float))


def spoil_unsigned_rows(file):
    entries(file, indptr=np.array([0, 9, 2, *file["X/indptr"][3:]], np.uint64))


def damage(file):
    """Write over a chunk of a matrix, whose header still fits."""
    del file["X"]
    file.create_dataset("X", data=X, compression="gzip", chunks=(30, 8), fletcher32=True)
    file["X"].id.write_direct_chunk((0, 0), b"no deflated bytes")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_gene, r"entries of genes 0 to 8, counted from 0, and 8 genes"),
        (spoil_negative, r"entries of genes -1 to 7, counted from 0, and 8 genes"),
        (spoil_kind_of_index, "the indices of /X are not integers"),
        (spoil_unsigned_rows, "the rows of /X do not add up"),
        (damage, r"cannot be read as \.h5ad"),
    ],
)
def test_what_is_wrong_further_in_is_refused_where_it_is_read(tmp_path, spoil, message):
    path = write(tmp_path / "x.h5ad", "sparse")
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(DataError, match=message) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert end("train", path, "--out", tmp_path / "run", "--steps", 2) == 3


def test_entries_of_one_gene_are_summed_as_by_scipy(tmp_path):
    path = write(tmp_path / "x.h5ad", "sparse")
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 12, 30)
    parts = {
        "indptr": np.cumsum([0, *counts]),
        "indices": rng.integers(0, 8, counts.sum()),
        "data": rng.integers(1, 9, counts.sum()).astype(np.float32),
    }
    with h5py.File(path, "a") as file:
        entries(file, **parts)
    exact = scipy.sparse.csr_matrix((parts["data"], parts["indices"], parts["indptr"]), (30, 8))
    exact = torch.from_numpy(exact.toarray())
    items = torch.from_numpy(rng.permutation(30))
    for limit in (2**30, 0):
        x = read(path, in_memory=limit).x
        assert torch.equal(x[torch.arange(30)], exact)
        assert torch.equal(x[items], exact[items])


def test_integers_with_gaps_are_labels(tmp_path):
    """As pandas' nullable integers are stored: values, and a mask of those that are not known."""
    path = write(tmp_path / "x.h5ad")
    with h5py.File(path, "a") as file:
        group = file.create_group("obs/donor")
        group.attrs["encoding-type"] = "nullable-integer"
        group["values"], group["mask"] = np.arange(30) % 3 + 5, np.arange(30) == 7
    assert "donor" in inspect(path)["columns for conditions"]
    data = read(path, conditions="donor")
    assert data.conditions.channels[0].names == ("5", "6", "7")
    assert values_of(data).tolist() == [-1 if k == 7 else k % 3 for k in range(30)]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("obs/kind/codes", np.arange(30) % 3 + 0.0, "obs/kind holds codes of type float64"),
        ("obs/kind/codes", np.array([b"a"] * 30), "obs/kind holds codes of type"),
        ("obs/kind/codes", np.zeros((30, 2), int), r"codes has shape \(30, 2\): needs one value"),
        ("obs/kind/codes", np.arange(30), "obs/kind holds codes beyond its 3 categories"),
        ("obs/kind/categories", np.zeros((3, 2)), r"categories has shape \(3, 2\)"),
        ("obs/kind", np.zeros((30, 2), int), r"obs/kind has shape \(30, 2\): needs one value"),
        ("obs/kind", np.zeros(29, int), "has 29 items, but the data has 30"),
        ("var/symbol", np.zeros((8, 2), int), r"var/symbol has shape \(8, 2\): needs one value"),
    ],
)
def test_columns_that_do_not_say_one_thing_of_each_are_refused(tmp_path, name, values, message):
    path = write(tmp_path / "x.h5ad")
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = values
    with pytest.raises(DataError, match=message) as refused:
        read(path, conditions="kind")
    assert str(path) in str(refused.value)
