"""Mistakes that circulate about these methods: each test runs the right form and the wrong one.

The right form is the library's; the wrong one is written out in the test and must fail the same
check. Sampling tests use one normal, N(0.5, 0.5^2), with its exact score under VP.
"""

import math

import pytest
import torch
from cases import (
    COVARIANCE,
    IDENTITY,
    linear_alpha_bar,
    normal,
    tensor,
    vp_diffusion as g,
    vp_drift as f,
)

import scorefield as sf

MEAN, STD = 0.5, 0.5
VP = sf.VP(t_min=1e-3)
COUNT, STEPS = 4000, 300


def target(process=VP):
    """Return the exact field of N(0.5, 0.5^2)."""
    return sf.Gaussian(process, tensor(MEAN), tensor(STD**2).reshape(1, 1))


def is_target(x):
    """Tell whether samples have the mean and deviation of N(0.5, 0.5^2) within 5 %."""
    return abs(float(x.mean()) - MEAN) < 0.05 * STD and abs(float(x.std()) - STD) < 0.05 * STD


def library_samples():
    solver, times = sf.EulerMaruyama(1.0), sf.uniform(VP, STEPS)
    return sf.sample(
        target(), COUNT, solver, times, batch_size=COUNT, finish=False, dtype=torch.float64
    )


def reverse_sde(time, update, field):
    """Run ``x = update(x, t, score, |dt|, z)`` over ``STEPS`` times from pure noise."""
    x = normal(COUNT, 1, seed=1)
    for i in range(STEPS):
        t = tensor(time(i))[0]
        x = update(x, t, field(x, t).score, 1 / STEPS, normal(COUNT, 1, seed=2 + i))
    return x


def test_e1_time_runs_down_from_t_max():
    """``t = T - i dt`` with a negative ``dt`` runs up to ``2 T`` and returns pure noise."""
    assert is_target(library_samples())

    def update(x, t, score, h, z):
        return x - (f(t) * x - g(t) ** 2 * score) * h + g(t) * h**0.5 * z

    field = target(sf.VP(t_min=1e-3, t_max=2.5))
    assert is_target(reverse_sde(lambda i: 1 - i / STEPS, update, field))
    astray = reverse_sde(lambda i: 1 + i / STEPS, update, field)
    assert not is_target(astray)
    assert float(astray.std()) == pytest.approx(1, abs=0.05), "silently pure noise"


def test_e2_a_step_towards_data_subtracts_the_reverse_drift():
    """With ``dt > 0`` the step is ``x - [f x - g^2 score] dt + g sqrt(dt) z``; ``+`` explodes."""
    assert is_target(library_samples())

    def wrong(x, t, score, h, z):
        return x + (f(t) * x - g(t) ** 2 * score) * h + g(t) * h**0.5 * z

    exploded = reverse_sde(lambda i: 1 - i / STEPS, wrong, target())
    assert not is_target(exploded)
    assert float(exploded.std()) > 10


def test_e9_regressing_the_score_needs_the_weight_sigma_squared():
    """The target ``-eps / sigma`` has variance ``1 / sigma^2``; weighted it is that of ``eps``."""
    x0, eps = normal(20000, 1), normal(20000, 1, seed=1)

    def size(head, t, weight):
        return float((weight * head.target(*sf.VP().coefficients(t), x0, eps) ** 2).mean())

    early, late = tensor(1e-5, 0.5)
    for head, weight in ((sf.Eps(), 1.0), (sf.Score(), None)):
        sizes = [
            size(head, t, sf.VP().sigma(t) ** 2 if weight is None else weight)
            for t in (early, late)
        ]
        assert sizes[0] / sizes[1] == pytest.approx(1, rel=1e-9)
        assert sizes[0] == pytest.approx(1, abs=4 * (2 / 20000) ** 0.5)
    unweighted = size(sf.Score(), early, 1.0) / size(sf.Score(), late, 1.0)
    assert unweighted > 1e5


def test_e10_time_starts_after_zero_and_every_sample_has_its_own():
    with pytest.raises(ValueError, match=r"sigma\(0\) = 0: needs finite alpha >= 0 and sigma > 0"):
        sf.VP(t_min=0.0)
    eps, x0 = normal(5, 1), torch.zeros(5, 1).double()
    zero = torch.zeros(1).double()
    one = x0[:1], eps[:1]
    assert not sf.Score().target(*sf.VP().coefficients(zero), *one).isfinite().all()
    start = tensor(sf.VP().t_min)
    assert sf.Score().target(*sf.VP().coefficients(start), *one).isfinite().all()

    def levels(t):
        return len((sf.VP().perturb(x0, t, eps) / eps).unique())

    assert levels(tensor(0.1, 0.3, 0.5, 0.7, 0.9)) == 5
    assert levels(0.3) < 5, "one time for the batch shows the network a single noise level"


def test_e11_variance_preserving_noise_is_the_root_of_beta():
    """``sqrt(2 beta)`` belongs to the drift ``-beta x``, not to ``-beta x / 2``."""

    def variance(diffusion):
        """Return the variance at t = 1 of data that starts with variance 1."""
        phi, added = sf.moments(f, diffusion, 1.0, dim=1)
        return float(phi**2 + added)

    assert variance(g) == pytest.approx(1, rel=1e-8)
    assert variance(lambda t: 2**0.5 * g(t)) == pytest.approx(2, rel=1e-3)
    assert sf.LinearSDE(f, g, VP.alpha, VP.sigma).sigma(tensor(0.5)) == VP.sigma(tensor(0.5))
    with pytest.raises(ValueError, match="the variance disagrees"):
        sf.LinearSDE(f, lambda t: 2**0.5 * g(t), VP.alpha, VP.sigma)


def test_e11_sampling_with_the_wrong_noise_gives_the_wrong_spread():
    def update(diffusion):
        return lambda x, t, score, h, z: (
            x - (f(t) * x - diffusion(t) ** 2 * score) * h + diffusion(t) * h**0.5 * z
        )

    assert is_target(reverse_sde(lambda i: 1 - i / STEPS, update(g), target()))
    wrong = update(lambda t: 2**0.5 * g(t))
    assert not is_target(reverse_sde(lambda i: 1 - i / STEPS, wrong, target()))


def test_e12_a_discrete_beta_is_the_squared_diffusion_times_the_step():
    """``beta_k = g(t)^2 dt``; neither ``g dt`` nor ``g = beta`` will do."""
    h = 1e-4
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    beta_k = 1 - (sf.VP().alpha(t + h / 2) / sf.VP().alpha(t - h / 2)) ** 2
    diffusion = sf.VP().diffusion(t)
    torch.testing.assert_close(diffusion**2 * h, beta_k, rtol=2e-3, atol=0)
    for wrong in (diffusion * h, diffusion):
        assert not torch.allclose(wrong, beta_k, rtol=0.03, atol=0)
    with pytest.raises(ValueError, match="the variance disagrees"):
        sf.LinearSDE(f, lambda t: g(t) ** 2, VP.alpha, VP.sigma)


@pytest.mark.parametrize(
    ("drift", "diffusion", "name"), [(f, 3, "diffusion_fn=3"), (0.5, g, "drift_fn=0.5")]
)
def test_coefficients_of_an_sde_are_functions(drift, diffusion, name):
    with pytest.raises(ValueError, match=f"{name}: must be a function of the time"):
        sf.LinearSDE(drift, diffusion)


def test_e13_one_minus_half_beta_is_the_root_of_one_minus_beta():
    """One step keeps ``sqrt(1 - beta) = 1 - beta / 2 + ...`` of ``x``, not of its variance."""
    process, beta = sf.Tabulated(linear_alpha_bar()), 0.02
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    kept = float(process.diffuse(one, 998.0, 999.0, zero))
    assert kept == pytest.approx(math.sqrt(1 - beta), rel=1e-12)
    assert kept == pytest.approx(1 - beta / 2, abs=beta**2)
    assert kept**2 == pytest.approx(1 - beta, abs=beta**2)
    assert kept**2 != pytest.approx(1 - beta / 2, abs=beta**2)


def test_e14_a_product_of_alphas_is_not_quite_the_exponential():
    """A DDPM table is kept as it is: VP's exponential differs at second order, 6.5 % at the end."""
    table = linear_alpha_bar()
    wrapped = sf.Tabulated(table).alpha(tensor(999.0)) ** 2
    exponential = sf.VP().alpha(tensor(1.0)) ** 2
    assert float(wrapped) == pytest.approx(float(table[-1]), rel=1e-12)
    assert float(exponential) != pytest.approx(float(table[-1]), rel=0.05)
    assert float(exponential) == pytest.approx(float(table[-1]), rel=0.1)


def test_e26_sub_vp_lies_below_vp_and_is_worse_conditioned_near_the_data():
    """Its deviation is ``1 - abar``, no root: not between VP and VE, and linear in ``t``."""
    t = torch.linspace(1e-3, 1, 50, dtype=torch.float64)
    vp, sub, ve = (p.sigma(t) for p in (sf.VP(), sf.SubVP(), sf.VE()))
    torch.testing.assert_close(sub, 1 - sf.VP().alpha(t) ** 2)
    assert (sub <= vp).all()
    between = (torch.minimum(vp, ve) <= sub) & (sub <= torch.maximum(vp, ve))
    assert not between.all(), "it does not interpolate the two"
    near = tensor(1e-4, 2e-4)
    growth = {
        type(p).__name__: float(p.sigma(near)[1] / p.sigma(near)[0])
        for p in (sf.VP(), sf.SubVP(t_min=1e-5))
    }
    assert growth["SubVP"] == pytest.approx(2, rel=0.02)
    assert growth["VP"] == pytest.approx(2**0.5, rel=0.02)
    sde = sf.SubVP().drift, sf.SubVP().diffusion
    sf.LinearSDE(*sde, sf.SubVP().alpha, sf.SubVP().sigma, t_min=1e-3)
    with pytest.raises(ValueError, match="the variance disagrees"):
        sf.LinearSDE(*sde, sf.SubVP().alpha, sf.VP().sigma, t_min=1e-3)


def sub_vp_diffusion(t):
    return g(t) * (-torch.expm1(-2 * (0.1 * t + 9.95 * t**2))).sqrt()


def ve_diffusion(t):
    return 0.01 * 5000**t * math.sqrt(2 * math.log(5000))


@pytest.mark.parametrize(
    ("process", "drift", "diffusion"),
    [
        (sf.VP(), f, g),
        (sf.SubVP(), f, sub_vp_diffusion),
        (sf.VE(), lambda t: 0 * t, ve_diffusion),
    ],
    ids=["VP", "SubVP", "VE"],
)
def test_e27_the_conditional_score_is_minus_eps_over_sigma_of_the_process(
    process, drift, diffusion
):
    """``-eps / sqrt(1 - abar)`` is VP's alone: sub-VP has ``1 - abar``, VE its own ladder."""
    t, x0, eps = tensor(0.2)[0], normal(6, 2), normal(6, 2, seed=1)
    x = process.perturb(x0, t, eps).requires_grad_()
    # the kernel comes from the SDE's own moments, not from the process's alpha and sigma
    kept, variance = (m.squeeze() for m in sf.moments(drift, diffusion, 0.2, dim=1))
    kernel = torch.distributions.Normal(kept * x0, variance.sqrt())
    (score,) = torch.autograd.grad(kernel.log_prob(x).sum(), x)
    at = sf.Instant.of(process, t, x)
    got = sf.Estimate.from_eps(x.detach(), at, eps).score
    torch.testing.assert_close(got, score, rtol=1e-6, atol=1e-6)
    document = -eps / (1 - process.alpha(t) ** 2).sqrt()
    is_vp = process == sf.VP()
    assert torch.allclose(document, score, rtol=1e-2, atol=1e-2) == is_vp


def test_e30_each_coefficient_has_one_name():
    """alpha keeps the mean, abar is its square, and a step's noise is not the marginal's."""
    process, table = sf.Tabulated(linear_alpha_bar()), linear_alpha_bar()
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    t, s = tensor(500.0, 499.0)
    mean, spread = process.perturb(one, t, zero).item(), process.perturb(zero, t, one).item()
    assert mean == pytest.approx(float(process.alpha(t)), rel=1e-12)
    assert spread == pytest.approx(float(process.sigma(t)), rel=1e-12)
    for wrong in (table[500], table[500] / table[499]):
        assert mean != pytest.approx(float(wrong), rel=1e-3)

    class Unit:
        def increment(self, start, end, like):
            return torch.ones_like(like), self

    class Silence:
        def increment(self, start, end, like):
            return torch.zeros_like(like), self

    field = target(process)
    loud, quiet = (
        sf.DDIM(eta=1.0).advance(field, sf.State(one, t, noise), s).x
        for noise in (Unit(), Silence())
    )
    step_std = float(loud - quiet)
    posterior = (1 - table[499]) / (1 - table[500]) * (1 - table[500] / table[499])
    assert step_std == pytest.approx(float(posterior.sqrt()), rel=1e-9)
    assert step_std != pytest.approx(float(process.sigma(s)), rel=0.5)


def test_e32_vp_preserves_variance_only_of_standardised_data():
    """``E |x|^2`` is constant for zero mean and unit covariance; else the data's own decay in."""
    t = tensor(0.3)[0]
    decay = float(sf.VP().alpha(t) ** 2)
    for covariance in (IDENTITY, COVARIANCE, 9 * IDENTITY):
        field = sf.Gaussian(sf.VP(), torch.zeros(2), covariance)
        x = field.data(normal(40000, 2), torch.rand(40000))
        before = float(covariance.trace())
        after = float(sf.VP().perturb(x, t, normal(40000, 2, seed=1)).square().sum(1).mean())
        right = 2 + decay * (before - 2)
        prior = sf.VP().prior(variance=covariance.diagonal(), t=t)
        assert float(prior.std.square().sum()) == pytest.approx(right, rel=1e-9)
        assert after == pytest.approx(right, rel=0.03)
        constant = after == pytest.approx(before, rel=0.03)
        assert constant == (before == 2)


def divergence(mean, covariance, prior):
    """Return ``KL(N(mean, covariance) || prior)``."""
    normal = torch.distributions.MultivariateNormal
    other = normal(prior.mean.expand(2), torch.diag(prior.std.expand(2) ** 2))
    return torch.distributions.kl_divergence(normal(mean, covariance), other).item()


@pytest.mark.parametrize("process", [sf.VP(), sf.VE(sigma_max=10.0)], ids=["VP", "VE"])
def test_e33_generation_starts_from_the_noised_data_and_not_from_the_standard_normal(process):
    """VP keeps a residual mean of 0.0066 of the data; VE needs its own variance and the data's."""
    mean, covariance = tensor(3.0, -20.0), COVARIANCE.diagonal().diag()
    end = tensor(process.t_max)[0]
    alpha, sigma = process.coefficients(end)
    noised = alpha * mean, alpha**2 * covariance + sigma**2 * IDENTITY
    field = sf.Gaussian(process, mean, covariance)
    prior = process.prior(field.mean, field.variance)
    assert divergence(*noised, prior) == pytest.approx(0, abs=1e-9)
    standard = sf.Prior(torch.zeros(()).double(), torch.ones(()).double())
    assert divergence(*noised, standard) > 5e-3
    x = sf.prior(field, 20000, dtype=torch.float64).x
    error = (noised[1].diagonal() / 20000).sqrt()
    assert ((x.mean(0) - noised[0]).abs() < 4 * error).all()
    assert not (noised[0].abs() < 4 * error).all(), "zero is not the mean"


def test_e34_ve_noise_is_bounded_and_its_kernel_starts_from_none():
    """Deviation ``sqrt(s(t)^2 - s(0)^2)`` up to ``sigma_max``, and ``g`` has a root in it."""
    ladder, log_growth = (lambda t: 0.01 * 5000**t), math.log(5000)
    process, end = sf.VE(), tensor(1.0)[0]
    assert float(process.sigma(end)) == pytest.approx(math.sqrt(50**2 - 0.01**2), rel=1e-12)
    assert float(process.sigma(end)) < 50

    def rebuilt(growth, deviation):
        return sf.LinearSDE(
            lambda t: 0 * t,
            lambda t: ladder(t) * growth,
            process.alpha,
            deviation,
            t_min=0.05,
        )

    rebuilt(math.sqrt(2 * log_growth), process.sigma)
    for growth, deviation in (
        (2 * log_growth, process.sigma),
        (math.sqrt(2 * log_growth), ladder),
    ):
        with pytest.raises(ValueError, match="the variance disagrees"):
            rebuilt(growth, deviation)
