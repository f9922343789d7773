"""Runs in the data's own units: whole numbers in levels, densities, codes."""

import itertools
import math

import pytest
import torch

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import Data, Levels, Standardize
from scorefield.noise import LEVELS
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig

QUICK = {
    "network": MLPConfig(width=48, depth=2),
    "optim": OptimConfig(steps=900, batch_size=256, lr=3e-3),
}


def dice(count, seed=0):
    """Return pairs of whole numbers 0 .. 3 that depend on each other, and their probabilities."""
    table = torch.tensor([[4.0, 3, 2, 1], [3, 4, 3, 2], [2, 3, 4, 3], [1, 2, 3, 4]])
    table = table / table.sum()
    g = torch.Generator().manual_seed(seed)
    places = torch.multinomial(table.flatten(), count, replacement=True, generator=g)
    return torch.stack([places // 4, places % 4], 1).float(), table


@pytest.fixture(scope="module")
def leveled():
    x, _ = dice(4000)
    return sf.train(Data(x, None, "dice"), config=TrainConfig(levels=4, **QUICK))


@pytest.fixture(scope="module")
def continuous():
    """A run of two correlated normals, far from unit scale."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=g) @ torch.tensor([[30.0, 0.0], [20.0, 5.0]]) + 100
    return sf.train(Data(x, None, "normals"), config=TrainConfig(**QUICK)), x


def test_noise_between_levels_is_undone_and_belongs_to_the_sample():
    levels, x = Levels(4), dice(2000)[0]
    noise = sf.Noise(0, torch.arange(2000), stream=LEVELS)
    wide = levels.forward(x, noise).v
    assert ((wide > x) & (wide < x + 1)).all()
    assert abs(float((wide - x).mean()) - 0.5) < 4 / math.sqrt(12 * 4000)
    assert torch.equal(levels.inverse(wide), x)
    large = torch.full((2000, 1), 65535.0)  # where float32 would round most noise near 1 up
    assert (Levels(65536).forward(large, noise).v < 65536).all()
    alone = levels.forward(x[7:8], sf.Noise(0, torch.tensor([7]), stream=LEVELS)).v
    assert torch.equal(alone, wide[7:8])
    assert torch.equal(levels.inverse(torch.tensor([-0.5, 4.2])), torch.tensor([0.0, 3.0]))


def test_the_transform_standardises_what_noise_will_be_on():
    x = dice(2000)[0]
    transform = Standardize.fit(*Levels(4).moments(x))
    wide = Levels(4).forward(x, sf.Noise(0, torch.arange(2000), stream=LEVELS)).v
    z = transform.forward(wide)
    assert z.mean(0).abs().max() < 4 * math.sqrt(1 / 12 / 2000)
    assert (z.std(0) - 1).abs().max() < 0.02


def test_samples_are_whole_numbers_of_the_right_probabilities(leveled):
    """By the chi-squared of 16 cells, allowing for what the network has not learned."""
    x, table = leveled.sample(4000, batch_size=500), dice(1)[1]
    assert torch.equal(x, x.floor().clamp(0, 3))
    found = torch.histc(4 * x[:, 0] + x[:, 1], 16, -0.5, 15.5) / 4000
    assert 0.5 * (found - table.flatten()).abs().sum() < 0.08


def test_probabilities_of_all_whole_numbers_add_up_to_one(leveled):
    """A lower bound stays below; several draws come nearer; each cell has its own probability."""
    cells = torch.tensor(list(itertools.product(range(4), repeat=2))).float()
    table = dice(1)[1].flatten()
    totals = []
    for draws in (1, 16):
        many = cells.repeat(32, 1)
        found = leveled.log_prob(many, draws=draws, batch_size=512)
        value = found.value.reshape(32, 16).mean(0)
        totals.append(float(value.exp().sum()))
        assert (found.nfe == 40 * draws).all()
    assert totals[0] < totals[1] < 1.01
    assert totals[1] > 0.9
    assert (value - table.log()).abs().max() < 0.4


def test_bits_per_dim_are_of_the_bound(leveled):
    x, table = dice(500, seed=1)
    entropy = -float((table * table.clamp(min=1e-9).log2()).sum()) / 2
    found = leveled.log_prob(x, batch_size=500)
    bits = found.bits_per_dim(2)
    assert float(bits.mean()) > entropy - 3 * float(bits.std()) / math.sqrt(500)
    assert float(bits.mean()) < entropy + 0.3


def test_a_density_in_the_datas_units_adds_up_to_one(continuous):
    run, x = continuous
    sides = [
        torch.linspace(float(a.min() - 2 * a.std()), float(a.max() + 2 * a.std()), 90)
        for a in x.T
    ]  # fmt: skip
    plane = torch.cartesian_prod(*sides)
    found = run.log_prob(plane, nfe=48, batch_size=2048)
    mass = float(found.value.exp().sum()) * float(
        (sides[0][1] - sides[0][0]) * (sides[1][1] - sides[1][0])
    )
    assert mass == pytest.approx(1, abs=0.02)


def test_a_run_knows_the_moments_of_its_data(continuous, leveled, tmp_path):
    run, x = continuous
    z = run.transform.forward(x)
    torch.testing.assert_close(run.field.mean, z.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(run.field.variance, z.var(0, correction=0), rtol=1e-5, atol=0)
    torch.testing.assert_close(leveled.field.variance, torch.ones(2), rtol=1e-5, atol=0)
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert torch.equal(again.field.mean, run.field.mean)
    assert torch.equal(again.log_prob(x[:4]).value, run.log_prob(x[:4]).value)


def test_the_bound_of_a_run_is_below_its_density_in_the_mean(continuous):
    run, x = continuous
    density, bound = (
        run.log_prob(x[:400], batch_size=400),
        run.elbo(x[:400], nfe=64, batch_size=400),
    )
    gap = density.value - bound.value
    assert float(gap.mean()) > -3 * float(gap.std()) / math.sqrt(400)
    assert abs(float(gap.mean())) < 0.3


def test_codes_of_whole_numbers_lead_back_to_them(leveled):
    x = dice(50, seed=2)[0]
    codes = leveled.encode(x)
    assert torch.equal(leveled.decode(codes).x, x)
    strip = leveled.interpolate(x[:5], x[5:10], points=4)
    assert strip.x.shape == (5, 4, 2)
    assert torch.equal(strip.x[:, 0], x[:5])
    assert torch.equal(strip.x[:, -1], x[5:10])
    assert torch.equal(strip.x, strip.x.floor().clamp(0, 3))


def test_codes_of_a_run_are_those_of_its_standardised_data(continuous):
    run, x = continuous
    codes = run.encode(x[:6])
    assert torch.equal(codes.z, sf.encode(run.field, run.transform.forward(x[:6])).z)
    torch.testing.assert_close(run.decode(codes).x, x[:6], rtol=1e-3, atol=1e-2)
    strip = run.interpolate(x[:2], x[2:4], points=3).x
    assert torch.equal(strip[:, 0], x[:2])
    assert torch.equal(strip[:, 2], x[2:4])


def test_training_sees_the_noise_anew_and_keyed():
    """Data at one place would have no deviation; with levels a run learns the unit interval."""
    x = torch.zeros(400, 1)
    x[0] = 1  # a feature must change
    run = sf.train(Data(x, None, "ones"), config=TrainConfig(levels=2, held_out=0, **QUICK))
    z = sf.sample(run.field, 2000, batch_size=500)
    wide = run.transform.inverse(z)
    inside = wide[(wide > 0) & (wide < 1)]
    assert len(inside) > 1850
    assert abs(float(inside.mean()) - 0.5) < 0.05
    assert abs(float(inside.std()) - math.sqrt(1 / 12)) < 0.03


def test_numbers_are_the_same_whatever_their_type(continuous, leveled):
    for run, x in ((continuous[0], torch.tensor([[90.0, 120.0], [100.0, 99.0]])),
                   (leveled, torch.tensor([[0.0, 3.0], [2.0, 1.0]]))):  # fmt: skip
        for whole in (x.long(), x.to(torch.uint8)):
            assert torch.equal(run.log_prob(whole).value, run.log_prob(x).value)
            assert torch.equal(run.elbo(whole, nfe=8).value, run.elbo(x, nfe=8).value)
            assert torch.equal(run.encode(whole).z, run.encode(x).z)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[0.5, 1.0]]), r"not whole numbers from 0 to 3, the first at index \(0, 0\)"),
        (torch.tensor([[0.0, 4.0]]), r"the first at index \(0, 1\): 4"),
        (torch.tensor([[0.0, -1.0]]), "give data as it is in 4 levels"),
        (torch.tensor([[0.0, 1.0, 2.0]]), r"samples of shape \(3,\); this run was trained on"),
    ],
)
def test_data_of_another_kind_is_refused(leveled, x, message):
    for act in (leveled.log_prob, leveled.elbo, leveled.encode):
        with pytest.raises(DataError, match=f"(?i){message}"):
            act(x)


def test_settings_without_effect_are_refused(leveled, continuous):
    with pytest.raises(ValueError, match="draws=2: must be at least 1, and 1 for continuous data"):
        continuous[0].log_prob(torch.zeros(2, 2), draws=2)
    with pytest.raises(ValueError, match="draws=0"):
        leveled.log_prob(torch.zeros(2, 2), draws=0)
    with pytest.raises(DataError, match="not whole numbers from 0 to 1"):
        sf.train(Data(dice(10)[0], None, "dice"), config=TrainConfig(levels=2, **QUICK))
