"""Forward processes: coefficients, what is derived from them, and what is refused."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import torch
from cases import (
    ALL_PROCESSES,
    COVARIANCE,
    IDENTITY,
    PROCESS_IDS,
    interior_times,
    linear_alpha_bar,
    normal,
    tensor,
    vp_diffusion,
    vp_drift,
)

import scorefield as sf
from scorefield.process.builtin import _monotone_slopes

getcontext().prec = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
TIMES = [1e-3, 0.01, 0.2, 0.5, 0.9, 0.99]
every_process = pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)


def decimal_cos(x):
    """Return the cosine of a Decimal by its Taylor series."""
    term, total, k = Decimal(1), Decimal(1), 0
    while abs(term) > Decimal(10) ** -55:
        k += 2
        term *= -x * x / (k * (k - 1))
        total += term
    return total


def vp_exact(t):
    """Return alpha and sigma of the default VP process in 60 digits."""
    t = Decimal(t)
    alpha = (-(t / 10 + Decimal("19.9") * t * t / 2) / 2).exp()
    return alpha, (1 - alpha**2).sqrt()


def sub_vp_exact(t):
    alpha, sigma = vp_exact(t)
    return alpha, sigma**2


def ve_exact(t):
    level = Decimal("0.01") * ((Decimal(5000)).ln() * Decimal(t)).exp()
    return Decimal(1), (level**2 - Decimal("0.0001")).sqrt()


def cosine_exact(t):
    offset = Decimal("0.008")
    angle, start = ((Decimal(u) + offset) / (1 + offset) * PI / 2 for u in (t, 0))
    alpha = decimal_cos(angle) / decimal_cos(start)
    return alpha, (1 - alpha**2).sqrt()


def sigmoid_exact(t):
    def curve(u):
        return 1 / (1 + (-u).exp())

    start, end = curve(Decimal(-3)), curve(Decimal(3))
    share = (end - curve(6 * Decimal(t) - 3)) / (end - start)
    return share.sqrt(), (1 - share).sqrt()


def flow_exact(t):
    return 1 - Decimal(t), Decimal(t)


def edm_exact(t):
    return Decimal(1), Decimal(t)


EXACT = [
    (sf.VP(), vp_exact),
    (sf.SubVP(), sub_vp_exact),
    (sf.VE(), ve_exact),
    (sf.Cosine(), cosine_exact),
    (sf.Sigmoid(), sigmoid_exact),
    (sf.Flow(), flow_exact),
    (sf.EDM(), edm_exact),
]


@pytest.mark.parametrize(("process", "exact"), EXACT, ids=[type(p).__name__ for p, _ in EXACT])
def test_alpha_and_sigma_equal_their_formulas_evaluated_in_sixty_digits(process, exact):
    ends = [process.t_min, process.t_max]
    for t in [*ends, *(t for t in TIMES if process.contains(tensor(t)))]:
        alpha, sigma = exact(t)
        got_alpha, got_sigma = process.coefficients(tensor(t))
        assert got_alpha.item() == pytest.approx(float(alpha), rel=1e-12)
        assert got_sigma.item() == pytest.approx(float(sigma), rel=1e-12)
        assert process.half_log_snr(tensor(t)).item() == pytest.approx(
            float((alpha / sigma).ln()), abs=1e-12
        )


def test_vp_sigma_keeps_six_digits_in_float32_at_the_earliest_time():
    t = torch.tensor(1e-5, dtype=torch.float32)
    exact = float(vp_exact(t.item())[1])
    assert sf.VP().sigma(t).item() == pytest.approx(exact, rel=1e-6)
    direct = (1 - torch.exp(-(0.1 * t + 9.95 * t**2))).sqrt().item()
    assert direct != pytest.approx(exact, rel=1e-3), "1 - exp(-B) cancels: expm1 is needed"


def beta(t):
    return 0.1 + 19.9 * t


def test_vp_drift_and_diffusion_are_minus_half_beta_and_root_beta():
    t = tensor(*TIMES)
    torch.testing.assert_close(sf.VP().drift(t), -beta(t) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(sf.VP().diffusion(t), beta(t).sqrt(), rtol=1e-10, atol=0)


def test_sub_vp_diffusion_is_root_beta_times_one_minus_alpha_to_the_fourth():
    t = tensor(*TIMES)
    total = 0.1 * t + 9.95 * t**2
    expected = (beta(t) * -torch.expm1(-2 * total)).sqrt()
    torch.testing.assert_close(sf.SubVP().drift(t), -beta(t) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(sf.SubVP().diffusion(t), expected, rtol=1e-10, atol=0)


def test_ve_diffusion_is_the_ladder_times_the_root_of_twice_its_log_growth():
    t = tensor(*TIMES)
    expected = 0.01 * 5000**t * math.sqrt(2 * math.log(5000))
    torch.testing.assert_close(sf.VE().drift(t), torch.zeros_like(t))
    torch.testing.assert_close(sf.VE().diffusion(t), expected, rtol=1e-10, atol=0)


def test_cosine_flow_and_edm_have_their_textbook_drift_and_diffusion():
    t = tensor(*TIMES)
    angle, speed = math.pi / 2 * (t + 0.008) / 1.008, math.pi / 2 / 1.008
    expected = [
        (sf.Cosine(), -speed * angle.tan(), (2 * speed * angle.tan()).sqrt()),
        (sf.Flow(), -1 / (1 - t), (2 * t / (1 - t)).sqrt()),
        (sf.EDM(), torch.zeros_like(t), (2 * t).sqrt()),
    ]
    for process, drift, diffusion in expected:
        torch.testing.assert_close(process.drift(t), drift, rtol=1e-10, atol=0)
        torch.testing.assert_close(process.diffusion(t), diffusion, rtol=1e-9, atol=0)


@pytest.mark.parametrize("known", [sf.VP(), sf.VE(), sf.SubVP()], ids=["VP", "VE", "SubVP"])
def test_a_process_is_rebuilt_from_drift_and_diffusion_alone_to_eight_digits(known):
    rebuilt = sf.LinearSDE(known.drift, known.diffusion, t_min=1e-3)
    t = torch.linspace(1e-3, 1.0, 21, dtype=torch.float64)
    torch.testing.assert_close(rebuilt.alpha(t), known.alpha(t), rtol=1e-8, atol=0)
    torch.testing.assert_close(rebuilt.sigma(t), known.sigma(t), rtol=1e-8, atol=0)
    torch.testing.assert_close(rebuilt.drift(t), known.drift(t), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(rebuilt.diffusion(t), known.diffusion(t), rtol=1e-6, atol=0)


def test_constant_coefficients_give_ornstein_uhlenbeck_and_brownian_motion():
    t = tensor(0.1, 0.7, 2.0)
    pull = sf.LinearSDE(lambda t: -1.5 + 0 * t, lambda t: 0.8 + 0 * t, t_min=0.01, t_max=2.0)
    torch.testing.assert_close(pull.alpha(t), torch.exp(-1.5 * t), rtol=1e-12, atol=0)
    variance = 0.8**2 / 3.0 * (1 - torch.exp(-3.0 * t))
    torch.testing.assert_close(pull.sigma(t) ** 2, variance, rtol=1e-12, atol=0)
    free = sf.LinearSDE(lambda t: 0 * t, lambda t: 1 + 0 * t, t_min=0.01, t_max=2.0)
    torch.testing.assert_close(free.sigma(t), t.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("alpha", "sigma", "moment"),
    [
        (sf.SubVP().alpha, sf.SubVP().sigma, "variance"),
        (sf.VP().alpha, lambda t: 1.001 * sf.VP().sigma(t), "variance"),
        (sf.VP().alpha, lambda t: sf.VP().sigma(t) * (1 + 0.1 * bump(t, 0.05)), "variance"),
        (sf.VE().alpha, sf.VP().sigma, "mean"),
        (lambda t: sf.VP().alpha(t) ** 2, sf.VP().sigma, "mean"),
    ],
    ids=["sub-VP's sigma", "sigma off by a thousandth", "off early", "VE's alpha", "alpha squared"],
)
def test_a_mean_or_variance_that_contradicts_the_sde_is_refused_by_name_and_time(
    alpha, sigma, moment
):
    with pytest.raises(ValueError, match=rf"the {moment} disagrees at t = "):
        sf.LinearSDE(vp_drift, vp_diffusion, alpha, sigma, t_min=1e-3)
    agreeing = sf.LinearSDE(vp_drift, vp_diffusion, sf.VP().alpha, sf.VP().sigma, t_min=1e-3)
    assert agreeing.sigma(tensor(0.5)) == sf.VP().sigma(tensor(0.5))


def test_what_quadrature_cannot_follow_is_refused():
    with pytest.raises(ValueError, match="not smooth enough near t = "):
        sf.LinearSDE(vp_drift, lambda t: 1 + torch.sin(400 * t) ** 2)


def bump(t, place):
    """Return a bump as narrow as a fifth of its place."""
    return torch.exp(-0.5 * ((t / place - 1) / 0.2) ** 2)


@every_process
def test_time_inverts_half_log_snr(process):
    t = interior_times(process, 9)
    levels = process.half_log_snr(t)
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(process.time(levels), t, rtol=1e-10, atol=0)
    ends = tensor(process.t_min, process.t_max)
    back = process.time(process.half_log_snr(ends))
    torch.testing.assert_close(back, ends, rtol=1e-9, atol=1e-9 * process.t_max)


@every_process
def test_noising_in_two_stages_has_the_law_of_noising_at_once(process):
    """The mean coefficients multiply and the variances add up: Chapman and Kolmogorov."""
    t, r, s = interior_times(process, 3).flip(0)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)

    def kernel(a, b):
        return process.diffuse(one, a, b, zero), process.diffuse(zero, a, b, one) ** 2

    (keep_tr, var_tr), (keep_rs, var_rs), (keep_ts, var_ts) = (
        kernel(t, r),
        kernel(r, s),
        kernel(t, s),
    )
    torch.testing.assert_close(keep_tr * keep_rs, keep_ts, rtol=1e-12, atol=0)
    torch.testing.assert_close(keep_rs**2 * var_tr + var_rs, var_ts, rtol=1e-10, atol=0)
    mean, std = process.perturb(one, t, zero), process.perturb(zero, t, one)
    torch.testing.assert_close(keep_ts * mean, process.perturb(one, s, zero), rtol=1e-12, atol=0)
    variance = keep_ts**2 * std**2 + var_ts
    torch.testing.assert_close(variance, process.perturb(zero, s, one) ** 2, rtol=1e-10, atol=0)


@every_process
def test_the_two_time_kernel_is_the_integral_of_the_sde_between_the_times(process):
    t, s = interior_times(process, 3)[[1, 0]].flip(0).sort().values

    def variance_rate(u):
        u = tensor(u)[0]
        return float((process.alpha(s) / process.alpha(u) * process.diffusion(u)) ** 2)

    variance, _ = scipy.integrate.quad(variance_rate, float(t), float(s), epsrel=1e-8, limit=200)
    assert process.kernel_std(t, s).item() ** 2 == pytest.approx(variance, rel=1e-6)


def test_a_ddpm_table_is_met_exactly_at_its_knots_in_log_snr():
    table = linear_alpha_bar()
    process = sf.Tabulated(table)
    k = torch.arange(1000, dtype=torch.float64)
    expected = 0.5 * (table / (1 - table)).log()
    torch.testing.assert_close(process.half_log_snr(k), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(process.alpha(k) ** 2, table, rtol=1e-12, atol=0)


def test_a_rough_table_has_the_slopes_of_a_natural_spline_where_they_rise():
    """In memory that grows with the table, not with its square."""
    y = np.random.default_rng(0).random(2000).cumsum()
    spline = scipy.interpolate.CubicSpline(np.arange(2000), y, bc_type="natural")
    found = _monotone_slopes(torch.from_numpy(y)).numpy()
    rise = np.diff(y)
    nearest = np.minimum(np.r_[rise[0], rise], np.r_[rise, rise[-1]])
    expected = np.clip(spline(np.arange(2000), 1), 0, 3 * nearest)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_table_may_end_in_exactly_no_signal():
    table = linear_alpha_bar()
    table = (table - table[-1]) / (table[0] - table[-1]) * table[0]
    process = sf.Tabulated(table)
    last = tensor(999.0)[0]
    assert process.alpha(last) == 0
    assert process.sigma(last) == 1
    assert process.half_log_snr(last) == -math.inf
    assert all(rate.isfinite() for rate in process.rates(last))
    k = torch.arange(999, dtype=torch.float64)
    torch.testing.assert_close(process.alpha(k) ** 2, table[:-1], rtol=1e-10, atol=0)


def test_a_table_between_its_knots_follows_the_smooth_curve_it_samples():
    vp = sf.VP(t_min=1e-3)
    k = torch.arange(1, 1001, dtype=torch.float64) / 1000
    process = sf.Tabulated(vp.alpha(k) ** 2)
    middle = torch.arange(10, 999, dtype=torch.float64) + 0.5
    expected = vp.half_log_snr((middle + 1) / 1000)
    torch.testing.assert_close(process.half_log_snr(middle), expected, rtol=0, atol=1e-5)


def test_ddpm_products_tend_to_the_vp_exponential_at_first_order():
    errors = []
    for count in (500, 1000, 2000):
        t = torch.arange(1, count + 1, dtype=torch.float64) / count
        products = (1 - beta(t) / count).cumprod(0)
        errors.append(float((products - sf.VP().alpha(t) ** 2).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.05)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.05)


def test_the_noise_ladder_of_smld_is_the_ve_kernel_between_its_rungs():
    t = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)
    rungs = torch.from_numpy(np.geomspace(0.01 * 5000**0.1, 50.0, 10))
    stds = sf.VE().kernel_std(t[:-1], t[1:])
    torch.testing.assert_close(stds**2, (rungs**2).diff(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 7), (5, 3, 4, 4), (5, 2, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_perturb_noises_each_sample_of_any_shape_at_its_own_time(shape, dtype):
    process, times = sf.VP(), tensor(0.1, 0.3, 0.5, 0.7, 0.9)
    x0, eps = normal(*shape).to(dtype), normal(*shape, seed=1).to(dtype)
    got = process.perturb(x0, times, eps)
    assert got.dtype == dtype
    for k, t in enumerate(times.tolist()):
        alpha, sigma = (float(c) for c in vp_exact(t))
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.03}[dtype]
        expected = alpha * x0[k].double() + sigma * eps[k].double()
        torch.testing.assert_close(got[k].double(), expected, rtol=tolerance, atol=tolerance)
        alone = process.perturb(x0[k : k + 1], t, eps[k : k + 1])
        assert alone.dtype == dtype
        torch.testing.assert_close(alone[0].double(), expected, rtol=tolerance, atol=tolerance)


@every_process
def test_the_prior_is_the_noised_law_of_data_with_the_given_moments(process):
    mean, variance = tensor(1.0, -2.0), tensor(0.5, 3.0)
    prior = process.prior(mean, variance)
    end = tensor(process.t_max)[0]
    alpha, sigma = float(process.alpha(end)), float(process.sigma(end))
    exact = torch.distributions.Normal(alpha * mean, (alpha**2 * variance + sigma**2).sqrt())
    x = normal(4, 2)
    torch.testing.assert_close(prior.draw(x), exact.mean + exact.stddev * x)
    torch.testing.assert_close(prior.log_prob(x), exact.log_prob(x).sum(1))


def test_prior_density_sums_over_every_coordinate_of_a_sample():
    prior = sf.VE().prior(variance=0.3)
    x = 40 * normal(4, 3, 5, 5)
    exact = torch.distributions.Normal(prior.mean, prior.std).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(prior.log_prob(x), exact)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sf.VP(t_min=1.0, t_max=1.0), "enclose no time: give t_min < t_max"),
        (lambda: sf.EDM(t_min=2.0, t_max=1.0), "enclose no time"),
        (lambda: sf.Flow(t_min=math.nan), "enclose no time"),
        (lambda: sf.VP(t_min=0.0), "sigma > 0"),
        (lambda: sf.Flow(t_max=1.5), "needs finite alpha >= 0"),
        (lambda: sf.VP(beta_min=5.0, beta_max=-4.0), "noise must grow with time"),
        (lambda: sf.Tabulated([0.9]), "K >= 2"),
        (lambda: sf.Tabulated([0.5, 0.9]), "must fall strictly"),
        (lambda: sf.Tabulated([1.0, 0.9]), r"needs values in \[0, 1\)"),
        (lambda: sf.LinearSDE(vp_drift, vp_diffusion, t_min=0.0), "give 0 < t_min < t_max"),
    ],
)
def test_an_impossible_process_is_refused_when_it_is_made(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_bad_times_are_refused_with_what_to_give_instead():
    process, x = sf.VP(), normal(3, 2)
    with pytest.raises(ValueError, match=r"t has shape \(2,\).*tensor of shape \(3,\)"):
        process.perturb(x, tensor(0.1, 0.2), x)
    with pytest.raises(ValueError, match="diffuse goes towards noise"):
        process.diffuse(x, 0.5, 0.4, x)
    with pytest.raises(ValueError, match=r"half_log_snr = 100 is outside"):
        process.time(tensor(100.0))


def test_vp_moves_a_covariance_towards_the_identity_by_its_decay():
    """``Cov x_t = I + e^{-B} (C_0 - I)``: preserved only if it starts as the identity."""
    t = 0.3
    decay = math.exp(-(0.1 * t + 9.95 * t**2))
    expected = IDENTITY + decay * (COVARIANCE - IDENTITY)
    phi, added = sf.moments(vp_drift, vp_diffusion, t, dim=2)
    torch.testing.assert_close(phi @ COVARIANCE @ phi.T + added, expected, rtol=1e-9, atol=1e-9)
    alpha, sigma = sf.VP().coefficients(tensor(t)[0])
    torch.testing.assert_close(alpha**2 * COVARIANCE + sigma**2 * IDENTITY, expected)


def test_moments_of_matrix_coefficients_equal_the_matrix_exponential_and_lyapunov_forms():
    drift = np.array([[-0.5, 2.0, 0.0], [-2.0, -0.3, 0.4], [0.1, 0.0, -1.0]])
    diffusion = np.array([[0.5, 0.0], [0.2, 0.7], [0.0, 0.3]])
    phi, covariance = sf.moments(
        lambda t: torch.from_numpy(drift), lambda t: torch.from_numpy(diffusion), 0.8, dim=3
    )
    exact = scipy.linalg.expm(0.8 * drift)
    rest = scipy.linalg.solve_continuous_lyapunov(drift, -diffusion @ diffusion.T)
    np.testing.assert_allclose(phi, exact, atol=1e-10)
    np.testing.assert_allclose(covariance, rest - exact @ rest @ exact.T, atol=1e-10)


def test_moments_of_scalar_and_diagonal_coefficients_equal_their_closed_forms():
    rates, noise = tensor(0.5, 1.0, 3.0), tensor(1.0, 0.2, 2.0)
    phi, covariance = sf.moments(lambda t: -rates, lambda t: noise, 1.2, dim=3)
    torch.testing.assert_close(phi, torch.diag(torch.exp(-1.2 * rates)), rtol=1e-9, atol=1e-12)
    variances = noise**2 / (2 * rates) * (1 - torch.exp(-2.4 * rates))
    torch.testing.assert_close(covariance, torch.diag(variances), rtol=1e-9, atol=1e-12)
    phi, covariance = sf.moments(vp_drift, vp_diffusion, 0.6, dim=2)
    alpha, sigma = (float(c) for c in vp_exact(0.6))
    torch.testing.assert_close(phi, alpha * IDENTITY, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(covariance, sigma**2 * IDENTITY, rtol=1e-9, atol=1e-12)


def test_moments_agree_with_a_simulated_ensemble_within_four_standard_errors():
    drift, diffusion = (
        tensor(-0.5, 1.0, -1.0, -0.5).reshape(2, 2),
        tensor(1.0, 0.0, 0.5, 0.6).reshape(2, 2),
    )
    count, steps, end = 8000, 500, 1.0
    h = end / steps
    generator = torch.Generator().manual_seed(3)
    x = tensor(1.0, -1.0).expand(count, 2)
    for k in range(steps):
        w = torch.randn(count, 2, generator=generator, dtype=torch.float64) * math.sqrt(h)
        x = x + h * x @ drift.T + (1 + k * h) * w @ diffusion.T
    phi, covariance = sf.moments(lambda t: drift, lambda t: (1 + t) * diffusion, end, dim=2)
    mean_error = (x.mean(0) - phi @ tensor(1.0, -1.0)).abs()
    assert (mean_error < 4 * (covariance.diagonal() / count).sqrt()).all()
    variances = covariance.diagonal()
    standard = ((variances[:, None] * variances[None] + covariance**2) / count).sqrt()
    assert ((x.T.cov() - covariance).abs() < 4 * standard).all()


def test_moments_refuses_coefficients_of_another_shape():
    with pytest.raises(ValueError, match=r"drift has shape \(2, 3\) in dimension 2"):
        sf.moments(lambda t: torch.zeros(2, 3), lambda t: torch.ones(()), 1.0, dim=2)
    with pytest.raises(ValueError, match="steps=0: must be a whole number, at least 1"):
        sf.moments(vp_drift, vp_diffusion, 1.0, dim=1, steps=0)


def test_rates_of_a_process_in_pieces_do_not_see_the_piece_not_taken():
    """Where the formula of the other piece is not even a number."""

    class Pieces(sf.Process):
        t_min, t_max = 0.01, 1.0

        def alpha(self, t):
            return torch.ones_like(t)

        def sigma(self, t):
            return torch.where(t > 0.5, 0.5 + 0.1 * (t - 0.5).sqrt() + (t - 0.5), t)

    rates = Pieces().rates(tensor(0.1, 0.3, 0.75))[1]
    torch.testing.assert_close(rates, tensor(1.0, 1.0, 1.0 + 0.05 / 0.5))


@pytest.mark.parametrize("frequency", [20.0, 60.0])
def test_a_linear_sde_may_oscillate(frequency):
    """Against the moments solved by Runge and Kutta's method in fine steps."""

    def drift(t):
        return -0.5 * (1 + 0.9 * torch.cos(frequency * t))

    process = sf.LinearSDE(drift, torch.ones_like)
    for t in (0.03, 0.4, 1.0):
        phi, covariance = sf.moments(drift, torch.ones_like, t, dim=1, steps=4096)
        alpha, sigma = process.coefficients(tensor(t)[0])
        torch.testing.assert_close(alpha, phi[0, 0], rtol=1e-9, atol=0)
        torch.testing.assert_close(sigma**2, covariance[0, 0], rtol=1e-9, atol=0)


class Plain(sf.Process):
    """A process as a user writes it, with a parameter in an `__init__` of its own."""

    def __init__(self, power=1.0):
        self.power = power
        super().__init__(t_max=0.99)

    def alpha(self, t):
        return torch.cos(torch.pi / 2 * t**self.power)

    def sigma(self, t):
        return torch.sin(torch.pi / 2 * t**self.power)


def test_an_own_process_needs_alpha_and_sigma_alone():
    class Quarter(sf.Process):
        def alpha(self, t):
            return torch.cos(torch.pi / 2 * t)

        def sigma(self, t):
            return torch.sin(torch.pi / 2 * t)

    own = Quarter()
    assert (own.t_min, own.t_max, own.t_data) == (1e-3, 0.999, 0.0)
    assert repr(own) == "Quarter(t_min=0.001, t_max=0.999)"
    assert Quarter(t_max=0.5).t_max == 0.5
    t = torch.linspace(0.001, 0.999, 9, dtype=torch.float64)
    torch.testing.assert_close(own.half_log_snr(t), -(torch.pi / 2 * t).tan().log())
    torch.testing.assert_close(own.time(own.half_log_snr(t)), t)
    torch.testing.assert_close(own.diffusion(t) ** 2, torch.pi * (torch.pi / 2 * t).tan())
    for process in (own, Plain()):
        field = sf.Gaussian(process, torch.zeros(2), torch.eye(2))
        for solver in (sf.Heun(), sf.EulerMaruyama(), sf.DDPM()):
            x = sf.sample(field, 500, solver, 40)
            assert (x.var(0) - 1).abs().max() < 0.3
        assert sf.log_prob(field, torch.zeros(1, 2)).value.item() == pytest.approx(
            -math.log(2 * math.pi), abs=1e-4
        )


@pytest.mark.parametrize("wrong", [lambda t: 0.5, lambda t: torch.ones(())], ids=["float", "shape"])
def test_an_own_process_of_other_than_tensors_is_named(wrong):
    class Wrong(Plain):
        def alpha(self, t):
            return wrong(t)

    with pytest.raises(ValueError, match=r"Wrong\(.*alpha\(t\) must be a tensor of the shape"):
        Wrong()
