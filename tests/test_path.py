"""The Brownian path behind stochastic steps, and the density of a single step."""

import functools
import itertools
import math
from dataclasses import replace

import pytest
import scipy.stats
import torch
from cases import COVARIANCE, MEAN, gaussian, label, mixture, normal, tensor, time_at

import scorefield as sf
from scorefield.noise import brownian, clock

COUNT = 20000
PROCESS = sf.VP(t_min=1e-3)


def path_noise(count=COUNT, seed=0):
    return sf.Noise(seed, torch.arange(count))


def like(count=COUNT, *shape):
    return torch.empty(count, *(shape or (1,)), dtype=torch.float64)


def grid(process, steps, high=8.0, low=0.4):
    """Return times from one noise level to the other, even in log-SNR."""
    ends = {"start": float(time_at(process, high)), "end": float(time_at(process, low))}
    return sf.even_log_snr(process, steps, **ends)


def final(field, solver, x, times, noise):
    at = sf.State(x, times[0], noise)
    for state in sf.integrate(field, solver, at, times):
        at = state
    return at.x


def correlation(a, b):
    """Return the correlation of two equally long series in units of its standard error."""
    a, b = a.flatten(), b.flatten()
    return abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) * len(a) ** 0.5


# --- the path ------------------------------------------------------------------------------------

TICK = 2.0**-12
# the shortest stretch with ends in different last intervals, and others up to the whole
STRETCHES = [
    (0.3, 0.3 + 1.5 * TICK),
    (0.7, 0.7 - 3 * TICK),
    (0.5 - TICK, 0.5 + TICK),
    (0.123, 0.124),
    (0.25, 0.75),
    (0.9, 0.2),
    (0.0, 1.0),
]


@pytest.mark.parametrize(("start", "end"), STRETCHES)
def test_an_increment_is_standard_normal_however_short_or_long_the_stretch(start, end):
    z, _ = path_noise().increment(start, end, like())
    z = z[:, 0]
    assert abs(float(z.mean())) < 4 / COUNT**0.5
    assert abs(float(z.var()) - 1) < 4 * (2 / COUNT) ** 0.5
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > 1e-3


def test_increments_over_disjoint_stretches_are_independent():
    """Also their squares: neighbours on the way down, as a solver asks, and stretches apart."""
    places = [0.97, 0.8, 0.55, 0.5, 0.4999, 0.31, 0.31 - 1.5 * TICK, 0.02, 0.0]
    noise, z = path_noise(), []
    for start, end in itertools.pairwise(places):
        increment, noise = noise.increment(start, end, like())
        z.append(increment)
    for one, other in itertools.combinations(z, 2):
        assert correlation(one, other) < 4.5
        assert correlation(one**2, other**2) < 4.5


def test_the_path_begins_at_zero_and_its_covariance_is_the_earlier_time():
    noise, places = path_noise(), [0.001, 0.1, 0.25, 0.26, 0.5, 0.77, 1.0]
    assert torch.equal(noise.path(0.0, like()), torch.zeros(COUNT, 1, dtype=torch.float64))
    paths = {u: noise.path(u, like())[:, 0] for u in places}
    for u, v in itertools.combinations_with_replacement(places, 2):
        expected = min(u, v)
        standard = ((u * v + expected**2) / COUNT) ** 0.5
        assert abs(float((paths[u] * paths[v]).mean()) - expected) < 4 * standard


@pytest.mark.parametrize(
    ("a", "b", "c"), [(0.9, 0.4, 0.1), (0.1, 0.1001, 0.8), (0.6, 0.6 - TICK / 3, 0.6 - TICK)]
)
def test_the_increments_of_two_parts_add_up_to_that_of_the_whole(a, b, c):
    noise, x = path_noise(50), like(50, 3)
    whole, _ = noise.increment(a, c, x)
    first, between = noise.increment(a, b, x)
    second, _ = between.increment(b, c, x)
    parts = first * abs(b - a) ** 0.5 + second * abs(c - b) ** 0.5
    torch.testing.assert_close(parts, whole * abs(c - a) ** 0.5, rtol=0, atol=1e-14)
    again, _ = noise.increment(a, c, x)
    assert torch.equal(again, whole), "a step repeated from its state sees the same noise"


def each(value, noise):
    """Return a place as one number for each of the samples."""
    return torch.full((len(noise.ids), 1), value, dtype=torch.float64)


@pytest.mark.parametrize("as_place", [lambda u, _: u, each], ids=["one for all", "one for each"])
def test_a_stretch_that_is_walked_again_is_on_a_new_path(as_place):
    """Back up, or down once more: independent of what was used there, and of one another."""
    noise, x = path_noise(), like()
    ways = [(0.8, 0.3), (0.3, 0.7), (0.7, 0.2), (0.2, 0.1), (0.75, 0.05)]
    z, walked = [], noise
    for start, end in ways:
        increment, walked = walked.increment(as_place(start, noise), as_place(end, noise), x)
        z.append(increment)
    for one, other in itertools.combinations(z, 2):
        assert correlation(one, other) < 4.5
        assert correlation(one**2, other**2) < 4.5
    state = [torch.as_tensor(v).double().mean() for v in walked.walk[:3]]
    assert state == pytest.approx([3, 0.05, 0.75])
    beside, _ = noise.increment(as_place(0.8, noise), as_place(0.3, noise), x)
    assert torch.equal(beside, z[0]), "the noise before is as it was"


def test_samples_of_one_batch_are_on_new_paths_where_each_of_them_has_come_back():
    noise, x = path_noise(2), like(2, 3)
    _, walked = noise.increment(tensor(0.9, 0.9)[:, None], tensor(0.4, 0.7)[:, None], x)
    onward, _ = walked.increment(tensor(0.6, 0.6)[:, None], tensor(0.3, 0.3)[:, None], x)
    plain, _ = noise.increment(0.6, 0.3, x)
    assert not torch.allclose(onward[0], plain[0])
    torch.testing.assert_close(onward[1], plain[1], rtol=1e-12, atol=1e-12)


def test_uses_of_randomness_do_not_share_paths():
    x = like(10001, 2)
    noises = [sf.Noise(0, torch.arange(10001), stream=stream) for stream in (0, 1, 4)]
    z = [noise.increment(0.8, 0.3, x)[0] for noise in noises]
    for one, other in itertools.combinations(z, 2):
        assert correlation(one, other) < 4


def test_times_of_each_sample_find_the_same_path_as_one_time_for_all():
    noise, x = path_noise(4), like(4, 2)
    starts, ends = tensor(0.9, 0.5, 0.7, 0.6)[:, None], tensor(0.2, 0.4, 0.7, 0.1)[:, None]
    together, after = noise.increment(starts, ends, x)
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        alone, _ = noise.increment(float(start), float(end), x)
        torch.testing.assert_close(together[k], alone[k], rtol=1e-12, atol=1e-12)
    onward, _ = after.increment(ends, 0.5 * ends, x)
    plain, _ = noise.increment(ends, 0.5 * ends, x)
    torch.testing.assert_close(onward, plain, rtol=1e-12, atol=1e-12)


def test_the_clock_rises_with_the_noise_from_0_to_1_and_is_one_for_all_processes():
    half_log_snr = tensor(-math.inf, -6.0, 0.0, 6.0, math.inf)
    u = clock(half_log_snr)
    assert (u.diff() < 0).all()
    assert (float(u[0]), float(u[2]), float(u[4])) == (1.0, 0.5, 0.0)
    for process in (PROCESS, sf.EDM(), sf.VE()):
        t = time_at(process, 2.0)
        expected = clock(-tensor(2.0).log())[0]
        torch.testing.assert_close(clock(process.half_log_snr(t)), expected)


def test_a_path_is_the_same_bits_in_any_company_and_any_order():
    x = like(9, 3, 5)
    whole, _ = sf.Noise(7, torch.arange(9)).increment(0.8, 0.3, x)
    order = torch.tensor([4, 0, 8, 8, 2])
    shuffled, _ = sf.Noise(7, order).increment(0.8, 0.3, x[order])
    assert torch.equal(shuffled, whole[order])
    alone, _ = sf.Noise(7, torch.tensor([5])).increment(0.8, 0.3, x[:1])
    assert torch.equal(alone, whole[5:6])


def test_a_path_does_not_depend_on_the_draws_made_beside_it():
    noise, x = path_noise(4), like(4, 2)
    _, drawn = noise.normal(x)
    assert torch.equal(drawn.increment(0.9, 0.4, x)[0], noise.increment(0.9, 0.4, x)[0])
    _, walked = noise.increment(0.9, 0.4, x)
    assert torch.equal(walked.normal(x)[0], noise.normal(x)[0])


@pytest.mark.parametrize("power", [1, 2])
def test_path_and_draws_of_one_sample_and_paths_of_others_are_uncorrelated(power):
    noise, x = path_noise(10001), like(10001, 4)
    z = noise.increment(0.8, 0.1, x)[0] ** power
    draw, noise = noise.normal(x)
    later, _ = noise.normal(x)
    other, _ = path_noise(10001, seed=1).increment(0.8, 0.1, x)
    assert correlation(z, draw**power) < 4, "the first draw"
    assert correlation(z, later**power) < 4, "the second draw"
    assert correlation(z, other**power) < 4, "seeds"
    assert correlation(z[:-1], z[1:]) < 4, "ids"
    for lag in range(1, 4):
        assert correlation(z[:, :-lag], z[:, lag:]) < 4, f"elements {lag} apart"


@pytest.mark.parametrize("as_place", [lambda u, _: u, each], ids=["one for all", "one for each"])
def test_a_path_does_not_depend_on_the_places_visited_before(as_place):
    """A visited place leaves its intervals in a cache, for other seeds, streams and ids too."""
    noise, x = path_noise(5), like(5, 3)
    for u, path in [(0.9, 0), (0.88, 0), (0.3, 0), (0.3, 2), (0.3001, 2), (1.0, 2), (0.3, 0)]:
        for one in (noise, replace(noise, stream=4), replace(noise, ids=noise.ids + 1)):
            walked = one.path(as_place(u, noise), x, path)
            fresh = sf.Noise(0, one.ids, stream=one.stream).path(u, x, path)
            assert torch.equal(walked, fresh)
    mixed = noise.path(tensor(0.3, 0.9, 0.3, 0.3001, 0.9)[:, None], x)
    assert torch.equal(mixed[1], path_noise(5).path(0.9, x)[1])


def test_steps_finer_than_the_intervals_have_the_variance_of_their_integral():
    """``int g dw`` has variance ``int g^2``: eight steps in each of eight intervals."""
    noise, total, steps = path_noise(), torch.zeros(COUNT, 1), 64
    u = 0.3 + torch.arange(steps + 1, dtype=torch.float64) * TICK / 8
    g = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    for k in range(steps):
        z, noise = noise.increment(float(u[k]), float(u[k + 1]), like())
        total = total + (g[k] + g[k + 1]) / 2 * (TICK / 8) ** 0.5 * z
    assert abs(float(total.var()) / (8 * TICK / 3) - 1) < 4 * (2 / COUNT) ** 0.5
    assert scipy.stats.kstest((total / total.std())[:, 0].numpy(), "norm").pvalue > 1e-3


def test_single_precision_follows_the_path_of_double_precision():
    x = like(200, 50)
    z, single = (path_noise(200).increment(0.5, 0.49, v)[0] for v in (x, x.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), z, rtol=0, atol=2e-3)
    assert float((single - z).square().mean().sqrt()) < 1e-5


@pytest.mark.parametrize(("steps", "most"), [(20, 10.0), (50, 8.7), (250, 6.5)])
def test_a_step_computes_few_normal_numbers_a_coordinate(monkeypatch, steps, most):
    """A step shares the longer intervals of the last."""
    count, expanded = [], brownian.expanded

    def counting(words, columns, dtype):
        z = expanded(words, columns, dtype)
        count.append(z.numel())
        return z

    monkeypatch.setattr(brownian, "expanded", counting)
    noise, x = path_noise(2), like(2, 6)
    for start, end in itertools.pairwise(torch.linspace(0.9, 0.1, steps + 1).tolist()):
        _, noise = noise.increment(start, end, x)
    assert sum(count) / x.numel() / steps < most


# --- runs on one path ----------------------------------------------------------------------------

NOISY = [
    sf.EulerMaruyama(),
    sf.StochasticHeun(),
    sf.DDIM(1.0),
    sf.dpm_solver_pp(2, sde=True),
    sf.Multistep(2, eta=0.5),
    sf.ReverseDiffusion(),
    sf.Ancestral(sf.DDIM()),
]
STEPS = [32, 64, 128]


def gap(a, b):
    return float((a - b).square().sum(1).mean().sqrt())


def typical(a, b):
    """Return the median distance: a few samples that change modes make most of `gap`."""
    return float((a - b).norm(dim=1).median())


def order_of(gaps):
    return math.log2(gaps[0] / gaps[-1]) / (len(gaps) - 1)


@pytest.mark.parametrize("solver", NOISY, ids=label)
def test_finer_steps_follow_the_same_path_and_steps_with_other_noise_do_not(solver):
    field, x = mixture(PROCESS), 3 * normal(200, 2)

    @functools.cache
    def run(steps, seed):
        return final(field, solver, x, grid(PROCESS, steps), path_noise(200, seed))

    gaps = [typical(run(n, 0), run(2 * n, 0)) for n in STEPS]
    apart = [typical(run(n, 0), run(2 * n, 1)) for n in STEPS]
    assert order_of(gaps) > 0.8
    assert abs(order_of(apart)) < 0.2
    assert gaps[-1] < 0.1 * apart[-1]


@pytest.mark.parametrize("solver", NOISY, ids=label)
def test_a_sample_is_the_same_in_the_limit_on_two_processes(solver):
    """The clock is a function of the noise level, so the path does not know the process."""
    field, edm = mixture(PROCESS), sf.EDM(t_min=0.05, t_max=50.0)
    fields, x, gaps = (field, field.under(edm)), 3 * normal(200, 2), []
    for steps in STEPS:
        ends = []
        for one in fields:
            times = grid(one.process, steps)
            alpha = one.process.alpha(times[[0, -1]])
            ends.append(final(one, solver, alpha[0] * x, times, path_noise(200)) / alpha[1])
        gaps.append(gap(*ends))
    assert gaps[-1] < 0.05
    assert gaps[-1] < 1e-9 or order_of(gaps) > 0.8


@pytest.mark.parametrize("solver", [sf.EulerMaruyama(), sf.StochasticHeun()], ids=label)
def test_going_back_to_noise_and_down_again_keeps_the_law(solver):
    """On one path the way down would undo the way up: the law would be too narrow by a third."""
    process, x = PROCESS, normal(COUNT, 2)
    field, times = gaussian(process), grid(process, 40, 1.5, 0.5)
    alpha, sigma = process.coefficients(times[-1])
    covariance = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2)
    x = alpha * MEAN + x @ torch.linalg.cholesky(covariance).T
    at = sf.State(x, times[-1], path_noise())
    for way in (times.flip(0), times):
        *_, at = sf.integrate(field, solver, at, way)
    gap = (at.x.T.cov() - covariance).abs()
    standard = (
        (covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / COUNT
    ).sqrt()
    assert (gap < 4 * standard + 0.01).all()


# --- the density of a step -----------------------------------------------------------------------

DENSE = [
    sf.EulerMaruyama(),
    sf.EulerMaruyama(0.5),
    sf.DDIM(1.0),
    sf.DDIM(0.3),
    sf.DDPM(),
    sf.DDPM("forward"),
    sf.ReverseDiffusion(),
    sf.dpm_solver_pp(2, sde=True),
    sf.Multistep(2, eta=0.5),
    sf.Ancestral(sf.DDIM()),
    sf.Ancestral(sf.Heun(), 0.5),
    sf.Program((sf.Heun(), sf.DDIM(1.0)), (10.0,)),
    sf.Program((sf.Heun(), sf.dpm_solver_pp(2, sde=True)), (3.0,)),
]


@pytest.mark.parametrize("process", [PROCESS, sf.EDM()], ids=["VP", "EDM"])
@pytest.mark.parametrize("solver", DENSE, ids=label)
def test_a_noisy_step_is_a_draw_from_its_transition_and_has_its_density(process, solver):
    """The second and third of three steps too, which may rest on the ones before."""
    field, times = gaussian(process), grid(process, 3, 4.0, 0.5)
    at = sf.State(3 * normal(5, 2), times[0], path_noise(5))
    moves = solver.moves(field, times[:-1], times[1:])
    for move, t, s in zip(moves, times[:-1], times[1:], strict=True):
        out = move(at)
        if isinstance(solver, sf.Program) and solver.levels[0] < float(
            process.sigma(t) / process.alpha(t)
        ):
            with pytest.raises(ValueError, match="adds no noise"):
                move.transition(at)
        else:
            law = move.transition(at)
            u, v = (float(clock(process.half_log_snr(time))) for time in (t, s))
            z, _ = at.noise.increment(u, v, at.x)
            assert float(law.std) > 0
            torch.testing.assert_close(out.x, law.mean + law.std * z, rtol=1e-12, atol=1e-12)
            density = scipy.stats.norm.logpdf(out.x, law.mean, law.std).sum(1)
            got = law.log_prob(out.x)
            torch.testing.assert_close(got, torch.from_numpy(density), rtol=1e-12, atol=1e-12)
        at = out


def test_a_single_langevin_move_is_a_draw_from_its_transition():
    field, t = gaussian(PROCESS), time_at(PROCESS, 1.0)
    (move,) = sf.Langevin(0.4).moves(field, t[None], t[None])
    at = sf.State(normal(5, 2), t, path_noise(5))
    law, (z, _) = move.transition(at), at.noise.normal(at.x)
    torch.testing.assert_close(move(at).x, law.mean + law.std * z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", [sf.DDIM(1.0), sf.EulerMaruyama(), sf.DDPM()], ids=label)
def test_the_density_of_a_step_with_times_of_each_sample_is_that_of_each_alone(solver):
    field, x, end = gaussian(PROCESS), normal(3, 2), normal(3, 2, seed=1)
    t, s = tensor(0.5, 0.4, 0.3)[:, None], tensor(0.4, 0.35, 0.1)[:, None]
    (move,) = solver.moves(field, t[None], s[None])
    together = move.transition(sf.State(x, t, path_noise(3))).log_prob(end)
    for k in range(3):
        (move,) = solver.moves(field, t[k], s[k])
        alone = sf.State(x[k : k + 1], t[k, 0], path_noise(1))
        expected = move.transition(alone).log_prob(end[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (sf.Heun(), r"adds no noise.*use EulerMaruyama"),
        (sf.DDIM(), r"adds no noise.*DDIM\(eta > 0\)"),
        (sf.Multistep(2), r"adds no noise.*a noisy Multistep"),
        (sf.StochasticHeun(), "adds it before a call of the field"),
        (sf.Churn(sf.Heun(), 1.0, 2), "not one Gaussian transition"),
        (sf.PredictorCorrector(sf.DDIM(1.0), sf.Langevin()), "not one Gaussian transition"),
        (sf.Restart(sf.Heun(), low=0.9, high=2.0), "not one Gaussian transition"),
        (sf.Program((sf.Heun(), sf.DDIM(1.0)), (0.5,)), "adds no noise"),
    ],
    ids=lambda value: "" if isinstance(value, str) else label(value),
)
def test_a_step_that_is_no_single_gaussian_has_no_density(solver, message):
    field, (t, s) = gaussian(PROCESS), grid(PROCESS, 1, 1.5, 0.8)
    (move,) = solver.moves(field, t[None], s[None])
    with pytest.raises(ValueError, match=message):
        move.transition(sf.State(normal(3, 2), t, path_noise(3)))


def test_a_step_whose_noise_has_no_room_has_no_density():
    """At the process's last level an ancestral step cannot go below its end."""
    field = gaussian(PROCESS)
    t, s = tensor(0.1, PROCESS.t_min)
    (move,) = sf.Ancestral(sf.DDIM()).moves(field, t[None], s[None])
    with pytest.raises(ValueError, match="adds no noise: its distribution has no density"):
        move.transition(sf.State(normal(3, 2), t, path_noise(3)))
