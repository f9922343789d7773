"""Ten programs as a newcomer writes them from the README alone, and the first calls one tries.

The programs use nothing but the names of `scorefield` and of the subpackages in its reference.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cases import values_of

import scorefield as sf

TESTS = Path(__file__).parent
PROGRAMS = sorted((TESTS / "programs").glob("*.py"))
every_program = pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)


def chain(node: ast.Attribute) -> list[str]:
    """Return the names of ``sf.a.b`` as a list, or an empty one for any other expression."""
    names: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        names.insert(0, value.attr)
        value = value.value
    return names if isinstance(value, ast.Name) and value.id == "sf" else []


@pytest.fixture(scope="module")
def documented():
    """The full names of the entries of the reference, and the modules that they are in."""
    sys.path.insert(0, str(TESTS.parent / "docs"))
    try:
        import reference
    finally:
        sys.path.remove(str(TESTS.parent / "docs"))
    return [reference.resolve(name) for names in reference.pages().values() for name in names]


@every_program
def test_a_program_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    monkeypatch.setitem(sys.modules, "program", ModuleType("program"))
    exec(compile(path.read_text(), str(path), "exec"), names | {"__name__": "program"})


@every_program
def test_a_program_uses_documented_names_only(path, documented):
    tree = ast.parse(path.read_text())
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"scorefield", "torch", "dataclasses", "diffusers"}
    chains = [chain(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert any(chains)
    for names in filter(None, chains):
        value = sf
        for name in names:
            assert name in dir(value), ".".join(names)
            value = getattr(value, name)
            if not isinstance(value, ModuleType):
                assert any(value is entry for entry in documented), ".".join(names)
                break


def test_there_are_ten_programs():
    assert len(PROGRAMS) == 10


FIELD = sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2) / 4)
MOONS = torch.randn(64, 2)


@pytest.mark.parametrize(
    "data",
    [MOONS, MOONS.double(), MOONS.numpy(), MOONS.double().numpy(), "moons", sf.Data(MOONS)],
    ids=["tensor", "float64 tensor", "array", "float64 array", "built-in name", "Data"],
)
def test_train_takes_data_as_it_is(data):
    run = sf.train(data, steps=2, batch_size=16)
    assert run.sample(3, nfe=4).shape == (3, 2)


def test_data_takes_arrays_and_needs_no_name():
    x = np.zeros((4, 2)) + np.arange(4)[:, None]
    assert torch.equal(sf.Data(x).x, torch.from_numpy(x).float())
    assert torch.equal(values_of(sf.Data(x, np.array([0, 1, 1, 0]))), torch.tensor([0, 1, 1, 0]))


def test_conditions_may_be_numbers():
    run = sf.train(MOONS, torch.linspace(0, 1, 64), steps=1)
    assert run.sample(3, nfe=2, given=[0.1, 0.5, 0.9]).shape == (3, 2)


def test_a_shape_in_the_place_of_ids_is_rejected():
    with pytest.raises(ValueError, match=r"n=\(16, 2\)"):
        sf.sample(FIELD, (16, 2))
    assert sf.sample(FIELD, [16, 2], nfe=4).shape == (2, 2)


def test_a_whole_number_of_times_is_a_number_of_steps():
    times = sf.balanced(FIELD.process, 20, data_std=FIELD.data_std)
    x = sf.sample(FIELD, 4, sf.DDIM(), 20)
    assert (x - sf.sample(FIELD, 4, sf.DDIM(), times)).abs().max() < 1e-6


def test_a_field_without_estimate_names_the_missing_method():
    class Mine(sf.ScoreField):
        def denoise(self, x, t):
            return x

    with pytest.raises(TypeError, match="estimate"):
        Mine(sf.VP(), (2,))


def test_log_prob_rejects_the_word_that_it_does_not_take():
    with pytest.raises(TypeError, match="adaptive"):
        sf.log_prob(FIELD, MOONS, adaptive=sf.Adaptive(1e-4))


def test_arguments_of_a_gaussian_in_another_order_are_rejected_by_name():
    with pytest.raises((TypeError, ValueError), match="process"):
        sf.Gaussian(torch.zeros(2), torch.eye(2), sf.VP())


def test_a_table_is_returned_in_columns_and_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("birds.csv").write_text("kind,mass\n" + "gull,0.8\ntern,0.2\n" * 40)
    run = sf.train("birds.csv", steps=2, batch_size=16)
    table = run.sample_table(5)
    assert table.column_names == ["kind", "mass"]
    assert set(table["kind"].to_pylist()) <= {"gull", "tern"}
    x = sf.read("birds.csv", like=run.config.data).x[:4]
    assert run.table(x)["kind"].to_pylist() == ["gull", "tern", "gull", "tern"]
