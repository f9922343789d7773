"""Calibration of conditional densities, and posteriors that are known in closed form."""

import numpy as np
import pytest
import torch
from cases import MORE

import scorefield as sf
from scorefield import calibration

PAIRS, DRAWS, DIM = 2000, 99, 3


def posterior(width=1.0, shift=0.0, seed=0):
    """Draws of a posterior and the truth; exact for the width 1 and the shift 0."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(PAIRS, DIM, generator=g)
    truth = mean + 0.5 * torch.randn(PAIRS, DIM, generator=g)
    noise = torch.randn(PAIRS, DRAWS, DIM, generator=g)
    return mean[:, None] + shift + width * 0.5 * noise, truth


def test_exact_draws_are_calibrated():
    found = [calibration(*posterior(seed=seed)) for seed in range(20)]
    for result in found:
        for each in result.coverage:
            assert abs(each.share - each.level) < 4 * (0.25 / (PAIRS * DIM)) ** 0.5
            assert each.low < each.level < each.high
    assert sum(result.p_value < 0.05 for result in found) <= 4, "by chance 1 of 20"


@pytest.mark.parametrize(("width", "sign"), [(0.8, -1), (1.25, 1)])
def test_draws_too_narrow_or_too_wide_cover_too_little_or_too_much(width, sign):
    """A central interval of level q of a normal, scaled: 2 Phi(w z_q) - 1."""
    result = calibration(*posterior(width))
    normal = torch.distributions.Normal(0.0, 1.0)
    for each in result.coverage:
        z = normal.icdf(torch.tensor((1 + each.level) / 2))
        assert each.share == pytest.approx(float(2 * normal.cdf(width * z) - 1), abs=0.015)
        assert sign * (each.share - each.level) > 0
    assert result.p_value < 1e-6


def test_shifted_draws_are_noticed_by_their_ranks():
    result = calibration(*posterior(shift=0.1))
    assert result.p_value < 1e-6
    assert float(result.ranks.double().mean()) < DRAWS / 2 - 2


@pytest.mark.parametrize("width", [1.0, 2.0])
def test_the_crps_of_normal_draws_is_the_closed_form(width):
    """For truth N(m, s) and draws N(m, w s): s (2 sqrt(1 + w^2) / sqrt(2) - w) / sqrt(pi)."""
    exact = 0.5 * ((2 * (1 + width**2)) ** 0.5 - width) / torch.pi**0.5
    # few draws, which a biased estimate would show
    samples, truth = posterior(width)
    result = calibration(samples[:, :19], truth)
    assert result.crps.tolist() == pytest.approx([exact] * DIM, rel=0.06)
    assert float(result.crps.mean()) == pytest.approx(exact, rel=0.03)
    assert calibration(samples + 0.2, truth).crps.mean() > result.crps.mean()


def test_equal_values_are_in_the_middle():
    result = calibration(torch.zeros(40, 21, 1), torch.zeros(40, 1))
    assert result.ranks.unique().tolist() == [10]


@pytest.mark.parametrize(("source", "best"), [("exact", True), ("prior", False), ("off", False)])
def test_a_classifier_notices_the_prior_and_a_posterior_of_another_condition(source, best):
    """Draws of the prior have uniform ranks; pairs of them and of the condition have not."""
    g = torch.Generator().manual_seed(3)
    theta = torch.randn(600, 1, generator=g)
    x = theta + 0.5 * torch.randn(600, 1, generator=g)
    noise = torch.randn(600, DRAWS, 1, generator=g)
    exact = 0.8 * x[:, None] + 0.2**0.5 * noise  # theta given x: N(x / 1.25, 0.2)
    draws = {"exact": exact, "prior": noise, "off": exact.roll(1, 0)}[source]
    result = calibration(draws, theta, given=x)
    assert (result.accuracy.low < 0.5 < result.accuracy.high) is best
    assert result.accuracy.value < 0.58 if best else result.accuracy.value > 0.65
    assert source == "off" or result.p_value > 0.01
    assert "best 0.5" in str(result)
    assert calibration(draws[:50], theta[:50], given=x[:50]).accuracy is None


@pytest.mark.parametrize(
    "given", [torch.zeros(39, 1), torch.zeros(40), torch.full((40, 1), np.nan)]
)
def test_conditions_of_the_classifier_are_finite_rows(given):
    with pytest.raises(
        ValueError, match=r"given has shape .*: give finite numbers, a row for each"
    ):
        calibration(torch.zeros(40, 20, 1), torch.zeros(40, 1), given=given)


@pytest.mark.parametrize(
    ("samples", "truth", "levels", "message"),
    [
        (torch.zeros(40, 20), torch.zeros(40, 1), (0.5,), r"give \(N, n, D\) and \(N, D\)"),
        (torch.zeros(40, 20, 2), torch.zeros(40, 1), (0.5,), r"give \(N, n, D\)"),
        (torch.zeros(9, 20, 1), torch.zeros(9, 1), (0.5,), "at least 20 pairs and 19 draws"),
        (torch.zeros(40, 5, 1), torch.zeros(40, 1), (0.5,), "at least 20 pairs and 19 draws"),
        (torch.zeros(40, 20, 1), torch.zeros(40, 1), (50,), "give numbers between 0 and 1"),
    ],
)
def test_unfit_arguments_are_rejected(samples, truth, levels, message):
    with pytest.raises(ValueError, match=message):
        calibration(samples, truth, levels)


# --- a posterior in closed form -------------------------------------------------------------------

NOISE = 0.5


def simulations(matrix, count, seed):
    """theta from a standard normal, and x = matrix theta + noise."""
    g = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, len(matrix), generator=g)
    return theta, theta @ matrix.T + NOISE * torch.randn(count, len(matrix), generator=g)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [pytest.param(1, marks=MORE), 2])
def test_a_linear_posterior_is_learned(dim):
    """Moments within 4 standard errors, log_prob within 0.02 nats, coverage within 3 %."""
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(dim, dim, generator=g) / dim**0.5 + torch.eye(dim)
    theta, x = simulations(matrix, 20_000, 1)
    run = sf.train(
        theta,
        {"x": x},
        steps=2000,
        batch_size=512,
        lr=2e-3,
        network={"kind": "mlp", "width": 128},
        end="last",
        held_out=0.0,
    )
    covariance = torch.linalg.inv(torch.eye(dim) + matrix.T @ matrix / NOISE**2)
    slope = covariance @ matrix.T / NOISE**2
    truth, seen = simulations(matrix, 256, 2)
    exact = torch.distributions.MultivariateNormal(seen @ slope.T, covariance).log_prob(truth)
    value = run.log_prob(truth, nfe=30, given={"x": seen}).value
    assert abs(float((value - exact).mean())) < 0.02
    count, variance = 2000, covariance.diag()
    for k in range(5):
        z = run.sample(count, nfe=20, given={"x": seen[k]}, batch_size=500)
        off = (z.mean(0) - slope @ seen[k]) / (variance / count).sqrt()
        assert float(off.abs().max()) < 4
        spread = (variance[:, None] * variance + covariance**2) / count
        off = (torch.cov(z.T).reshape(dim, dim) - covariance) / spread.sqrt()
        assert float(off.abs().max()) < 4
    rows = torch.arange(256).repeat_interleave(99)
    draws = run.sample(
        np.arange(256 * 99), nfe=10, given={"x": seen[rows]}, batch_size=512
    ).reshape(256, 99, dim)
    for each in calibration(draws, truth).coverage:
        assert abs(each.share - each.level) < 0.03 + 2 * (0.25 / (256 * dim)) ** 0.5
