"""Runs of signals and volumes: laws that are known, the same bits, and networks of one's own."""

import numpy as np
import pytest
import torch
from cases import MORE, normal
from shell import end, finishes, tiny
from torch import nn

import scorefield as sf
from scorefield.networks import DiT, UNet
from scorefield.training.config import DiTConfig, TrainConfig, UNetConfig

LENGTH, RHO = 24, 0.95
PLACES = torch.stack(torch.meshgrid(*[torch.arange(6)] * 3, indexing="ij"))
SMALL = UNetConfig(width=8)


def trained(x, steps, network=SMALL, **options):
    optim = sf.OptimConfig(steps=steps, batch_size=32, lr=3e-3, ema=(0.98,))
    return sf.train(sf.Data(x), config=TrainConfig(network=network, optim=optim, **options))


# --- laws that are known --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "bound"),
    [(SMALL, 0.1), (DiTConfig(width=32, head=16, layers=2, patch=3), 0.25)],
    ids=["unet", "dit"],
)
def test_a_gaussian_process_is_learned_better_than_place_by_place(network, bound):
    """Of an autoregression the exact denoiser is known, and that which takes places one by one."""
    lags = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs()
    covariance = RHO ** lags.double()
    x = normal(2000, LENGTH) @ torch.linalg.cholesky(covariance).T
    run = trained(x[:, None].float(), 400, network, held_out=0.0)
    field, (zero, one) = (
        run.field,
        run.to_field(torch.ones(2, 1, LENGTH) * torch.arange(2.0)[:, None, None]),
    )
    mean, scale = zero[0].double(), float((one - zero)[0, 0])
    fresh = mean + scale * (normal(500, LENGTH, seed=1) @ torch.linalg.cholesky(covariance).T)
    exact, alone = (
        sf.Gaussian(field.process, mean, scale**2 * c)
        for c in (covariance, torch.eye(LENGTH).double())
    )
    for ratio in (0.3, 1.0, 3.0):
        t = field.process.time(-torch.tensor(ratio).double().log())
        noisy = field.process.perturb(fresh, t, normal(500, LENGTH, seed=2))
        true, by_place = exact(noisy, t).x0, alone(noisy, t).x0
        with torch.no_grad():
            learned = field(noisy[:, None].float(), t).x0[:, 0]
        assert (learned - true).square().mean() < bound * (by_place - true).square().mean(), ratio


def blob(centre):
    """Return volumes ``(N, 1, 6, 6, 6)`` of a blob of width 1 at each centre ``(N, 3)``."""
    squares = (PLACES - centre[:, :, None, None, None]).square().sum(1)
    return (-squares / 2).exp()[:, None]


def centres(x):
    weights = (x.clamp(min=0.1) - 0.1).double()
    return (weights * PLACES).sum((2, 3, 4)) / weights.sum((2, 3, 4))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_samples_of_volumes_follow_a_known_law_of_blobs():
    """Each is close to the blob at its centre of mass, and centres are spread as in the data."""
    generator = torch.Generator().manual_seed(0)
    data = blob(1.5 + 2 * torch.rand(2000, 3, generator=generator))
    optim = sf.OptimConfig(steps=300, batch_size=16, lr=3e-3, ema=(0.98,))
    config = TrainConfig(network=SMALL, optim=optim, held_out=0.05, end="last")
    x = sf.train(sf.Data(data), config=config).sample(200, nfe=15)
    error = (x - blob(centres(x).float())).square().mean((1, 2, 3, 4)).sqrt()
    assert error.median() < 0.3 * data.std()
    drawn, true = centres(x), centres(data)
    assert ((drawn.mean(0) - true.mean(0)).abs() < 0.2).all()
    assert ((drawn.std(0) / true.std(0) - 1).abs() < 0.2).all()


# --- the same bits --------------------------------------------------------------------------------

RUNS = {
    "signals": ((2, 13), SMALL),
    "volumes": ((1, 3, 5, 4), SMALL),
    "dit of signals": ((2, 13), DiTConfig(width=16, head=8, layers=2, patch=3)),
}
every_run = pytest.mark.parametrize(("shape", "network"), RUNS.values(), ids=RUNS)


def training(shape, network):
    data = sf.Data(normal(40, *shape).float())
    optim = sf.OptimConfig(steps=12, batch_size=8)
    return sf.Training(data, TrainConfig(network=network, optim=optim))


def weights(training):
    return training.denoiser.network.state_dict()


@every_run
def test_a_training_resumed_after_any_step_ends_at_the_same_bits(tmp_path, shape, network):
    whole, first, second = (training(shape, network) for _ in range(3))
    for _ in whole:
        pass
    steps = iter(first)
    for _ in range(7):
        next(steps)
    first.save_checkpoint(tmp_path)
    assert second.resume(tmp_path) == 7
    for _ in second:
        pass
    assert all(torch.equal(weights(second)[k], v) for k, v in weights(whole).items())


@every_run
def test_a_sample_is_the_same_in_any_batch(shape, network):
    fit = training(shape, network)
    for _ in fit:
        pass
    run = fit.run
    x = run.sample(7, nfe=3, batch_size=4)
    assert x.shape == (7, *shape)
    assert torch.equal(run.sample([5, 1], nfe=3, batch_size=4), x[[5, 1]])
    torch.testing.assert_close(run.sample(7, nfe=3, batch_size=3), x, rtol=1e-4, atol=1e-5)


# --- networks of one's own, and the commands ------------------------------------------------------


class Own(nn.Module):
    """A convolution along all axes, whose bias is the label."""

    def __init__(self, channels, dims):
        super().__init__()
        kind = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
        self.layer = kind(channels + 1, channels, 3, padding=1)

    def forward(self, x, label):
        channel = label.reshape(-1, *[1] * (x.ndim - 1)).expand(len(x), 1, *x.shape[2:])
        return self.layer(torch.cat([x, channel], 1))


@pytest.mark.parametrize("make", [Own, UNet, DiT])
@pytest.mark.parametrize("shape", [(2, 9), (2, 3, 4, 5)])
def test_any_module_is_trained_on_signals_and_volumes(tmp_path, shape, make):
    dims = len(shape) - 1
    options = {Own: {}, UNet: {"width": 8}, DiT: {"width": 24, "head": 12, "layers": 1}}[make]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make(2, dims=dims, **options)
    run = sf.train(normal(20, *shape).float(), steps=3, batch_size=8, network=network)
    x = run.sample(3, nfe=3)
    assert x.shape == (3, *shape)
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=make(2, dims=dims, **options))
    assert torch.equal(again.sample(3, nfe=3), x)


COMMANDS = [
    "sample run --n 3 --nfe 3 --out s.npy",
    "likelihood run x.npy --ids 0:2 --nfe 8 --out l.csv",
    "encode run x.npy --ids 0:2 --nfe 8 --out c.npy",
    "decode run c.npy --nfe 8 --out d.npy",
    "interpolate run x.npy --pairs 0:1 --nfe 8 --out i.npy",
    "restore run x.npy --mask random:0.5 --corrupt --nfe 4 --ids 0:2 --out r.npy",
    "compare run --nfe 4 --solvers default heun --n 32 --out f.json",
    "report run x.npy --items 2 --n 2 --out r.html",
]


@pytest.mark.parametrize("shape", [pytest.param((2, 9), marks=MORE), (4, 5, 6)], ids=str)
def test_every_command_takes_signals_and_volumes(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", normal(40, *shape).float().numpy())
    layout = "signals" if len(shape) == 2 else "volumes"
    finishes(
        *f"train x.npy --layout {layout} --out run --steps 2".split(),
        *["--network", "unet", "--network.width", "8", "--batch-size", "8"],
    )
    for command in COMMANDS:
        finishes(*command.split())
    sample = shape if len(shape) == 2 else (1, *shape)
    assert np.load("s.npy").shape == (3, *sample)
    assert np.load("d.npy").shape == (2, *sample)
    words = "volume of 4 × 5 × 6" if layout == "volumes" else "9 places from left to right"
    assert words in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_command_asks_for_the_order_of_axes_that_are_not_clear(tmp_path, capsys):
    path = tmp_path / "x.npy"
    np.save(path, normal(40, 30, 12).float().numpy())
    assert end("train", path, "--out", tmp_path / "run", *tiny()) == 3
    text = " ".join(capsys.readouterr().err.split())
    assert "(N, C, L) of 30 channels, or signals (N, L, C) of 12: write --channels first" in text
    finishes("train", path, "--channels", "last", "--out", tmp_path / "run", *tiny())
    assert sf.load(tmp_path / "run").config.data.shape == (12, 30)
