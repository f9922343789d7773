"""A network that is not what it is declared to be is found, and what it looks like is named."""

import functools
import itertools
import math

import pytest
import torch
from cases import MORE, PROCESSES, mixture, normal
from shell import failing, finishes
from torch import nn

import scorefield as sf
from scorefield.data import read
from scorefield.evaluate.check import check, tables
from scorefield.evaluate.check.advice import advice
from scorefield.networks import MLP
from scorefield.process import align
from scorefield.runs.loading import new_denoiser
from scorefield.training.config import (
    MLPConfig,
    OptimConfig,
    PlainParametrization,
    PlainWeighting,
    TabulatedConfig,
    TimeLabelConfig,
    TrainConfig,
    UniformConfig,
)


@pytest.fixture
def fails(tmp_path, capsys, monkeypatch):
    return failing(tmp_path, capsys, monkeypatch)


PLAIN = {"eps": sf.Eps(), "x0": sf.X0(), "score": sf.Score(), "v": sf.V()}
COUNT = 100


class Exact(nn.Module):
    """The network that has learned an exact field, told the time times a factor."""

    def __init__(self, field, parametrization, sign=1.0, factor=1.0):
        super().__init__()
        self.field, self.parametrization = field, parametrization
        self.sign, self.factor = sign, factor

    def forward(self, seen, label):
        process = self.field.process
        t = align((label / self.factor).clamp(process.t_min, process.t_max), seen)
        skip, out, scale = self.parametrization(*process.coefficients(t))
        x = seen / scale
        return self.sign * (self.field(x, t).x0 - skip * x) / out


@functools.cache
def samples():
    return sf.sample(mixture(PROCESSES["VP"]), 2048, seed=1, batch_size=512, dtype=torch.float64)


def exact(name, parametrization, *told):
    """Return the network of a mixture in one process, and data of it."""
    field = mixture(PROCESSES[name])
    return Exact(field, parametrization, *told), field, samples()


def denoiser(network, field, parametrization, process=None, label=sf.time_label):
    parts = field.shape, field.mean, field.variance, label
    return sf.Denoiser(network, process or field.process, parametrization, *parts)


KINDS = {
    "eps-prediction": (sf.Eps(), 1.0),
    "x0-prediction": (sf.X0(), 1.0),
    "score-prediction": (sf.Score(), 1.0),
    "v-prediction": (sf.V(), 1.0),
    "velocity-prediction (eps - x0)": (sf.Velocity(), 1.0),
    "prediction of x0 - eps, whose time runs to data": (sf.Velocity(), -1.0),
    "EDM's prediction with data_std = 0.5": (sf.Preconditioned(0.5), 1.0),
}


TURNS = itertools.cycle(["VP", "Flow", "Tabulated", "EDM"])


@pytest.mark.parametrize(("name", "process"), [(name, next(TURNS)) for name in KINDS])
def test_what_an_exact_network_predicts_is_named_whatever_is_declared(process, name):
    network, field, data = exact(process, *KINDS[name])
    for declared in (sf.Eps(), sf.V(), sf.Velocity()):
        found = check(denoiser(network, field, declared), data, n=256)
        assert found.best.name == name
        assert found.right == (found.declared.name == name)


@pytest.mark.parametrize("process", ["VP", "Flow", "EDM", "Tabulated"])
def test_a_true_mean_passes_both_identities_and_is_no_further_off_than_a_gaussian(process):
    network, field, data = exact(process, sf.V())
    found = check(denoiser(network, field, sf.V()), data, n=2048)
    for level in found.levels:
        assert abs(level.slope - 1) < 4 * level.stderr
        # the estimate hardly varies beyond the levels of the comparison, so its slope is uncertain
        assert 0 < level.stderr < (0.3 if level.ratio < 11 * found.data_std else math.inf)
        assert level.bias < 2.5
        assert level.error < 1.1
    assert min(level.error for level in found.levels) < 0.8
    wrong = check(denoiser(network, field, sf.X0()), data)
    assert any(abs(level.slope - 1) > 10 * level.stderr for level in wrong.levels)


@pytest.mark.parametrize(("true", "said"), [(1.0, 1000.0), (1000.0, 1.0)])
def test_a_wrong_unit_of_time_is_named(true, said):
    network, field, data = exact("VP", sf.Eps(), 1.0, true)
    label = sf.Scaled(sf.time_label, said)
    found = check(denoiser(network, field, sf.Eps(), label=label), data)
    assert found.best.name == f"eps-prediction with the label {'t' if true == 1 else '1000 t'}"
    assert not found.right


def test_a_network_that_refuses_other_labels_is_checked_all_the_same():
    _, field, data = exact("VP", sf.V())

    class Strict(nn.Module):
        def forward(self, seen, label):
            return field(seen, label).v  # which refuses times beyond its own

    found = check(denoiser(Strict(), field, sf.Eps()), data)
    assert found.best.name == "v-prediction"
    with pytest.raises(ValueError, match="outside"):
        check(denoiser(Strict(), field, sf.V(), label=sf.Scaled(sf.time_label, 1000.0)), data)


@pytest.mark.parametrize("true", ["VP", "Cosine", "Flow"])
@pytest.mark.parametrize("said", ["VP", "Cosine", "Flow"])
def test_a_wrong_process_is_named(true, said):
    network, field, data = exact(true, sf.V())
    found = check(denoiser(network, field, sf.V(), PROCESSES[said]), data, n=2048)
    names = {"VP": "the process VP", "Cosine": "the cosine process"}
    name = names.get(true, "the process of flow matching")
    assert found.best.name == ("v-prediction" if true == said else f"v-prediction with {name}")


@functools.cache
def digits(kind):
    """Return a run on digits whose network is told the index of the linear table."""
    config = TrainConfig(
        process=TabulatedConfig(alpha_bar=tuple(tables.linear(COUNT).tolist())),
        parametrization=PlainParametrization(kind=kind),
        label=TimeLabelConfig(scale=1 / COUNT),
        weighting=PlainWeighting(kind="simple"),
        times=UniformConfig(),
        network=MLPConfig(width=96, depth=2),
        optim=OptimConfig(steps=1200 if kind == "score" else 500, lr=2e-3),
        levels=17,
    )
    return sf.train(read("digits"), config=config)


def held_out(run):
    return run.to_field(read("digits-test").x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "true", [kind if kind in ("x0", "v") else pytest.param(kind, marks=MORE) for kind in PLAIN]
)
def test_what_a_digits_network_predicts_is_named(true):
    """On data that it never saw, and on nothing but what it generates itself."""
    run = digits(true)
    for said in PLAIN:
        declared = denoiser(run.field.network, run.field, PLAIN[said], label=run.field.label)
        # samples of its own take a hundred calls more: for the true declaration and one wrong one
        own = said == true or said == ("x0" if true == "eps" else "eps")
        for x in (held_out(run), None) if own else (held_out(run),):
            found = check(declared, x)
            assert found.learned
            assert found.declared.name == f"{said}-prediction"
            assert found.best.name == f"{true}-prediction"
            assert found.right == (true == said)
            looks = f"looks like {true}-prediction, not {said}-prediction"
            assert (looks in str(found)) == (true != said)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("table", ["cosine", "sigmoid"])
def test_a_wrong_table_of_a_digits_network_is_named(kind, table):
    run = digits(kind)
    process = sf.Tabulated(tables.TABLES[table](COUNT))
    declared = denoiser(run.field.network, run.field, PLAIN[kind], process, run.field.label)
    found = check(declared, held_out(run))
    assert found.best.name == f"{kind}-prediction with the linear table"


@pytest.mark.parametrize("declared", [sf.V(), sf.Preconditioned(), sf.Eps()])
def test_nothing_is_told_of_an_untrained_network(declared):
    """Though what gives nothing back is, read as v, the answer of a Gaussian of unit variance."""
    field = sf.Gaussian(sf.VP(), torch.zeros(5), torch.eye(5))
    untrained = denoiser(MLP(5, width=16, depth=1), field, declared)
    for x in (normal(512, 5).float(), None):
        found = check(untrained, x)
        assert not found.learned
        assert not found.right
        assert "no interpretation" in str(found)


@pytest.mark.parametrize("std", [0.99999998, 1.00000003, 0.5, 2.0])
def test_the_declared_deviation_is_one_reading_however_it_is_rounded(std):
    network, field, data = exact("VP", sf.Preconditioned(std))
    field.variance = std**2
    found = check(denoiser(network, field, sf.Preconditioned(std)), data, n=2048)
    assert found.right
    names = [interpretation.name for interpretation in found.interpretations]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("count", [2, 10, 19, 1000])
def test_tables_of_any_length_are_compared(count):
    process = sf.Tabulated(tables.linear(count))
    field = mixture(process)
    found = check(denoiser(Exact(field, sf.V()), field, sf.Eps()), samples())
    assert found.best.name == "v-prediction"
    assert all(((t(count) > 0) & (t(count) < 1)).all() for t in tables.TABLES.values())


def test_untrained_digits_are_told_apart_from_wrong_ones():
    run = digits("v")
    field = run.field.around(new_denoiser(run.config.train, run.config.data).network)
    found = check(field.eval(), held_out(run))
    assert not found.learned
    assert not found.right
    assert "no interpretation" in str(found)


@pytest.mark.slow
def test_the_command_names_what_a_run_folder_says_wrongly(tmp_path, capsys, fails):
    run = tmp_path / "run"
    digits("v").save(run)
    finishes("check", run, "digits-test")
    assert "this is v-prediction, as declared" in capsys.readouterr().out
    (run / "SHA256SUMS").unlink()
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('kind = "v"', 'kind = "eps"'))
    looks = "this looks like v-prediction, not eps-prediction"
    assert looks in fails(4, "check", run, "digits-test")
    assert looks in fails(4, "check", run)
    assert "--n 1" in fails(2, "check", run, "--n", "1")
    assert "--condition" in fails(2, "check", run, "--condition", "y.npy")


def test_what_cannot_be_checked_is_refused():
    network, field, data = exact("VP", sf.V())
    told = denoiser(network, field, sf.V())
    for x, n, message in [
        (data, 1, "n=1"),
        (data[:1].expand(8, -1), 64, "do not vary"),
        (data[:1], 64, "do not vary"),
        (data[:0], 64, "do not vary"),
        (normal(8, 5), 64, "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            check(told, x, n=n)
    with pytest.raises(ValueError, match="a condition has 7 rows for 2048 samples"):
        check(told, data, y=torch.zeros(7))

    class Demanding(nn.Module):
        def forward(self, seen, label):
            raise ValueError("this network wants a text")

    for x in (data, None):
        with pytest.raises(ValueError, match="wants a text"):
            check(denoiser(Demanding(), field, sf.V()), x)


def test_a_network_that_is_off_at_high_noise_is_named_with_the_solvers_that_suffer():
    """Its x0 is worse than a Gaussian's there, by (size r / c)^2; that of the exact one is not."""
    field = mixture(PROCESSES["VP"])
    off = sf.Inexact(field, 0.1, around=(100.0, 1.0))
    results = [
        check(denoiser(Exact(one, sf.Eps()), field, sf.Eps()), samples()) for one in (field, off)
    ]
    assert [advice(results[0]), results[0].poor] == ["", ()]
    assert results[1].poor
    assert min(level.ratio for level in results[1].poor) > 10 * field.data_std
    errors = [one.declared.error for one in results]
    assert errors[0] == pytest.approx(errors[1], rel=0.02), "compared at lower noise"
    assert "sigma/alpha" in advice(results[1])
    assert "UniPC(4, angle)" in advice(results[1])
    assert "Multistep(2, data)" not in advice(results[1])
    last = max(results[1].levels, key=lambda level: level.ratio)
    share = (0.1 * last.ratio / field.data_std) ** 2
    assert last.error == pytest.approx(1 + share, rel=0.5)
