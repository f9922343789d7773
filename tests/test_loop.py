"""What the loop can do besides the plain step, held to the plain step."""

import functools
import math
import threading
import time

import numpy as np
import pytest
import torch
from cases import classes, normal

import scorefield as sf
from scorefield._internal.errors import NumericalError, UsageError
from scorefield.data import Data
from scorefield.networks import MLP, UNet
from scorefield.runs.trainer import Training
from scorefield.training import Objective, Simple, UniformTimes, config as c
from scorefield.training.loop import fit

SIMPLE = Objective(Simple(), UniformTimes())


def points(count=200):
    return Data(
        normal(count, 2, seed=9).float() @ torch.tensor([[1.0, 0.6], [0.0, 0.8]]), None, "p"
    )


def training(steps=20, **options):
    config = c.TrainConfig(
        network=c.MLPConfig(width=16, depth=2),
        optim=c.OptimConfig(**{"steps": steps, "batch_size": 24, "warmup": 0, **options}),
    )
    return Training(points(), config)


def finished(**options):
    made = training(**options)
    return made, list(made)


def close(a, b, **tolerance):
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, **tolerance)


def weights(made):
    return made.denoiser.network.state_dict()


# --- reading ahead --------------------------------------------------------------------------------


class Slow:
    """Rows that record which thread reads them, and fail at one of their reads."""

    def __init__(self, x, fails_at=None):
        self.x, self.shape, self.fails_at = x, tuple(x.shape), fails_at
        self.threads = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, items):
        if len(self.threads) == self.fails_at:
            raise OSError("the disk is gone")
        self.threads.append(threading.current_thread().name)
        return self.x[items]


def field():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sf.Denoiser(MLP(2, width=8, depth=1), sf.VP(), sf.Preconditioned(), (2,))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_thread_reads_the_next_batch_while_the_network_is_trained(accumulate):
    optim = c.OptimConfig(steps=4, batch_size=12, accumulate=accumulate)
    x, expected, denoiser = points().x, field(), field()
    list(fit(expected, SIMPLE, x, optim=optim))
    slow, begun = Slow(x), []
    made = fit(denoiser, SIMPLE, slow, optim=optim)

    def wait(*_):
        """Wait until more was read than the network has been called on; not in the last step."""
        begun.append(False)
        end = time.monotonic() + 60
        while not begun[-1] and time.monotonic() < end:
            begun[-1] = made.step == 3 or len(slow.threads) > len(begun)
            time.sleep(0.001)

    made.network.register_forward_hook(wait)
    assert len(list(made)) == 4
    assert all(begun)
    assert slow.threads.count(threading.current_thread().name) == accumulate
    assert len(slow.threads) == 4 * accumulate, "each sample once"
    close(expected.network.state_dict(), denoiser.network.state_dict(), rtol=0, atol=0)


def test_a_read_that_fails_ends_the_step_that_needs_it():
    denoiser = field()
    made = fit(denoiser, SIMPLE, Slow(points().x, 3), optim=c.OptimConfig(steps=9, batch_size=12))
    with pytest.raises(OSError, match="the disk is gone"):
        list(made)
    assert made.step == 3


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_steps_that_are_queued_before_the_last_loss_is_read_are_the_same_steps(precision):
    limit = 100.0 if precision == "float16" else math.inf
    (network, steps), (other, ahead) = (overflowing(limit, precision=precision) for _ in "ab")
    ahead.ahead = True  # as on a GPU
    a, b = ([(p.loss, p.norm, p.lr) for p in list(each)] for each in (steps, ahead))
    np.testing.assert_array_equal(a, b)
    assert np.isfinite(a).all() == (precision == "float32")
    close(network.state_dict(), other.state_dict(), rtol=0, atol=0)
    close(steps.state(), ahead.state(), rtol=0, atol=0)


# --- accumulation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [2, 5, 24])
def test_a_batch_in_parts_makes_the_same_steps(pieces):
    whole, expected = finished()
    parts, found = finished(accumulate=pieces)
    for a, b in zip(expected, found, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.norm == pytest.approx(a.norm, rel=1e-4)
    close(weights(whole), weights(parts), rtol=1e-4, atol=1e-5)


def test_a_part_without_a_sample_is_refused():
    with pytest.raises(UsageError, match=r"optim.batch_size=24: 1 process.* need at least 25"):
        training(accumulate=25)


def test_a_fit_alone_knows_no_minutes():
    field = sf.Denoiser(MLP(2, 16, 1), sf.VP(), sf.Eps(), (2,))
    with pytest.raises(UsageError, match=r"set optim\.steps"):
        fit(field, SIMPLE, points().x, optim=c.OptimConfig(minutes=1.0))


# --- several averages -----------------------------------------------------------------------------


def test_each_average_is_what_a_run_with_its_decay_alone_would_keep(tmp_path):
    decays = (0.5, 0.9, 0.0)
    several, _ = finished(ema=decays)
    several.run.save(tmp_path / "run")
    names = {"model.safetensors", "config.toml", "ema-0.9.safetensors", "ema-0.0.safetensors"}
    names |= {"SHA256SUMS"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
    for decay in decays:
        alone, _ = finished(ema=decay)
        found = sf.load(tmp_path / "run", ema=decay)
        expected = weights(alone)
        assert all(torch.equal(v, expected[k]) for k, v in found.field.network.state_dict().items())
    first = sf.load(tmp_path / "run").field.network.state_dict()
    assert all(torch.equal(v, weights(several)[k]) for k, v in first.items())
    with pytest.raises(UsageError, match=r"ema=0\.7: .* decay 0\.5, 0\.9, 0\.0"):
        sf.load(tmp_path / "run", ema=0.7)


# --- float16 --------------------------------------------------------------------------------------


def test_float16_learns_as_float32_does():
    single, expected = finished(steps=60, lr=3e-3)
    half, found = finished(steps=60, lr=3e-3, precision="float16")
    assert {p.dtype for p in half.denoiser.parameters()} == {torch.float32}
    a, b = (np.mean([p.loss for p in steps[-20:]]) for steps in (expected, found))
    assert b == pytest.approx(a, rel=0.01)
    assert not torch.equal(weights(single)["leave.weight"], weights(half)["leave.weight"])


class Overflowing(torch.autograd.Function):
    """Passes gradients up to a size, and infinity beyond, as float16 would."""

    @staticmethod
    def forward(ctx, x, limit):
        ctx.limit = limit
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        large = gradient.abs().max() > ctx.limit
        return torch.where(large, math.inf, gradient), None


def overflowing(limit, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(2, 16, 1)
    network.register_forward_hook(lambda module, given, out: Overflowing.apply(out, limit))
    field = sf.Denoiser(network, sf.VP(), sf.Eps(), (2,))
    optim = c.OptimConfig(**{"steps": 12, "batch_size": 16, "precision": "float16", **options})
    return network, fit(field, SIMPLE, points().x, optim=optim)


def test_an_overflow_skips_the_step_and_lowers_the_scale():
    network, steps = overflowing(limit=100.0)
    skipped, before = 0, {k: v.clone() for k, v in network.state_dict().items()}
    for progress in steps:
        if math.isfinite(progress.norm):
            break
        skipped += 1
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        assert steps.scaler.get_scale() == 2.0 ** (16 - skipped)
    assert 1 <= skipped < 12
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_gradient_that_no_scale_makes_finite_is_an_error():
    _, steps = overflowing(limit=0.0, steps=30)
    with pytest.raises(NumericalError, match=r"norm is (inf|nan) at step 17"):
        list(steps)


def test_the_scale_is_part_of_the_state():
    _, whole = overflowing(limit=100.0)
    expected = [progress.loss for progress in whole]
    _, first = overflowing(limit=100.0)
    for _ in range(4):
        next(first)
    _, second = overflowing(limit=100.0)
    second.restore({k: v.clone() for k, v in first.state().items()})
    assert [progress.loss for progress in second] == expected[4:]
    assert second.scaler.get_scale() < 2.0**16


# --- compiling and recomputing --------------------------------------------------------------------


def test_a_compiled_network_learns_the_same_and_is_saved_as_itself(tmp_path, monkeypatch):
    # what writes the kernels is torch's own matter, and takes half a minute
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    plain, _ = finished(steps=10)
    compiled, _ = finished(steps=10, compile=True)
    close(weights(plain), weights(compiled), rtol=1e-4, atol=1e-5)
    compiled.run.save(tmp_path / "run")
    assert not any("_orig_mod" in name for name in compiled.fit.state())
    close(weights(compiled), sf.load(tmp_path / "run").field.network.state_dict(), rtol=0, atol=0)


NETWORKS = {
    "mlp": (lambda **o: MLP(3, 16, 3, conditions=classes(2), **o), (5, 3)),
    "unet": (lambda **o: UNet(2, 8, (1, 2), blocks=2, conditions=classes(2), **o), (5, 2, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputing_blocks_keeps_less_and_gives_the_same_gradients(name):
    make, shape = NETWORKS[name]
    x, label, y = normal(*shape).float(), torch.linspace(-1, 1, 5), torch.arange(5) % 2
    found = []
    for recompute in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = make(recompute=recompute)
        for k, parameter in enumerate(network.parameters()):
            parameter.data += 0.1 * normal(*parameter.shape, seed=k).float()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t
        ):
            out = network(x, label, y=y)
        out.square().sum().backward()
        found.append((sum(kept), [p.grad for p in network.parameters()]))
    (much, expected), (little, gradients) = found
    assert little < 0.6 * much
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients, strict=True))
