"""Signals of several lengths: read, learned, sampled, and their density, each at its own length."""

import math

import numpy as np
import pytest
import torch
from shell import end, finishes

import scorefield as sf
from scorefield._internal.errors import DataError, UsageError
from scorefield.networks import UNet
from scorefield.networks.masked import Masked
from scorefield.training import config as c
from scorefield.training.objective import EDMWeighting, Objective, UniformTimes

LENGTHS = (4, 7, 8)
RHO = 0.8  # of an autoregressive process of variance 1
SMALL = {"steps": 2, "batch_size": 8, "network": c.UNetConfig(width=8)}


def covariance(length):
    k = torch.arange(length, dtype=torch.float64)
    return RHO ** (k[:, None] - k).abs()


def signals(count, seed, missing=math.nan):
    """Signals ``(count, 1, 8)`` of the process and their lengths, with a value after their ends."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=g) @ torch.linalg.cholesky(covariance(8)).float().T
    length = torch.tensor(LENGTHS)[torch.randint(3, (count,), generator=g)]
    return x.where(torch.arange(8) < length[:, None], missing)[:, None], length


def exact(x, length):
    """The log-density of signals."""
    return torch.stack(
        [
            torch.distributions.MultivariateNormal(torch.zeros(n).double(), covariance(n)).log_prob(
                row[0, :n].double()
            )
            for row, n in zip(x, length.tolist(), strict=True)
        ]
    )


class Exact(torch.nn.Module):
    """The posterior mean of x0 for signals of any length, at x = x0 + sigma eps."""

    def forward(self, x, label):
        sigma, result = torch.exp(4 * label.double()), []
        for row, s in zip(x[:, 0].double(), sigma, strict=True):
            here = ~row.isnan()
            cov = covariance(int(here.sum()))
            mean = cov @ torch.linalg.solve(cov + s**2 * torch.eye(len(cov)), row[here])
            result.append(torch.nn.functional.pad(mean, (0, len(row) - len(mean)), value=9.0))
        return torch.stack(result)[:, None].to(x)


@pytest.fixture(scope="module")
def run():
    x, _ = signals(400, 0)
    denoiser = sf.Denoiser(Exact(), sf.EDM(), sf.X0(), (1, 8))
    return sf.Run.of(denoiser, x)


# --- reading --------------------------------------------------------------------------------------

ROWS = [np.arange(3.0), np.arange(5.0), np.arange(4.0)]
FORMS = {
    "vectors": (ROWS, 1),
    "channels first": ([np.stack([row, -row]) for row in ROWS], 2),
    "channels last": ([np.stack([row, -row], 1) for row in ROWS], 2),
    "tensors": ([torch.tensor(row)[None] for row in ROWS], 1),
}


@pytest.mark.parametrize(("items", "channels"), FORMS.values(), ids=FORMS)
def test_a_list_of_arrays_is_filled_up_with_nan(items, channels):
    x = sf.Data(items).x
    assert x.shape == (3, channels, 5)
    assert (~x[:, 0].isnan()).sum(1).tolist() == [3, 5, 4]
    for row, each in zip(x, ROWS, strict=True):
        assert row[0, : len(each)].tolist() == each.tolist()
        assert channels == 1 or torch.equal(row[1, : len(each)], -row[0, : len(each)])


def gap(x):
    x[3, 0, 1] = math.nan
    return x


def in_one_channel(x):
    x = x.repeat(1, 2, 1)
    x[5, 1, -1] = math.nan
    return x


def empty(x):
    x[2] = math.nan
    return x


BAD = {
    "gap": (gap, "signal 3 has a missing value .NaN. before its end"),
    "one channel": (in_one_channel, "signal 5 has a missing value .NaN. before its end"),
    "empty": (empty, "signal 2 has no values"),
    "longer": (
        lambda x: torch.nn.functional.pad(x, (0, 3), value=math.nan),
        "signals of at most 8 values, and 11 places: cut the last 3 places off",
    ),
    "both": (
        lambda x: [np.zeros((2, 3)), np.zeros((3, 4))],
        r"signals of 2 to 3 by 3 to 4 values: give each the shape \(C, L\)",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_other_missing_values_are_rejected(spoil, message):
    x, _ = signals(20, 1, missing=0.5)
    with pytest.raises(DataError, match=message) as error:
        sf.train(spoil(x), **SMALL)
    assert "\n" not in str(error.value)


def test_signals_are_not_of_several_lengths_for_a_run_of_one():
    x, _ = signals(20, 1, missing=0.5)
    whole = sf.train(x, **SMALL)
    with pytest.raises(DataError, match="not finite"):
        whole.read(signals(20, 1)[0])
    with pytest.raises(UsageError, match=r"length=4: this run has samples of one shape, \(1, 8\)"):
        whole.of_length(4)
    with pytest.raises(DataError, match="levels=4: not for signals of several lengths"):
        sf.train(signals(20, 1)[0], levels=4, **SMALL)


# --- training -------------------------------------------------------------------------------------


def test_a_signal_is_learned_as_it_would_be_alone():
    """The loss and the gradient of a batch are those of each signal cut to its length."""
    x, length = signals(6, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Masked(UNet(2, 8, dims=1), 1, 8)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    field = sf.Denoiser(network, sf.VP(), sf.V(), (1, 8))
    objective = Objective(EDMWeighting(), UniformTimes())
    g = torch.Generator().manual_seed(1)
    t, eps = torch.linspace(0.1, 0.9, 6).double(), torch.randn(x.shape, generator=g)
    losses = objective.loss(field, x, t, eps)
    for k, n in enumerate(length.tolist()):
        one = objective.loss(field, x[k : k + 1, :, :n], t[k : k + 1], eps[k : k + 1, :, :n])
        torch.testing.assert_close(losses[k : k + 1], one, rtol=1e-4, atol=1e-5)
    losses.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", ["unet", "dit", "mlp"])
def test_each_network_is_trained_and_comes_back(kind, tmp_path):
    network = {"unet": c.UNetConfig(width=8), "mlp": c.MLPConfig(width=8, depth=1)}
    network["dit"] = c.DiTConfig(width=16, layers=1, head=8, patch=3)
    x, length = signals(20, 3)
    trained = sf.train(x, **{**SMALL, "network": network[kind]}, held_out=0.2)
    trained.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert [n for n, _ in again.config.data.lengths] == sorted({*length.tolist()})
    torch.testing.assert_close(again.sample(5, nfe=3), trained.sample(5, nfe=3), equal_nan=True)
    with pytest.raises(UsageError, match="length=4: save the run of all lengths instead"):
        again.of_length(4).save(tmp_path / "other")


# --- samples and densities ------------------------------------------------------------------------


def test_samples_have_the_lengths_of_the_data_and_the_law_of_their_length(run):
    count = 3000
    x = run.sample(count, nfe=12, batch_size=500)
    length = (~x[:, 0].isnan()).sum(1)
    for n, share in run.config.data.lengths:
        some = x[length == n][:, 0].double()
        assert some[:, n:].isnan().all()
        assert abs(len(some) / count - share) < 4 * (0.25 / count) ** 0.5
        some, expected = some[:, :n], covariance(n)
        error = (1 + expected**2).sqrt() / len(some) ** 0.5
        assert float(((some.T @ some / len(some) - expected) / error).abs().max()) < 4
        assert float(some.mean(0).abs().max()) < 4 / len(some) ** 0.5


def test_the_density_is_that_of_the_values_before_the_end(run):
    x, length = signals(12, 4)
    result = run.log_prob(x, nfe=24)
    torch.testing.assert_close(result.value, exact(x, length), atol=0.02, rtol=0)
    for n in LENGTHS:
        alone = run.of_length(n).log_prob(x[length == n][..., :n], nfe=24)
        torch.testing.assert_close(result.value[length == n], alone.value)
    bound = run.elbo(x, nfe=64)
    assert float(((bound.value - exact(x, length)) / bound.stderr).abs().max()) < 5


def test_a_signal_is_a_function_of_its_id_and_its_length(run):
    together = run.sample(9, nfe=3, batch_size=4)
    some = run.sample([7, 2], nfe=3, batch_size=4)
    assert torch.equal(some.nan_to_num(9.0), together[[7, 2]].nan_to_num(9.0))
    n = int((~together[7, 0].isnan()).sum())
    one = run.of_length(n).sample([7], nfe=3, batch_size=4)
    assert torch.equal(one[0], together[7, :, :n])


def test_one_length_is_a_run_like_any_other(run):
    short = run.of_length(4)
    assert short.sample(3, nfe=3).shape == (3, 1, 4)
    x = signals(2, 5, missing=0.1)[0][..., :4]
    codes = short.encode(x, nfe=20)
    torch.testing.assert_close(short.decode(codes, nfe=20).x, x, atol=1e-2, rtol=0)
    for use in (lambda: run.encode(x), run.check, lambda: run.compare(nfe=5)):
        with pytest.raises(UsageError, match=r"choose one, as in run.of_length\(8\)"):
            use()
    for length in (3, 9, 4.5, "4"):
        with pytest.raises(UsageError, match="this run has learned lengths of 4 to 8"):
            run.of_length(length)


def test_a_plan_is_tuned_at_the_full_length_and_serves_all(tmp_path):
    x, _ = signals(20, 3)
    sf.train(x, **{**SMALL, "network": c.MLPConfig(width=8, depth=1)}).save(tmp_path / "run")
    plan = sf.load(tmp_path / "run").of_length(4).tune(4, tries=2, noises=16)[4]
    run = sf.load(tmp_path / "run")
    for each in (run, run.of_length(4), run.of_length(8)):
        assert torch.equal(each.plan(4).times, plan.times)
    expected = run.of_length(4).sample(2, plan)
    assert torch.equal(run.of_length(4).sample(2, nfe=4), expected)


@pytest.mark.slow
class Pointwise(torch.nn.Module):
    """A network of the user's own, which replaces the values after the end of a signal or not."""

    def __init__(self, replaces):
        super().__init__()
        self.inner, self.replaces = torch.nn.Conv1d(1, 1, 3, padding=1), replaces

    def forward(self, x, label):
        return self.inner(x.nan_to_num() if self.replaces else x)


def test_an_own_network_replaces_the_values_after_the_end():
    (x, _), settings = signals(40, 0), {"steps": 2, "batch_size": 8, "held_out": 0.0}
    run = sf.train(x, network=Pointwise(True), **settings)
    assert math.isfinite(run.config.loss)
    with pytest.raises(UsageError, match=r"returns NaN before that end too: .*nan_to_num"):
        sf.train(x, network=Pointwise(False), **settings)


def test_lengths_are_learned():
    """The law of samples of each length, and densities, after a training."""
    x, _ = signals(20_000, 0)
    settings = {"steps": 600, "batch_size": 512, "lr": 4e-3, "end": "last", "held_out": 0.0}
    run = sf.train(x, network=c.MLPConfig(width=64, depth=2), **settings)
    held, length = signals(120, 1)
    error = run.log_prob(held, nfe=24).value - exact(held, length)
    drawn = run.sample(1500, nfe=12, batch_size=500)
    lengths = (~drawn[:, 0].isnan()).sum(1)
    for n in LENGTHS:
        assert abs(float(error[length == n].mean())) < 0.1
        some = drawn[lengths == n][:, 0, :n].double()
        spread = (1 + covariance(n) ** 2).sqrt() / len(some) ** 0.5
        assert float(((some.T @ some / len(some) - covariance(n)) / spread).abs().max()) < 4.5


def test_the_command_line_keeps_the_ends(tmp_path, capsys):
    x, _ = signals(30, 6)
    np.save(tmp_path / "x.npy", x.numpy())
    run = tmp_path / "run"
    finishes("train", tmp_path / "x.npy", "--out", run, "--steps", 2, "--network", "mlp")
    finishes("sample", run, "--n", 6, "--nfe", 3, "--out", tmp_path / "s.npy")
    drawn = np.load(tmp_path / "s.npy")
    assert drawn.shape == (6, 1, 8)
    assert {*(~np.isnan(drawn[:, 0])).sum(1).tolist()} <= {*LENGTHS}
    finishes("sample", run, "--n", 2, "--nfe", 3, "--length", 4, "--out", tmp_path / "t.npy")
    assert np.load(tmp_path / "t.npy").shape == (2, 1, 4)
    finishes("likelihood", run, tmp_path / "x.npy", "--nfe", 8, "--out", tmp_path / "l.csv")
    assert len((tmp_path / "l.csv").read_text().splitlines()) == 31
    assert end("encode", run, tmp_path / "x.npy", "--nfe", 8) != 0
    assert "--length: this run has signals of several lengths" in capsys.readouterr().err
    assert end("report", run) != 0
    assert "--length: this run has signals of several lengths" in capsys.readouterr().err
