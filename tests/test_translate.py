"""Flows between two data sets: the closed-form map, both ways, and the refusals."""

import numpy as np
import pytest
import torch
from cases import COVARIANCE, MEAN, normal
from shell import failing, finishes

import scorefield as sf
from scorefield.evaluate.check import check
from scorefield.networks import MLP
from scorefield.noise import Noise
from scorefield.training.couplings import FromData, Matches
from scorefield.training.held_out import HeldOut

SMALL = {"network": {"kind": "mlp", "width": 48, "depth": 2}, "held_out": 0.0, "warmup": 10}


@pytest.fixture
def fails(tmp_path, capsys, monkeypatch):
    return failing(tmp_path, capsys, monkeypatch)


def root(matrix):
    values, basis = torch.linalg.eigh(matrix)
    return basis * values.sqrt() @ basis.T


def exact(correlation=1.0):
    """Return the flow between N(0, I), as data, and a Gaussian."""
    field = sf.CoupledGaussian(sf.Flow(), MEAN, COVARIANCE, correlation)
    field.between_data = True
    return field


@pytest.mark.parametrize("solver", [sf.Heun(), sf.RK4(), sf.Multistep(), sf.DDIM()])
def test_a_translation_is_the_map_of_the_exact_flow_both_ways(solver):
    x = torch.randn(32, 2, dtype=torch.float64)
    there = sf.translate(exact(), x, solver, 20)
    assert torch.allclose(there.x, MEAN + x @ root(COVARIANCE), atol=1e-5)
    assert there.error.max() < 1e-5
    back = sf.translate(exact(), there.x, solver, 20, back=True)
    assert torch.allclose(back.x, x, atol=1e-5)


def test_a_translation_of_curved_paths_converges_and_comes_back():
    x = torch.randn(32, 2, dtype=torch.float64)
    fine = sf.translate(exact(0.3), x, times=200, check=False).x
    coarse = sf.translate(exact(0.3), x, times=20)
    assert (coarse.x - fine).abs().max() < 0.01
    assert coarse.error.max() < 0.01
    assert coarse.nfe == 84
    # the marginals are those of the data whatever the paths
    assert torch.allclose(fine, MEAN + x @ root(COVARIANCE), atol=0.02)


def gaussians(n=2048):
    """Return two sets, and the optimal transport map in the units of the second one."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, n, 2, generator=g)
    one, std = root(torch.tensor([[1.0, 0.5], [0.5, 0.6]])), torch.tensor([0.5, 1.5])
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])
    scaled = root((one @ one) / std / std[:, None])
    inverse = torch.linalg.inv(scaled)
    between = inverse @ root(scaled @ scaled) @ inverse  # to a covariance of I

    def best(x):
        return ((x - means[0]) / std) @ between * std + means[1]

    return a @ one + means[0], b * std + means[1], best


@pytest.fixture(scope="module")
def run():
    x, y, _ = gaussians()
    return sf.train(x, to=y, coupling="ot", steps=500, lr=3e-3, batch_size=128, **SMALL)


def test_a_trained_translation_is_near_the_optimal_transport_map(run):
    x, y, best = gaussians()
    result = run.translate(x[:512])
    away = (result.x - best(x[:512])).square().mean().sqrt()
    assert float(away) < 0.25 * float(y.std()), float(away)
    assert result.error.mean() < 0.01
    back = run.translate(y[:512], back=True).x
    assert (back.mean(0) - x.mean(0)).abs().max() < 0.2
    assert (back.T.cov() - x.T.cov()).abs().max() < 0.25


def test_a_run_between_data_is_saved_and_has_no_noise_to_start_from(run, tmp_path):
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    x, y, _ = gaussians(64)
    assert torch.equal(again.translate(x).x, run.translate(x).x)
    for use in (
        lambda: again.sample(4),
        lambda: again.encode(y),
        lambda: again.log_prob(y),
        lambda: sf.prior(again.field, 4),
        lambda: sf.sample(sf.Clipped(again.field), 4),
        lambda: sf.sample(again.field, 4, sf.DDPM(), 10),
    ):
        with pytest.raises(ValueError, match=r"between two data sets|has no score"):
            use()
    with pytest.raises(ValueError, match="has no score"):
        again.translate(x, sf.EulerMaruyama(), 10)


@pytest.mark.slow
def test_pairs_of_two_files_are_learned_row_by_row():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 1, generator=g) * 0.3 + torch.tensor([-1.0, 1.0])[
        torch.randint(2, (1024,), generator=g)
    ].reshape(-1, 1)
    y = torch.where(x > 0, x + 3, x - 1)  # a jump that no Gaussian coupling has
    run = sf.train(x, to=y, coupling="paired", steps=500, lr=3e-3, batch_size=128, **SMALL)
    inside = x.abs() > 0.3
    away = (run.translate(x).x - y)[inside].abs().median()
    assert float(away) < 0.15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": torch.randn(8, 3)}, "two sets of one shape"),
        ({"to": torch.randn(9, 2), "coupling": "paired"}, "give as many"),
        ({"to": torch.randn(8, 2), "coupling": "reflow"}, "is for noise"),
        (
            {"to": sf.Data(torch.randn(8, 2), [0, 1, 2, 3] * 2), "conditions": [0, 1] * 4},
            "Give both sets the same",
        ),
        (
            {"to": sf.Data(torch.randn(8, 2), [0, 1, 2, 2] * 2), "conditions": [0, 2] * 4},
            "no sample of",
        ),
        ({"coupling": "paired"}, "is for two data sets"),
    ],
)
def test_sets_that_do_not_fit_are_refused_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        sf.train(torch.randn(8, 2), steps=2, **SMALL, **settings)


def test_pairs_of_two_sets_have_equal_conditions():
    """The first set at the conditions' own numbers: a pair is wrong by a whole number."""
    one = sf.Data(torch.arange(40.0)[:, None] % 3, torch.arange(40) % 3)
    other = sf.Data(torch.arange(30.0)[:, None] % 3, torch.arange(30) % 3)
    coupling = FromData(other.x, lambda x: x, Matches.of(one, other, True))
    items = torch.arange(40)
    x1 = coupling.noise(one.x, one.x, items, torch.zeros(40), Noise(0, items))
    assert torch.equal(x1, one.x)
    everything = FromData(other.x, lambda x: x, Matches.of(one, other, False))
    x1 = everything.noise(one.x, one.x, items, torch.zeros(40), Noise(0, items))
    assert not torch.equal(x1, one.x)


@pytest.mark.parametrize("bridge", [0.0, 0.3])
def test_a_translation_follows_its_condition(bridge):
    x, label = normal(256, 1).float(), torch.arange(256) % 5 % 2  # of other shares than below
    options = {"steps": 150, "lr": 5e-3, "batch_size": 64, "coupling": "ot", **SMALL}
    other = torch.arange(256) % 2
    y = sf.Data(normal(256, 1).float() + 3.0 - 6.0 * other[:, None], other)
    run = sf.train(x, label, to=y, bridge=bridge, **options)
    for value, shift in ((0, 3.0), (1, -3.0)):
        there = run.translate(x, given=value, times=6, eta=bridge and 1.0).x
        assert float((there - x).mean()) == pytest.approx(shift, abs=0.8)


def test_a_field_of_noise_has_nothing_to_translate():
    with pytest.raises(ValueError, match="starts at Gaussian noise"):
        sf.translate(sf.Gaussian(sf.VP(), MEAN, COVARIANCE), torch.zeros(2, 2))


def test_the_commands_train_and_translate(tmp_path, fails, capsys):
    x, y, _ = gaussians(256)
    np.save(tmp_path / "a.npy", x.numpy())
    np.save(tmp_path / "b.npy", y.numpy())
    small = ["--network", "mlp", "--steps", "60", "--held-out", "0.2"]
    a, out = str(tmp_path / "a.npy"), str(tmp_path / "run")
    finishes("train", a, "--to", str(tmp_path / "b.npy"), "--coupling", "ot", "--out", out, *small)
    run = sf.load(out)
    assert run.config.train.process.kind == "flow"
    assert run.config.data.source == a
    finishes("translate", out, a, "--out", str(tmp_path / "t.npy"), "--steps", "8")
    file = tmp_path / "t.npy"
    assert np.allclose(np.load(file), run.translate(x, times=8).x.numpy(), atol=1e-4)
    assert "round trip" in capsys.readouterr().out


def test_codes_of_two_runs_translate_between_their_sets(tmp_path):
    x, y, _ = gaussians(256)
    for name, data in (("one", x), ("two", y)):
        sf.train(data, steps=60, **SMALL).save(tmp_path / name)
    np.save(tmp_path / "a.npy", x.numpy())
    out = str(tmp_path / "t.npy")
    finishes(
        *("translate", str(tmp_path / "one"), str(tmp_path / "a.npy"), "--out", out),
        *("--target", str(tmp_path / "two"), "--steps", "40"),
    )
    file = tmp_path / "t.npy"
    one, two = sf.load(tmp_path / "one"), sf.load(tmp_path / "two")
    there = two.decode(one.encode(x, nfe=40).z, nfe=40).x
    assert np.allclose(np.load(file), there.numpy(), atol=1e-4)
    result = one.translate(x, target=two, nfe=40)
    assert torch.allclose(result.x, there, atol=1e-5)
    back = two.translate(result.x, target=one, nfe=40, check=False)
    away = one.to_field(back.x) - one.to_field(x)
    assert float(result.error.mean()) == pytest.approx(
        float((away.norm(dim=1) / one.to_field(x).norm(dim=1).clamp(min=2**0.5)).mean()), rel=0.2
    )
    with pytest.raises(sf.errors.UsageError, match="runs of one shape"):
        one.translate(x, target=sf.Run.of(sf.Denoiser(MLP(3, 8, 1), sf.VP(), sf.Eps(), (3,))))


def test_a_translated_table_has_the_columns_of_the_second_run(tmp_path):
    rows = normal(2, 64).numpy()
    for name, columns in (("one", "uv"), ("two", "pq")):
        sf.train(dict(zip(columns, rows, strict=True)), steps=3, **SMALL).save(tmp_path / name)
    (tmp_path / "a.csv").write_text("u,v\n0.5,1\n-1,0.2\n")
    out = tmp_path / "t.csv"
    finishes(
        *("translate", str(tmp_path / "one"), str(tmp_path / "a.csv"), "--out", str(out)),
        *("--target", str(tmp_path / "two"), "--steps", "8"),
    )
    assert out.read_text().splitlines()[0].replace('"', "") == "p,q"


def test_the_command_line_rejects_two_sets_in_its_own_words(tmp_path, fails):
    np.save(tmp_path / "a.npy", normal(8, 2).numpy())
    np.save(tmp_path / "b.npy", normal(9, 2).numpy())
    a, b, out = str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), str(tmp_path / "run")
    message = fails(2, "train", a, "--out", out, "--coupling", "paired", "--steps", "2")
    assert "--coupling paired: " in message
    assert "--to B" in message
    message = fails(2, "train", a, "--to", b, "--out", out, "--coupling", "paired", "--steps", "2")
    assert "--coupling paired: " in message
    assert "give as many" in message
    sf.train(normal(64, 2), steps=2, **SMALL).save(out)
    message = fails(2, "translate", out, a, "--any-scale")
    assert "--target RUN" in message


def test_plans_are_not_tuned_between_two_sets():
    field = sf.Denoiser(MLP(2, 8, 1), sf.Flow(), sf.Velocity(), (2,), between_data=True)
    with pytest.raises(ValueError, match="goes between two data sets"):
        sf.Tuner(field.eval())
    assert sf.Clipped(field).between_data


def test_the_error_on_held_out_pairs_is_relative_to_no_translation():
    """For x0 = x1 + 3 the sample as it is has an error of 3 t, and one of 1.5 t is a half."""
    n = 64
    x0 = normal(n, 2).float()

    class Half(sf.ScoreField):
        between_data = True

        def estimate(self, x, at, **condition):
            return sf.Estimate.from_x0(x, at, x + 1.5 * at.sigma)

    class Shifted(sf.Coupling):
        def noise(self, x0, eps, items, groups, draws):
            return x0 - 3

    held_out = HeldOut(x0, {}, torch.arange(n), None, 0, Shifted())
    errors = held_out.errors(Half(sf.Flow(), (2,)))
    assert torch.allclose(errors, torch.tensor(0.25).double(), rtol=0.05)


def test_fields_between_two_sets_are_rejected_where_noise_is_meant():
    field = sf.Denoiser(MLP(2, 8, 1), sf.Flow(), sf.Velocity(), (2,), between_data=True)
    x = normal(64, 2).float()
    for call in (lambda: sf.Run.of(field, x), lambda: check(field.eval(), x)):
        with pytest.raises(ValueError, match="goes between two data sets"):
            call()
    with pytest.raises(ValueError, match="goes between two data sets"):
        sf.audit(field.eval(), x)


def test_signals_of_several_lengths_are_not_coupled():
    signals = [normal(1, length).float() for length in (8, 16) * 20]
    with pytest.raises(sf.errors.UsageError, match="signals of several lengths"):
        sf.train(signals, coupling="ot", steps=2)


def test_two_tables_of_other_columns_are_not_matched_by_their_places():
    rows = normal(2, 64).numpy()
    one, other = {"u": rows[0], "v": rows[1]}, {"v": rows[0], "u": rows[1]}
    with pytest.raises(sf.errors.UsageError, match="the same columns in one order"):
        sf.train(one, to=other, steps=2)
