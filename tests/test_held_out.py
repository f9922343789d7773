"""What is held out is not trained on, and its error is what exact fields say it is."""

import itertools
import math

import pytest
import torch
from cases import PROCESS_IDS, PROCESSES, normal, tensor

import scorefield as sf
from scorefield._internal.errors import NumericalError, UsageError
from scorefield.data import Data
from scorefield.evaluate.metrics import energy_distance
from scorefield.runs.trainer import Training
from scorefield.training import held_out
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig
from scorefield.training.held_out import BINS, HeldOut, bins, split

DIM = 32
MEAN = torch.linspace(-1, 1, DIM, dtype=torch.float64)
MIX = normal(DIM, 16, seed=5) / 4
COVARIANCE = MIX @ MIX.T + 0.05 * torch.eye(DIM, dtype=torch.float64)
COUNT = 256


def held(covariance, items=COUNT):
    x = MEAN + normal(2 * COUNT, DIM, seed=1) @ torch.linalg.cholesky(covariance).T
    return HeldOut(x, {}, torch.arange(items), None, seed=3)


def expected(process, covariance):
    """The exact field's error over that of one that knows the diagonal, level by level."""
    found, edges, v = [], bins(process), covariance.diagonal()
    for low, high in itertools.pairwise(edges):
        ratios = []
        for depth in low + (high - low) * (torch.arange(16) + 0.5) / 16:
            s = depth.exp() ** 2  # (sigma / alpha)^2
            left = torch.linalg.eigvalsh(covariance)
            ratios.append((left * s / (left + s)).sum() / (v * s / (v + s)).sum())
        found.append(sum(ratios) / len(ratios))
    return torch.stack(found)


@pytest.mark.parametrize("name", PROCESS_IDS)
def test_the_exact_field_has_the_error_of_the_closed_form(name):
    """tr(C s (C + s)^-1) over that of C's diagonal, with s = (sigma / alpha)^2."""
    process = PROCESSES[name]
    field = sf.Gaussian(process, MEAN, COVARIANCE)
    found, exact = held(COVARIANCE).errors(field), expected(process, COVARIANCE)
    assert exact.min() < 0.75, "there is something to know beyond the diagonal"
    # a standard error is at most about sqrt(2 / (count degrees)), with fewer degrees than DIM
    torch.testing.assert_close(found, exact, rtol=0.12, atol=0)
    assert abs(float((found / exact).log().mean())) < 0.03


def test_knowing_the_variances_alone_is_an_error_of_one_at_every_level():
    diagonal = COVARIANCE.diagonal().diag()
    found = held(diagonal).errors(sf.Gaussian(sf.VP(), MEAN, diagonal))
    torch.testing.assert_close(found, torch.ones(BINS).double(), rtol=0.06, atol=0)


def test_knowing_the_samples_by_heart_is_seen():
    x = held(COVARIANCE).rows.float()
    knows = sf.Empirical(sf.VP(), x[:COUNT])
    other = sf.Empirical(sf.VP(), x[COUNT:])
    seen = HeldOut(x, {}, torch.arange(COUNT), None, seed=3)
    assert seen.errors(knows)[:3].max() < 0.05
    assert seen.errors(other)[:3].min() > 2


def test_the_noise_of_a_sample_is_its_own_at_any_batch_size(monkeypatch):
    field = sf.Gaussian(sf.VP(), MEAN, COVARIANCE)
    whole = held(COVARIANCE).errors(field)
    assert torch.equal(whole, held(COVARIANCE).errors(field))
    monkeypatch.setattr(held_out, "_BATCH_SIZE", 50)
    torch.testing.assert_close(held(COVARIANCE).errors(field), whole, rtol=1e-12, atol=0)
    other = HeldOut(held(COVARIANCE).rows, {}, torch.arange(COUNT), None, seed=4)
    assert not torch.equal(other.errors(field), whole)


def test_noise_between_levels_is_put_on_top():
    """Whole numbers plus uniform noise have the variance of both."""
    x = torch.zeros(COUNT, DIM, dtype=torch.float64)
    width = tensor(*[math.sqrt(12)] * DIM)
    field = sf.Gaussian(sf.VP(), width / 2, torch.eye(DIM, dtype=torch.float64))

    def prepare(x, noise):
        u, noise = noise.uniform_like(x)
        return x + width * u, noise

    found = HeldOut(x, {}, torch.arange(COUNT), prepare, seed=0).errors(field)
    torch.testing.assert_close(found, torch.ones(BINS).double(), rtol=0.06, atol=0)


@pytest.mark.parametrize(("count", "share"), [(40, 0.1), (1000, 0.05), (3, 0.2), (10, 0.0)])
def test_the_split_takes_each_sample_once(count, share):
    learned, out = split(count, share, seed=2)
    assert len(out) == round(share * count)
    assert torch.equal(torch.cat([learned, out]).sort().values, torch.arange(count))
    assert torch.equal(learned, learned.sort().values)
    if count == 1000:
        assert not torch.equal(out, split(count, share, seed=3)[1])
        assert abs(float(out.double().mean()) - 500) < 4 * 1000 / math.sqrt(12 * len(out))


@pytest.mark.parametrize(("count", "share"), [(40, 0.001), (3, 0.9)])
def test_a_share_that_leaves_nothing_is_refused(count, share):
    with pytest.raises(UsageError, match=f"held_out={share:g}: of {count} samples that is "):
        split(count, share, seed=0)


def test_held_out_samples_are_never_trained_on():
    """Training is the same whatever they are, up to the moments of all data."""
    x = normal(60, 3).float()
    _, out = split(60, 0.2, seed=0)
    config = TrainConfig(
        held_out=0.2,
        network=MLPConfig(width=8, depth=1),
        optim=OptimConfig(steps=20, batch_size=16),
    )
    swapped = x.clone()
    swapped[out] = x[out].flip(0)  # which keeps the moments
    weights, errors = [], []
    for data in (x, swapped):
        training = Training(Data(data, None, "points"), config)
        for _ in training:
            pass
        weights.append(training.denoiser.network.state_dict())
        errors.append(training.evaluate())
    rounding = {"rtol": 1e-4, "atol": 1e-6}  # of the moments, which are sums in another order
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, **rounding)
    assert not torch.allclose(errors[0], errors[1], rtol=1e-3)
    kept = Training(Data(x, None, "points"), config.model_copy(update={"held_out": 0.0}))
    with pytest.raises(ValueError, match="no sample is held out"):
        kept.evaluate()


def test_an_error_names_samples_by_their_numbers_in_all_of_the_data():
    learned, _ = split(60, 0.2, seed=0)
    bad = int(learned[30])
    assert bad > 30
    x = normal(60, 3).float()
    config = TrainConfig(held_out=0.2, network=MLPConfig(width=8, depth=1))
    training = Training(Data(x, None, "points"), config)
    x[bad] = math.inf
    with pytest.raises(NumericalError, match=rf"items \[({bad}, )*{bad}\]"):
        list(training)


def test_the_error_falls_as_a_network_learns():
    y = torch.arange(2000) % 2
    x = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])[y] + 0.1 * normal(2000, 2).float()
    config = TrainConfig(
        held_out=0.1,
        conditional=True,
        network=MLPConfig(width=32, depth=1),
        optim=OptimConfig(steps=300, batch_size=128, lr=5e-3, ema=0.9),
    )
    training = Training(Data(x, y, "two"), config)
    before = training.evaluate()
    for _ in training:
        pass
    after = training.evaluate()
    assert (after < 1.1).all()
    assert after[4] < 0.3 < before[4], "with classes told, little is left in the middle"


def test_samples_are_compared_with_held_out_data_beside_data_itself():
    """Of data sorted by class as well, of which the first part would be no fair sample."""
    y = torch.arange(1000) // 500
    x = torch.tensor([[-20.0, 0.0], [20.0, 10.0]])[y] + normal(1000, 2).float()
    config = TrainConfig(
        held_out=0.2,
        network=MLPConfig(width=48, depth=2),
        optim=OptimConfig(steps=1, batch_size=128, lr=5e-3, ema=0.9),
    )
    early = Training(Data(x, None, "sorted"), config)
    late = Training(
        Data(x, None, "sorted"),
        config.model_copy(update={"optim": config.optim.model_copy(update={"steps": 500})}),
    )
    found = []
    for training in (early, late):
        for _ in training:
            pass
        found.append(training.compare(training.run))
    (before, after), out = found, early.held_out.items
    assert after.count == 200
    assert after.real == before.real
    z = early.transform.forward(x)
    rest = z[early.learned]
    floors = [energy_distance(rest[torch.randperm(800)[:200]], z[out]) for _ in range(20)]
    assert abs(after.real.value) < 3 * max(map(abs, floors))
    assert before.generated.low > 10 * abs(after.generated.value)
    assert after.generated.value < 0.05
    assert before.closest_ratio.low > 1, "samples of an untrained network are far from all data"
    assert not after.copied
    assert after.reference == "held-out"


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_comparison_with_few_samples_is_refused(share):
    config = TrainConfig(
        held_out=share,
        network=MLPConfig(width=8, depth=1),
        optim=OptimConfig(steps=1, batch_size=8),
    )
    training = Training(Data(normal(20, 2).float(), None, "few"), config)
    with pytest.raises(ValueError, match="needs at least 32 samples"):
        training.compare(training.run)
