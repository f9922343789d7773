"""What is told of data before training on it."""

import numpy as np
import pytest
from shell import end, finishes

from scorefield._internal.errors import DataError
from scorefield.data import inspect

RNG = np.random.default_rng(0)


@pytest.fixture
def told(tmp_path):
    def tell(array, name="x.npy"):
        np.save(tmp_path / name, array)
        return inspect(tmp_path / name)

    return tell


def test_vectors_are_described(told):
    found = told(np.array([[1.0, -2.0], [3.0, 4.5], [0.5, 0.0]]))
    assert found["shape"] == "(3, 2)"
    assert found["values"] == "-2 to 4.5, mean 1.167, deviation 2.095"
    assert found["not finite"] == "none"
    assert found["training"] == "3 vectors of shape (2,)"
    assert "each feature by itself" in found["transform"]
    assert found["network"].startswith("an MLP")
    assert "whole numbers" not in found


def test_images_of_bytes_are_described(told):
    found = told(RNG.integers(0, 200, (5, 8, 8, 3), dtype=np.uint8))
    assert found["type"] == "uint8"
    assert found["training"] == "5 images (C, H, W) of shape (3, 8, 8), turned from channels last"
    assert "each channel by itself" in found["transform"]
    assert found["network"].startswith("a U-Net")
    assert "with levels=" in found["whole numbers"]


def test_levels_are_one_more_than_the_largest_value(told):
    found = told(np.array([[0, 3], [7, 1], [2, 2]]))
    assert found["whole numbers"].startswith("from 0 to 7: with levels=8")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[1.0, np.nan], [2.0, 3.0], [np.inf, 1.0]]), "not finite numbers"),
        (np.full((3, 2), 5.0), "2 constant feature(s), 0, 1"),
        (np.zeros(4), "needs (N, D)"),
        (np.array([["a", "b"]]), "needs numbers"),
    ],
)
def test_what_training_would_refuse_is_told_with_its_reason(told, array, reason):
    found = told(array)
    assert found["training"].startswith("rejected: ")
    assert reason in found["training"]


def test_values_that_are_not_finite_are_counted(told):
    found = told(np.array([[1.0, np.nan], [2.0, 3.0], [np.inf, 1.0]]))
    assert found["not finite"] == "2, the first at index (0, 1)"
    assert found["values"].startswith("1 to 3,")


def test_the_command_prints_it(capsys):
    finishes("data", "inspect", "digits")
    text = " ".join(capsys.readouterr().out.split())
    assert "(1297, 1, 8, 8)" in text
    assert "conditions y, 10 classes" in text
    assert "with levels=17" in text
    assert end("data", "inspect", "nowhere.npy") == 3
    assert "no such file" in capsys.readouterr().err


def test_what_cannot_be_read_at_all_is_refused(tmp_path):
    (tmp_path / "x.xyz").write_text("1")
    with pytest.raises(DataError, match="ends in none of"):
        inspect(tmp_path / "x.xyz")


def test_the_columns_of_a_table_are_shown_and_not_a_mean_over_them(tmp_path):
    """Texts are no numbers that are not finite, days no seconds, and a step is in units."""
    rows = [f"a,{k % 25 + 1:02d}.01.2023,{2**60 + 1000 * (k * k % 100)}\n" for k in range(200)]
    (tmp_path / "t.csv").write_text("kind,day,key\n" + "".join(rows))
    summary = inspect(tmp_path / "t.csv")
    assert not {"not finite", "values", "type"} & {*summary}
    assert "steps" not in summary["column day"]
    assert summary["column key"].endswith("in steps of 1000")
