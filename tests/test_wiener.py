"""The best linear denoiser, which a network corrects."""

import numpy as np
import pytest
import torch
from cases import PROCESS_IDS, PROCESSES
from shell import TINY, end, finishes

import scorefield as sf
from scorefield.networks import Wiener

SIZE = 5
MEAN = torch.tensor([0.5, -1.0, 0.0, 2.0, 0.1], dtype=torch.float64)


class Zero(torch.nn.Module):
    def forward(self, x, label):
        return torch.zeros_like(x)


def law(rank):
    """Return a covariance whose smallest eigenvalues beyond ``rank`` are equal, and its root."""
    values = torch.tensor([3.0, 1.2, 0.5, 0.05, 0.01], dtype=torch.float64)
    values[rank:] = 0.03
    turn, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64))
    return turn @ values.diag() @ turn.T, turn @ values.sqrt().diag()


def samples_of(root, count=4 * SIZE):
    """Return samples that have exactly the mean and the covariance."""
    z = torch.randn(count, SIZE, dtype=torch.float64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / count)).T
    return MEAN + z @ root.T


@pytest.mark.parametrize("rank", [0, 2, SIZE])
@pytest.mark.parametrize("name", PROCESS_IDS)
def test_with_a_network_of_zero_it_is_the_field_of_a_gaussian(name, rank):
    process = PROCESSES[name]
    covariance, root = law(rank)
    network = Wiener(Zero(), SIZE, rank).double()
    network.fit(samples_of(root).split(7))
    network.register_parameter("kind", torch.nn.Parameter(MEAN[:1].clone()))  # float64
    ours = sf.Denoiser(network, process, sf.Preconditioned(), (SIZE,))
    exact = sf.Gaussian(process, MEAN, covariance)
    for t in torch.linspace(process.t_min, process.t_max, 7, dtype=torch.float64)[:-1]:
        alpha, sigma = process.coefficients(t)
        x = alpha * samples_of(root, 6) + sigma * torch.randn(6, SIZE, dtype=torch.float64)
        torch.testing.assert_close(ours(x, t).eps, exact(x, t).eps, rtol=1e-6, atol=1e-6)


def test_the_right_output_of_the_network_has_unit_variance():
    """On a Gaussian, the mean over coordinates, at every noise level."""
    _, root = law(2)
    x0 = samples_of(root, 40_000)
    seen = []

    class Ones(torch.nn.Module):
        def forward(self, x, label):
            return torch.ones_like(x)

    zero, one = (Wiener(net, SIZE, 2).double() for net in (Zero(), Ones()))
    for network in (zero, one):
        network.fit([x0])
    for r in (0.01, 0.3, 3.0, 100.0):
        noise = torch.randn_like(x0)
        target = sf.Preconditioned().target(*torch.tensor([1.0, r]).double(), x0, noise)
        x = (x0 + r * noise) / (1 + r**2) ** 0.5
        label = torch.full((len(x),), r, dtype=torch.float64).log() / 4
        linear = zero(x, label)
        scale = (one(x, label) - linear)[0, 0]
        seen.append(float(((target - linear) / scale).square().mean()))
    np.testing.assert_allclose(seen, 1.0, rtol=0.03)


def test_a_run_has_it_in_its_folder(tmp_path):
    """With a network of zeros it generates the Gaussian of the data's moments."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) @ np.array([[1.0, 0.9, 0], [0, 0.3, 0], [0.5, 0, 2]]) + 3
    np.save(tmp_path / "x.npy", x)
    words = [*TINY, "--network.components", "3", "--held-out", "0"]
    finishes("train", tmp_path / "x.npy", "--out", tmp_path / "run", *words)
    run = sf.load(tmp_path / "run")
    with torch.no_grad():
        for parameter in run.field.network.parameters():
            parameter.zero_()
    samples = np.asarray(run.sample(8000, nfe=20))
    np.testing.assert_allclose(np.cov(samples.T), np.cov(x.T), rtol=0.05, atol=0.05)
    np.testing.assert_allclose(samples.mean(0), x.mean(0), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--network.components", "4"], "--network.components 4: at most the 3 numbers"),
        (
            ["--network.components", "2", "--parametrization", "eps"],
            "--parametrization.kind preconditioned with data_std=1",
        ),
        (["--network.components", "2", "--label", "time"], "--label.kind noise"),
    ],
)
def test_what_it_does_not_fit_is_refused(words, says, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    assert end("train", tmp_path / "x.npy", "--out", tmp_path / "run", *TINY, *words) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_signals_of_several_lengths_are_refused():
    signals = [np.zeros((1, n)) + np.arange(n) for n in (8, 6) for _ in range(8)]
    with pytest.raises(ValueError, match=r"network.components: not for signals of several lengths"):
        sf.train(signals, network={"kind": "unet", "components": 2}, steps=1)
