"""Fields with errors of a stated size: the error itself, and the defaults on such fields."""

import itertools
from dataclasses import replace

import pytest
import torch
from cases import ALL_PROCESSES, PROCESS_IDS, interior_times, mixture, normal

import scorefield as sf
from scorefield.field import digest
from scorefield.interop import scheduler
from scorefield.sampling import resolve


def target_scale(field, of, t):
    """Return the size of what a network of this kind has to predict, by its definition."""
    c, t = field.data_std, torch.tensor(t, dtype=torch.float64)
    (alpha, sigma), (alpha_rate, sigma_rate) = field.process.coefficients(t), field.process.rates(t)
    given_x = (1 / (1 / c**2 + (alpha / sigma) ** 2)) ** 0.5
    return {"eps": 1.0, "x0": given_x, "velocity": torch.hypot(c * alpha_rate, sigma_rate)}[of]


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
@pytest.mark.parametrize("of", ["eps", "x0", "velocity"])
def test_the_error_has_the_stated_size_in_the_quantity_it_is_of(process, of):
    exact, size = mixture(process), 0.025
    data = exact.data(normal(512, 2), torch.linspace(0, 0.999, 512).double())
    squares = []
    for t in interior_times(process):
        x = process.perturb(data, t, normal(512, 2, seed=1))
        clean = getattr(exact(x, t), of)
        off = [getattr(sf.Inexact(exact, size, of, seed=k)(x, t), of) - clean for k in range(8)]
        squares.append(torch.stack(off).square().mean() / target_scale(exact, of, float(t)) ** 2)
    assert float(torch.stack(squares).mean().sqrt()) == pytest.approx(size, rel=0.2)


def test_the_error_is_a_smooth_function_of_x_and_of_the_level():
    """Its change over a small step is in proportion; noise of the same size would not shrink."""
    exact = mixture(sf.VP())
    field, x = sf.Inexact(exact, 0.025), normal(64, 2)

    def error(x, t):
        return field(x, t).eps - exact(x, t).eps

    changes = [
        (error(x + h, 0.4 + h) - error(x, 0.4)).square().mean().sqrt() for h in (1e-2, 1e-3, 1e-4)
    ]
    assert 0 < changes[0] < 0.025
    assert changes[0] / changes[1] == pytest.approx(10, rel=0.1)
    assert changes[1] / changes[2] == pytest.approx(10, rel=0.01)


def test_an_error_around_a_level_is_there_and_hardly_elsewhere():
    process = sf.VP()
    exact = mixture(process)
    field, x = sf.Inexact(exact, 0.025, around=(1.0, 0.5)), normal(64, 2)

    def size(ratio):
        t = process.time(-torch.tensor(ratio, dtype=torch.float64).log())
        return (field(x, t).eps - exact(x, t).eps).square().mean().sqrt()

    assert size(1.0) > 0.01
    assert size(1.0 * torch.e**2) < 1e-3 * size(1.0)


def test_rounding_is_that_of_the_type():
    exact = mixture(sf.VP())
    got = sf.Inexact(exact, 0.0, "x0", dtype=torch.bfloat16)(x := normal(64, 2), 0.4).x0
    assert torch.equal(got, exact(x, 0.4).x0.to(torch.bfloat16).double())
    assert not torch.equal(got, exact(x, 0.4).x0)


def test_a_field_without_error_is_the_field_itself_also_under_another_process():
    exact = mixture(sf.VP())
    torch.testing.assert_close(sf.Inexact(exact, 0.0)(x := normal(8, 2), 0.4).x0, exact(x, 0.4).x0)
    off = sf.Inexact(exact, 0.025)
    other = sf.Cosine(t_min=0.01, t_max=0.9)
    s = other.time(exact.process.half_log_snr(torch.tensor(0.4, dtype=torch.float64)))
    scale = other.alpha(s) / exact.process.alpha(torch.tensor(0.4, dtype=torch.float64))
    torch.testing.assert_close(off.under(other)(scale * x, s).x0, off(x, 0.4).x0)


@pytest.mark.parametrize("of", ["eps", "x0"])
def test_a_time_for_each_sample_is_the_same_in_float32(of):
    field = sf.Inexact(mixture(sf.VP()), 0.05, of)
    x, t = normal(3, 2).float(), torch.tensor([0.2, 0.4, 0.6])
    estimate = field(x, t)
    assert estimate.x0.dtype == torch.float32
    single = torch.cat([field(x[k : k + 1], t[k]).x0 for k in range(3)])
    torch.testing.assert_close(estimate.x0, single)


def test_the_seed_is_part_of_the_digest():
    one, same, other = (sf.Inexact(mixture(sf.VP()), 0.05, seed=seed) for seed in (0, 0, 1))
    assert digest(one) == digest(same)
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": -0.1}, "size=-0.1"),
        ({"size": 0.1, "of": "v"}, "of='v'"),
        ({"size": 0.1, "around": (1.0, 0.0)}, "width=0"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        sf.Inexact(mixture(sf.VP()), **settings)


# defaults on fields that are off


def ring(process):
    """Return seven narrow components on a ring, of unit deviation."""
    angle = torch.arange(7, dtype=torch.float64) * (2 * torch.pi / 7)
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], -1)
    return sf.Mixture(process, torch.ones(7), means, 0.01 * torch.eye(2).expand(7, 2, 2))


def trailing(calls):
    """Return a pipeline's timesteps on VP: as many, evenly spaced, from the end of the process."""
    return sf.uniform(sf.VP(), calls - 1, end=1 / calls)


DEFAULTS = {
    "plan": sf.default_plan,
    "steps": lambda field, calls: resolve(field, times=calls - 1),
    "scheduler": lambda field, calls: sf.Plan(scheduler._DEFAULT, trailing(calls)),
    "codes": lambda field, calls: replace(sf.round_trip_plan(field, calls - 1), finish=True),
}


@pytest.mark.parametrize("of", ["eps", "x0", "velocity"])
@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults_are_at_most_twice_as_sensitive_as_dpm_solver_pp(kind, of):
    """How far an error of half a percent moves samples; Multistep(3) in the angle: 7 times."""
    exact = ring(sf.VP())

    def moved(plan):
        clean, squares = sf.sample(exact, 32, plan, dtype=torch.float64), []
        for seed in range(4):
            off = sf.Inexact(exact, 0.005, of, seed=seed)
            squares.append((sf.sample(off, 32, plan, dtype=torch.float64) - clean).norm(dim=1))
        return float(torch.stack(squares).mean())

    for calls in (10, 20, 40) if kind == "codes" else (5, 8, 10, 20):
        peer = moved(sf.Plan(sf.dpm_solver_pp(2, published=True), trailing(calls)))
        assert moved(DEFAULTS[kind](exact, calls)) < 2 * peer, calls


@pytest.mark.parametrize("size", [0.005, 0.025])
def test_twice_the_calls_are_better_on_a_field_that_is_off(size):
    """By the distance to the ends of its own paths, which 400 steps of order 4 find."""
    field = sf.Inexact(ring(sf.VP()), size)
    solver = sf.Multistep(4, quadrature=sf.Exact(sf.Growth()))
    grid = sf.balanced(field.process, 400, end=field.process.t_min)
    end = sf.sample(field, 64, solver, grid, dtype=torch.float64)
    for first in (4, 5, 6):
        errors = [
            (sf.sample(field, 64, nfe=first * 2**k, dtype=torch.float64) - end).norm(dim=1).mean()
            for k in range(4)
        ]
        assert all(fine < coarse for coarse, fine in itertools.pairwise(errors)), errors


def test_the_default_plan_does_not_lose_a_mean_that_nobody_measured():
    """Data at 2 that is taken to be at 0, with the deviation of all: the mean is still there."""
    process, calls = sf.VP(), 10
    exact = sf.Gaussian(process, torch.full((64,), 2.0), 0.25 * torch.eye(64))
    unknown = sf.Gaussian(process, torch.full((64,), 2.0), 0.25 * torch.eye(64))
    unknown.mean, unknown.variance = 0.0, 1.0
    x = sf.sample(unknown, 256, nfe=calls, dtype=torch.float64)
    assert float(x.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(x.std()) == pytest.approx(0.5, rel=0.05)
    first = [sf.default_plan(field, 5).times[0] for field in (exact, unknown)]
    assert first[1] > first[0]


def test_the_default_solver_of_steps_starts_where_there_is_no_signal():
    """On a flow from t = 1, with mean and deviation of the data at the end."""
    field = sf.Gaussian(sf.Flow(t_max=1.0), torch.tensor([1.0, -1.0]), 0.25 * torch.eye(2))
    x = sf.sample(field, 4096, times=sf.uniform(field.process, 16), batch_size=4096)
    assert float((x.mean(0) - field.mean).abs().max()) < 0.05
    assert float(x.std(0).max()) == pytest.approx(0.5, rel=0.05)
