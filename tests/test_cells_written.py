"""Cells written as .h5ad files, by the format's own description and by reading them again."""

import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from shell import TINY, end, finishes

import scorefield as sf
from scorefield._internal.errors import DataError, UsageError
from scorefield.cli.jobs import _cells, check_files, endings
from scorefield.cli.sample import SAMPLES
from scorefield.data import CellSimulator, write_h5ad
from scorefield.data.cells_written import CellBlock, write_cells
from scorefield.data.config import ColumnsConfig, DataConfig, TrainedCodecConfig

# https://anndata.readthedocs.io/en/stable/fileformat-prose.html
ENCODINGS = {
    "/": ("anndata", "0.1.0"),
    "X": ("csr_matrix", "0.1.0"),
    "obs": ("dataframe", "0.2.0"),
    "obs/_index": ("string-array", "0.2.0"),
    "obs/drug": ("categorical", "0.2.0"),
    "obs/drug/codes": ("array", "0.2.0"),
    "obs/drug/categories": ("string-array", "0.2.0"),
    "obs/dose": ("array", "0.2.0"),
    "var": ("dataframe", "0.2.0"),
    "var/_index": ("string-array", "0.2.0"),
    "uns": ("dict", "0.1.0"),
}


@pytest.fixture(scope="module")
def cells():
    return CellSimulator(genes=12, library=60.0, drugs=1).draw(220)


def sparse(file):
    group = file["X"]
    parts = tuple(group[name][()] for name in ("data", "indices", "indptr"))
    return csr_matrix(parts, shape=tuple(group.attrs["shape"]))


def test_a_file_has_the_encodings_of_the_format_and_the_cells(tmp_path, cells):
    path, genes = tmp_path / "x.h5ad", [f"g{k}" for k in range(12)]
    write_h5ad(path, cells.counts, cells.obs, genes)
    with h5py.File(path) as file:
        for name, kind in ENCODINGS.items():
            attributes = file[name].attrs
            assert (attributes["encoding-type"], attributes["encoding-version"]) == kind
        assert file["obs"].attrs["_index"] == "_index"
        assert list(file["obs"].attrs["column-order"]) == [*cells.obs]
        assert list(file["var"].attrs["column-order"]) == []
        matrix = sparse(file)
        assert matrix.has_canonical_format
        np.testing.assert_array_equal(matrix.toarray(), cells.counts)
        assert matrix.indices.dtype == matrix.indptr.dtype, "or SciPy refuses to convert it"
        np.testing.assert_array_equal(file["obs/dose"], cells.obs["dose"])
        assert not file["obs/drug"].attrs["ordered"]
        labels = file["obs/drug/categories"].asstr()[()]
        np.testing.assert_array_equal(labels[file["obs/drug/codes"][()]], cells.obs["drug"])
    data = sf.read(path, "drug,type")
    assert torch.equal(data.x, cells.counts)
    assert data.columns.names == tuple(genes)
    assert data.conditions.channels[0].names == ("control", "drug 1")


def test_numbers_that_are_not_counts_are_stored_densely(tmp_path, cells):
    path = tmp_path / "x.h5ad"
    write_h5ad(path, cells.counts - 0.5)
    with h5py.File(path) as file:
        assert file["X"].attrs["encoding-type"] == "array"
    assert torch.equal(sf.read(path).x, cells.counts - 0.5)


def test_blocks_are_joined(tmp_path, cells):
    x = cells.counts.numpy()
    dose = cells.obs["dose"]
    blocks = [CellBlock(x[a:b], {"dose": dose[a:b]}) for a, b in ((0, 90), (90, 91), (91, 220))]
    write_cells(tmp_path / "x.h5ad", blocks)
    with h5py.File(tmp_path / "x.h5ad") as file:
        np.testing.assert_array_equal(sparse(file).toarray(), x)
        np.testing.assert_array_equal(file["obs/dose"], dose)
        assert len(file["obs/_index"]) == 220


def test_annotations_of_other_lengths(tmp_path, cells):
    with pytest.raises(DataError, match=r"obs: kind has shape \(3,\) for 220 cells"):
        write_h5ad(tmp_path / "x.h5ad", cells.counts, {"kind": ["a", "b", "c"]})
    with pytest.raises(DataError, match="genes: 2 names for 12 genes"):
        write_h5ad(tmp_path / "x.h5ad", cells.counts, genes=["a", "b"])
    with pytest.raises(DataError, match=r"x: has shape \(12,\); give \(cells, genes\)"):
        write_h5ad(tmp_path / "x.h5ad", cells.counts[0])
    assert not (tmp_path / "x.h5ad").exists()


def test_annotations_of_any_name(tmp_path, cells):
    names = ["IC50 (nM/L)", "IC50 (nM_L)", "_index", "", "."]
    obs = {name: np.arange(220) + k for k, name in enumerate(names)}
    write_h5ad(tmp_path / "x.h5ad", cells.counts, obs)
    expected = ["IC50 (nM_L)", "IC50 (nM_L)_", "_index_", "_", "._"]
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert list(file["obs"].attrs["column-order"]) == expected
        for k, name in enumerate(expected):
            np.testing.assert_array_equal(file["obs"][name], np.arange(220) + k)
    data = sf.read(tmp_path / "x.h5ad", {"IC50 (nM_L)": "number"})
    (values,) = data.conditions.values.values()
    assert (values.flatten().diff() > 0).all()


def test_a_missing_library_is_reported_before_the_work(tmp_path, cells, monkeypatch):
    about = DataConfig(
        name="x",
        shape=(2,),
        columns=ColumnsConfig(names=("a", "b")),
        codec=TrainedCodecConfig(kind="nb", size=1),
    )
    assert endings(SAMPLES, about)[0] == ".h5ad"
    codec = sf.train_codec(cells.counts, "nb", size=1, width=4, steps=1)
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert endings(SAMPLES, about)[0] == ".csv"
    with pytest.raises(UsageError, match="cells need h5py; pip install"):
        check_files(SAMPLES, tmp_path / "x.h5ad", about, overwrite=False)
    with pytest.raises(UsageError, match="counts need SciPy; pip install"):
        sf.Training(sf.Data(cells.counts), sf.TrainConfig(), codec=codec)


def test_a_condition_may_have_the_name_of_the_numbers_of_items(tmp_path, cells):
    like = sf.Data(cells.counts, {"item": cells.obs["drug"]})
    about = DataConfig(name="x", shape=(12,), conditions=like.conditions.channels)
    block = {"x": cells.counts.numpy(), "given item": np.ones(220), "item": np.arange(220)}
    obs = _cells(block, SimpleNamespace(result="x"), about).obs
    assert obs["item"].labels == ("control", "drug 1")
    np.testing.assert_array_equal(obs["item_"], np.arange(220))


def test_samples_of_a_run_of_counts_are_cells_with_conditions(tmp_path, cells, capsys):
    """From a file to a file: counts, the names of the genes, and the conditions of the samples."""
    source, codec, run = tmp_path / "x.h5ad", tmp_path / "codec", tmp_path / "run"
    genes = [f"g{k}" for k in range(12)]
    write_h5ad(source, cells.counts, cells.obs, genes)
    options = ("--kind", "nb", "--size", 2, "--width", 8, "--steps", 5)
    finishes("codec", source, *options, "--out", codec)
    conditions = ("--condition", "drug,type,dose=number")
    finishes("train", source, *conditions, "--codec", codec, "--out", run, *TINY)
    given = ("--given", "drug=drug 1", "dose=0.3")
    finishes("sample", run, "--n", 70, "--nfe", 3, *given)
    (path,) = run.glob("*.h5ad")
    data = sf.read(path)
    expected = sf.load(run).sample(
        70, nfe=3, given={"drug": "drug 1", "dose": torch.full((70, 1), 0.3)}, batch_size=64
    )
    assert data.columns.names == tuple(genes)
    assert torch.equal(data.x, expected)
    assert (data.x == data.x.round()).all()
    with h5py.File(path) as file:
        labels = file["obs/drug/categories"].asstr()[()]
        assert set(labels[file["obs/drug/codes"][()]]) == {"drug 1"}
        np.testing.assert_allclose(file["obs/dose"], 0.3, rtol=1e-5)
        assert "type" not in file["obs"], "no type was given"
    # a file without one of the genes
    write_h5ad(tmp_path / "fewer.h5ad", cells.counts[:, 1:], cells.obs, genes[1:])
    capsys.readouterr()
    failing = ("train", tmp_path / "fewer.h5ad", "--codec", codec, "--out", tmp_path / "no")
    assert end(*failing) == 3
    assert "lacks 1 of the 12 columns of the codec: g0." in capsys.readouterr().err
