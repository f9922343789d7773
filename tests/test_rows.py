"""Data that is larger than memory: read as it is asked for, to the same numbers."""

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import read, rows
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig

RNG = np.random.default_rng(0)
CONFIG = TrainConfig(network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=9, batch_size=8))


@pytest.mark.parametrize("shape", [(40, 3), (40, 2, 5), (40, 6, 5, 3)])
def test_what_is_read_later_is_what_is_read_at_once(tmp_path, monkeypatch, shape):
    """In many chunks, and of channels in either place."""
    np.save(tmp_path / "x.npy", RNG.normal(size=shape))
    whole = read(tmp_path / "x.npy")
    monkeypatch.setattr(rows, "_CHUNK", 7 * shape[1])
    later = read(tmp_path / "x.npy", in_memory=0)
    assert not isinstance(later.x, torch.Tensor)
    assert torch.equal(later.x[torch.arange(40)], whole.x)
    assert rows.digest(later.x) == rows.digest(whole.x)
    assert later.columns == whole.columns


def test_moments_by_chunks_are_those_of_all(monkeypatch):
    x = torch.from_numpy(RNG.normal(1e3, 1, (1000, 4)))
    x[RNG.random((1000, 4)) < 0.3] = np.nan
    x[:, 3] = np.nan
    x[500:, 3] = 1.0
    monkeypatch.setattr(rows, "_CHUNK", 4 * 37)
    found = rows.moments_of(x, lambda x: x)
    there = x.numpy()
    np.testing.assert_allclose(found.mean, np.nanmean(there, 0), rtol=1e-13)
    np.testing.assert_allclose(found.variance, np.nanvar(there, 0), rtol=1e-9, atol=1e-12)


def test_a_bad_value_and_a_gap_are_found_in_whatever_chunk(tmp_path, monkeypatch):
    x = RNG.normal(size=(40, 3))
    x[33, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(rows, "_CHUNK", 30)
    with pytest.raises(DataError, match=r"index \(33, 1\): inf"):
        read(tmp_path / "x.npy")
    x[33, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"index \(33, 1\): nan.*missing=\"drop"):
        read(tmp_path / "x.npy")
    dropped = read(tmp_path / "x.npy", missing="drop", in_memory=0)
    expected = torch.from_numpy(np.delete(x, 33, 0)).float()
    assert torch.equal(dropped.x[torch.arange(39)], expected)
    kept = read(tmp_path / "x.npy", missing="keep")
    assert [c.name for c in kept.columns.kinds if c.missing] == ["1"]


def test_a_training_that_reads_as_it_goes_ends_at_the_same_weights(tmp_path):
    np.save(tmp_path / "x.npy", RNG.normal(size=(50, 3)))
    runs = [
        sf.train(read(tmp_path / "x.npy", in_memory=limit), config=CONFIG) for limit in (2**30, 0)
    ]
    first, second = (run.field.network.state_dict() for run in runs)
    assert all(torch.equal(second[k], v) for k, v in first.items())
