"""Noise as a pure function of seed, sample id and step."""

import pytest
import scipy.stats
import torch

import scorefield as sf
from scorefield.noise import philox, splitmix

# Known answers published with Random123 (kat_vectors, philox4x32 with 10 rounds).
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return [int(word, 16) for word in text.split()]


def draws(count, shape=(4,), seed=0, first=0, steps=1):
    """Return ``steps`` draws of the samples from ``first`` on, ``(steps, count, ...)``."""
    noise, out = sf.Noise(seed, torch.arange(first, first + count)), []
    for _ in range(steps):
        z, noise = noise.draw(shape, torch.empty(0, dtype=torch.float64))
        out.append(z)
    return torch.stack(out)


def correlation(a, b):
    """Return the correlation of two equally long series in units of its standard error."""
    a, b = a.flatten(), b.flatten()
    return abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) * len(a) ** 0.5


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    got = philox([torch.tensor([w]) for w in words(counter)], tuple(words(key)))
    assert [int(w) for w in got] == words(answer)


def test_splitmix_gives_the_published_numbers():
    """The first five of seed 1234567, in the reference code and in many languages since."""
    golden = 0x9E3779B97F4A7C15 - 2**64
    got = splitmix(1234567 + torch.arange(1, 6) * golden)
    assert [int(w) % 2**64 for w in got] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_draws_are_standard_normal():
    z = draws(5000, (8,), steps=2).flatten().numpy()
    assert scipy.stats.kstest(z, "norm").pvalue > 0.01
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert abs(z.var() - 1) < 4 * (2 / len(z)) ** 0.5
    assert abs(scipy.stats.kurtosis(z)) < 4 * (24 / len(z)) ** 0.5


def test_uniform_draws_are_uniform():
    noise = sf.Noise(3, torch.arange(20000))
    u, after = noise.uniform(torch.empty(0))
    assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 0.01
    again, _ = after.uniform(torch.empty(0))
    assert correlation(u, again) < 4


@pytest.mark.parametrize("power", [1, 2])
def test_draws_of_other_ids_steps_seeds_and_elements_are_uncorrelated(power):
    """Also their squares, which share a radius if the Box-Muller pairs are split wrongly."""
    z = draws(10001, (6,), steps=2) ** power
    assert correlation(z[0, :-1], z[0, 1:]) < 4, "ids"
    assert correlation(z[0], z[1]) < 4, "steps"
    assert correlation(z[0], draws(10001, (6,), seed=1)[0] ** power) < 4, "seeds"
    assert correlation(z[0], draws(10001, (6,), seed=2**32)[0] ** power) < 4, "high seed words"
    for lag in range(1, 6):
        assert correlation(z[0, :, :-lag], z[0, :, lag:]) < 4, f"elements {lag} apart"


def test_a_sample_draws_the_same_bits_in_any_company():
    whole = draws(9, (3, 5), seed=7, steps=3)
    order = torch.tensor([4, 0, 8, 8, 2])
    noise = sf.Noise(7, order)
    for step in range(3):
        z, noise = noise.draw((3, 5), torch.empty(0, dtype=torch.float64))
        assert torch.equal(z, whole[step, order])
    assert torch.equal(draws(1, (3, 5), seed=7, first=5, steps=3)[:, 0], whole[:, 5])


def test_a_draw_leaves_its_noise_as_it_was():
    noise = sf.Noise(0, torch.arange(3))
    like = torch.empty(3, 2)
    first, after = noise.normal(like)
    assert torch.equal(noise.normal(like)[0], first)
    assert not torch.equal(after.normal(like)[0], first)


def test_longer_draws_begin_with_the_shorter_ones():
    assert torch.equal(draws(4, (10,))[..., :7], draws(4, (7,)))


def test_ids_beyond_32_bits_and_the_largest_seed_are_samples_of_their_own():
    base = draws(2000, seed=5)
    for other in (
        draws(2000, seed=5, first=2**32),
        draws(2000, seed=5, first=2**62),
        draws(2000, seed=2**64 - 1),
        draws(2000, seed=2**64 - 1, first=2**32),
    ):
        assert scipy.stats.kstest(other.flatten().numpy(), "norm").pvalue > 0.01
        assert correlation(base, other) < 4


def test_increments_of_a_brownian_path_scale_with_the_root_of_time():
    """``w_t - w_s`` has variance ``t - s`` and disjoint increments are independent."""
    steps, h = 64, 1 / 64
    path = (h**0.5 * draws(4000, (1,), steps=steps)[..., 0]).cumsum(0)
    for span in (1, 4, 16, 64):
        ends = path[span - 1 :: span]
        increments = torch.cat([ends[:1], ends.diff(dim=0)])
        count = increments.numel()
        variance = float((increments**2).mean())
        assert abs(variance / (span * h) - 1) < 4 * (2 / count) ** 0.5
        if span < 64:
            assert correlation(increments[:-1], increments[1:]) < 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrower_types_get_the_rounded_float64_numbers(dtype):
    z, _ = sf.Noise(0, torch.arange(4)).normal(torch.empty(4, 5, dtype=dtype))
    assert torch.equal(z, draws(4, (5,))[0].to(dtype))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match="give an integer from 0"):
        sf.Noise(seed, torch.arange(3))


@pytest.mark.parametrize("ids", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)])
def test_ids_that_are_no_list_of_integers_are_refused(ids):
    with pytest.raises(ValueError, match="give int64 of shape"):
        sf.Noise(0, ids)
