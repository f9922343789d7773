"""SDEs of any form, Itô's lemma, the Fokker-Planck equation and bridges, against closed forms."""

import math

import pytest
import torch
from cases import ALL_PROCESSES, PROCESS_IDS

import scorefield as sf
from scorefield import theory

F64 = torch.float64
PULL = torch.tensor([[-1.0, 0.8], [-0.8, -0.5]], dtype=F64)
NOISE = torch.tensor([[0.6, 0.0, 0.3], [-0.2, 0.5, 0.4]], dtype=F64)


def linear_drift(x, t):
    return PULL @ x


def matrix_noise(x, t):
    return NOISE


def growth(x, t):
    return 0.3 * x


def relative_noise(x, t):
    return 0.8 * x


def geometric(paths):
    """Return the exact end of dx = 0.3 x dt + 0.8 x dw on the same Brownian paths."""
    time = paths.times[-1] - paths.times[0]
    return paths.x[0] * ((0.3 - 0.32) * time + 0.8 * paths.dw.sum(0)).exp()


def coarser(dw, factor):
    return dw.reshape(-1, factor, *dw.shape[1:]).sum(1)


@pytest.mark.parametrize(("milstein", "order"), [(False, 0.5), (True, 1.0)])
def test_strong_orders_are_a_half_and_one(milstein, order):
    times = torch.linspace(0, 1, 513, dtype=F64)
    x = torch.ones(2000, 1, dtype=F64)
    fine = theory.simulate(growth, relative_noise, x, times, milstein=milstein)
    errors = []
    for factor in (32, 16, 8, 4):
        dw = coarser(fine.dw, factor)
        paths = theory.simulate(
            growth, relative_noise, x, times[::factor], milstein=milstein, dw=dw
        )
        errors.append(((paths.x[-1] - geometric(paths)) ** 2).mean().sqrt())
    observed = torch.stack(errors).log2().diff().neg().mean()
    assert observed == pytest.approx(order, abs=0.1)


def test_the_weak_order_is_one():
    errors = []
    for steps in (16, 32, 64):
        times = torch.linspace(0, 1, steps + 1, dtype=F64)
        x = torch.ones(16, 1, dtype=F64)
        # additive noise and its negative: the mean has no sampling error
        normal = torch.randn(steps, 8, 1, dtype=F64) / math.sqrt(steps)
        paths = theory.simulate(
            lambda x, t: 1.5 * x,
            lambda x, t: torch.tensor(0.8),
            x,
            times,
            dw=torch.cat([normal, -normal], 1),
        )
        errors.append((math.exp(1.5) - paths.x[-1].mean()).abs())
    observed = torch.stack(errors).log2().diff().neg()
    assert observed[-1] == pytest.approx(1.0, abs=0.2)


def test_matrix_noise_has_the_covariance_of_lyapunovs_equation():
    x = torch.tensor([[1.0, -1.0]], dtype=F64).repeat(40_000, 1)
    times = torch.linspace(0, 1, 201, dtype=F64)
    end = theory.simulate(linear_drift, matrix_noise, x, times).x[-1]
    phi, covariance = sf.moments(lambda t: PULL, lambda t: NOISE, 1.0, dim=2)
    products = (end - end.mean(0))[:, :, None] * (end - end.mean(0))[:, None]
    error = products.std(0) / math.sqrt(len(x))
    # Euler's step is 0.005, which moves the covariance by that share of itself
    assert ((products.mean(0) - covariance).abs() < 4 * error + 0.005 * covariance.abs()).all()
    assert ((end.mean(0) - phi @ x[0]).abs() < 4 * end.std(0) / 200 + 0.005).all()


def test_itos_sum_falls_as_the_root_of_the_step_and_the_chain_rule_does_not():
    def phi(x, t):
        return torch.sin(x[0]) * x[1] + t * x[1] ** 2

    x = torch.tensor([[0.5, -1.0]], dtype=F64).repeat(2000, 1)
    fine = theory.simulate(linear_drift, matrix_noise, x, torch.linspace(0, 1, 257, dtype=F64))
    ito, chain = [], []
    for factor in (16, 4, 1):
        dw, times = coarser(fine.dw, factor), fine.times[::factor]
        paths = theory.simulate(linear_drift, matrix_noise, x, times, dw=dw)
        truth = torch.func.vmap(phi, (0, None))(paths.x[-1], times[-1])
        ito.append((theory.ito_sum(phi, linear_drift, matrix_noise, paths)[-1] - truth).std())
        without = theory.generator(phi, linear_drift, lambda x, t: torch.zeros(()))
        rate = theory.generator(phi, linear_drift, matrix_noise)
        gap = sum(
            (without(x, t) - rate(x, t)) * h
            for x, t, h in zip(paths.x[:-1], times[:-1], times.diff(), strict=True)
        )
        summed = theory.ito_sum(phi, linear_drift, matrix_noise, paths)[-1] + gap
        chain.append((summed - truth).square().mean().sqrt())
    falls = torch.stack(ito).log2().diff().neg() / 2
    assert ((falls - 0.5).abs() < 0.1).all()
    # the integral of the missing term stays, however small the step
    assert chain[-1] > 5 * ito[-1]
    assert chain[-1] / chain[1] > 0.8


def test_the_generator_of_a_quadratic_is_its_closed_form():
    def phi(x, t):
        return (x**2).sum() * t

    x = torch.randn(5, 2, dtype=F64)
    value = theory.generator(phi, linear_drift, matrix_noise)(x, 0.7)
    trace = torch.trace(NOISE @ NOISE.T)
    exact = (x**2).sum(1) + 0.7 * (2 * torch.einsum("bi,ij,bj->b", x, PULL, x) + trace)
    torch.testing.assert_close(value, exact)


def test_milstein_rejects_noise_that_does_not_commute():
    def noise(x, t):
        return torch.stack([torch.stack([x[1], x[0] * 0]), torch.stack([x[0] * 0, x[0]])])

    x, times = torch.ones(3, 2), torch.linspace(0, 1, 3)
    with pytest.raises(ValueError, match="milstein=True"):
        theory.simulate(lambda x, t: -x, noise, x, times, milstein=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3)}, r"x has shape \(3,\)"),
        ({"times": torch.tensor([1.0, 0.0])}, "rising"),
        ({"drift": lambda x, t: x[:1]}, r"drift has shape \(1,\)"),
        ({"diffusion": lambda x, t: torch.ones(3)}, r"diffusion has shape \(3,\)"),
        ({"dw": torch.ones(2, 3, 3)}, r"dw has shape \(2, 3, 3\)"),
    ],
)
def test_wrong_input_of_a_simulation_is_named(change, message):
    given = {
        "drift": lambda x, t: -x,
        "diffusion": lambda x, t: torch.ones(()),
        "x": torch.ones(3, 2),
        "times": torch.linspace(0, 1, 3),
    }
    with pytest.raises(ValueError, match=message):
        theory.simulate(**(given | change))


# --- Fokker-Planck --------------------------------------------------------------------------------


def normal(x, mean, variance):
    return (-((x - mean) ** 2) / (2 * variance)).exp() / math.sqrt(2 * math.pi * variance)


def test_one_dimension_has_order_two_and_constant_mass():
    def diffusion(x, t):
        return math.sqrt(2) * torch.ones(())

    bounds, errors = [(-6.0, 6.0)], []
    mean, variance = 1.5 * math.exp(-0.5), 0.25 * math.exp(-1) + 1 - math.exp(-1)
    for n in (50, 100, 200):
        x = theory.cell_centers(bounds, (n,))[:, 0]
        p = theory.fokker_planck(
            normal(x, 1.5, 0.25), lambda x, t: -x, diffusion, torch.tensor([0, 0.5]), bounds=bounds
        )
        width = 12 / n
        errors.append((p[-1] - normal(x, mean, variance)).abs().sum() * width)
        assert ((p.sum(1) - p[0].sum()) * width).abs().max() < 1e-14
        assert (p >= 0).all()
    assert errors[-1] < 1e-3
    for observed in torch.stack(errors).log2().diff().neg():
        assert observed == pytest.approx(2.0, abs=0.1)


def test_a_double_well_ends_at_its_gibbs_density():
    bounds, n = [(-2.5, 2.5)], 100
    x = theory.cell_centers(bounds, (n,))[:, 0]
    p = theory.fokker_planck(
        normal(x, 0.0, 0.1),
        lambda x, t: x - x**3,
        lambda x, t: torch.ones(()),
        torch.tensor([0.0, 6.0]),
        bounds=bounds,
    )[-1]
    gibbs = (x**2 - x**4 / 2).exp()
    assert ((p / p.sum() - gibbs / gibbs.sum()).abs().sum()) < 1e-3


def test_noise_that_depends_on_the_place_agrees_with_particles():
    # dx = dw_x in x, in Ito's sense: D' enters the flux
    def diffusion(x, t):
        return (1 + 0.5 * torch.sin(x)) * 0.8

    bounds, n = [(-5.0, 5.0)], 100
    x = theory.cell_centers(bounds, (n,))[:, 0]
    p = theory.fokker_planck(
        normal(x, 0.0, 0.04), lambda x, t: 0 * x, diffusion, torch.tensor([0.0, 1]), bounds=bounds
    )[-1]
    start = 0.2 * torch.randn(40_000, 1, dtype=F64)
    times = torch.linspace(0, 1, 101, dtype=F64)
    end = theory.simulate(lambda x, t: 0 * x, diffusion, start, times, milstein=True).x[-1, :, 0]
    share = p * 10 / n
    for power in (1, 2, 3):
        value, error = (end**power).mean(), (end**power).std() / 200
        assert ((x**power * share).sum() - value).abs() < 4 * error + 2e-3


@pytest.mark.slow
def test_two_dimensions_follow_a_turning_gaussian():
    pull = torch.tensor([[-1.0, 1.0], [-1.0, -1.0]], dtype=F64)
    bounds, n = [(-4.0, 4.0), (-4.0, 4.0)], 200
    x = theory.cell_centers(bounds, (n, n))
    start = normal(x[..., 0], 1.0, 0.2) * normal(x[..., 1], 0.0, 0.2)
    p = theory.fokker_planck(
        start,
        lambda x, t: pull @ x,
        lambda x, t: torch.ones(()),
        torch.tensor([0, 0.5]),
        bounds=bounds,
    )[-1]
    decay = torch.linalg.matrix_exp(0.5 * pull)
    mean = decay @ torch.tensor([1.0, 0.0], dtype=F64)
    variance = 0.2 * math.exp(-1) + (1 - math.exp(-1)) / 2
    exact = normal(x[..., 0], mean[0], variance) * normal(x[..., 1], mean[1], variance)
    assert ((p - exact).abs().sum() * (8 / n) ** 2) < 2e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": torch.ones(2, 2, 2)}, r"density has shape \(2, 2, 2\)"),
        ({"density": torch.tensor([1.0, -1.0])}, "values from -1"),
        ({"bounds": [(1.0, 0.0)]}, "low < high"),
        ({"times": torch.tensor([0.0])}, "rising"),
        ({"diffusion": lambda x, t: torch.eye(2)}, r"diffusion has shape \(2, 2\)"),
        ({"diffusion": lambda x, t: torch.tensor(1e4)}, "million|1,000,000"),
    ],
)
def test_wrong_input_of_a_grid_is_named(change, message):
    given = {
        "density": torch.ones(8),
        "drift": lambda x, t: -x,
        "diffusion": lambda x, t: torch.ones(()),
        "times": torch.tensor([0.0, 1.0]),
        "bounds": [(-1.0, 1.0)],
    }
    with pytest.raises(ValueError, match=message):
        theory.fokker_planck(**(given | change))


# --- bridges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
def test_a_bridge_and_the_noised_law_give_the_law_of_two_times(process):
    """x_s from the bridge, and x_t: their joint moments given x_0 are those of the process."""
    low, high = process.t_min, process.t_max
    s, t = low + 0.3 * (high - low), low + 0.7 * (high - low)
    times = torch.tensor([s, t], dtype=F64)
    (alpha_s, alpha_t), (sigma_s, sigma_t) = process.coefficients(times)
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    of_x0, std = theory.bridge(process, one, zero, s, t)
    of_x_t, _ = theory.bridge(process, zero, one, s, t)
    torch.testing.assert_close((of_x0 + of_x_t * alpha_t).squeeze(), alpha_s)
    torch.testing.assert_close((std**2 + (of_x_t * sigma_t) ** 2).squeeze(), sigma_s**2)
    covariance = (of_x_t * sigma_t**2).squeeze()
    torch.testing.assert_close(covariance, alpha_t / alpha_s * sigma_s**2)


def test_a_bridge_of_ddpm_is_its_posterior():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    alpha_bar = (1 - betas).cumprod(0)
    k = 500
    mean, std = theory.bridge(
        sf.Tabulated(alpha_bar), torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), k - 1, k
    )
    expected = betas[k] * alpha_bar[k - 1].sqrt() / (1 - alpha_bar[k])
    assert mean.item() == pytest.approx(expected.item(), rel=1e-9)
    beta = (1 - alpha_bar[k - 1]) / (1 - alpha_bar[k]) * betas[k]
    assert std.item() ** 2 == pytest.approx(beta.item(), rel=1e-9)


def test_a_brownian_bridge_has_its_moments():
    brownian = sf.LinearSDE(torch.zeros_like, torch.ones_like)
    mean, std = theory.bridge(brownian, torch.tensor([[2.0]]), torch.tensor([[4.0]]), 0.25, 1.0)
    assert mean.item() == pytest.approx(2.5)
    assert std.item() ** 2 == pytest.approx(0.25 * 0.75)


def test_a_bridge_rejects_other_times_and_shapes():
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"s=0.5, t=0.5"):
        theory.bridge(sf.VP(), x, x, 0.5, 0.5)
    with pytest.raises(ValueError, match="one shape"):
        theory.bridge(sf.VP(), x, x[:1], 0.3, 0.5)
