"""Score fields: the views of one estimate, exact fields, and networks made into fields."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch
from cases import (
    ALL_PROCESSES,
    COVARIANCE,
    IDENTITY,
    MEAN,
    PARAMETRIZATIONS,
    PROCESS_IDS,
    gaussian,
    interior_times,
    mixture,
    normal,
    tensor,
    time_at,
)
from torch import nn

import scorefield as sf

every_process = pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
every_parametrization = pytest.mark.parametrize("head", PARAMETRIZATIONS, ids=repr)
WEIGHTS, CENTRES, SPREADS = (0.3, 0.7), (-1.2, 0.9), (0.25, 0.6)


def pair(process):
    """Return a mixture of two normals on the line, with the constants above."""
    variances = tensor(*SPREADS).square().reshape(2, 1, 1)
    return sf.Mixture(process, tensor(*WEIGHTS), tensor(*CENTRES).reshape(2, 1), variances)


def pair_density(x0):
    """Return the density of `pair`'s data, by scipy."""
    return sum(
        w * scipy.stats.norm.pdf(x0, m, s)
        for w, m, s in zip(WEIGHTS, CENTRES, SPREADS, strict=True)
    )


def posterior_mean(f, x, alpha, sigma):
    """Return ``E[f(x0) | x]`` under `pair` and its density at ``x``, by quadrature over ``x0``."""

    def joint(x0):
        return pair_density(x0) * scipy.stats.norm.pdf(x, alpha * x0, sigma)

    ends, peak = (-5.0, 6.0), [min(max(x / alpha, -5.0), 6.0), *CENTRES]
    rule = {"points": peak, "epsabs": 1e-14, "epsrel": 1e-10, "limit": 400}
    density = scipy.integrate.quad(joint, *ends, **rule)[0]
    return scipy.integrate.quad(lambda x0: f(x0) * joint(x0), *ends, **rule)[0] / density, density


def noisy(process, t, count=8):
    """Return samples of `mixture` noised to ``t``."""
    data = mixture(process).data(normal(count, 2), torch.linspace(0.05, 0.95, count).double())
    return process.perturb(data, t, normal(count, 2, seed=1))


@every_process
@pytest.mark.parametrize("view", ["x0", "eps", "score", "velocity"])
def test_every_view_of_an_estimate_leads_back_to_all_the_others(process, view):
    for t in interior_times(process):
        found = mixture(process)(x := noisy(process, t), t)
        back = getattr(sf.Estimate, f"from_{view}")(x, found.at, getattr(found, view))
        for other in ("x0", "eps", "score", "v", "velocity"):
            want, got = getattr(found, other), getattr(back, other)
            assert (got - want).norm() <= 1e-12 * want.norm()


@every_process
def test_views_satisfy_their_definitions_in_drift_and_diffusion(process):
    for t in interior_times(process):
        found = mixture(process)(x := noisy(process, t), t)
        alpha, sigma = process.coefficients(t)
        torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x)
        torch.testing.assert_close(found.score, (alpha * found.x0 - x) / sigma**2)
        velocity = process.drift(t) * x - 0.5 * process.diffusion(t) ** 2 * found.score
        torch.testing.assert_close(found.velocity, velocity, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(found.v, alpha * found.eps - sigma * found.x0)


@every_process
def test_the_score_of_a_gaussian_is_minus_precision_times_offset(process):
    for t in interior_times(process):
        alpha, sigma = process.coefficients(t)
        x = noisy(process, t)
        covariance = alpha**2 * COVARIANCE + sigma**2 * IDENTITY
        expected = -torch.linalg.solve(covariance, (x - alpha * MEAN).T).T
        torch.testing.assert_close(gaussian(process)(x, t).score, expected, rtol=1e-10, atol=1e-10)


@every_process
def test_the_score_of_a_mixture_is_the_gradient_of_its_log_density(process):
    field = mixture(process)
    for t in [*interior_times(process), tensor(process.t_max)[0]]:
        x = noisy(process, t).requires_grad_()
        (gradient,) = torch.autograd.grad(field.log_prob(x, t).sum(), x)
        torch.testing.assert_close(field(x, t).score, gradient, rtol=1e-9, atol=1e-10)


@every_process
def test_log_density_of_a_mixture_is_that_of_its_noised_components(process):
    field, t = mixture(process), time_at(process, 0.8)
    alpha, sigma = process.coefficients(t)
    x, total = noisy(process, t), 0
    for weight, mean, covariance in zip(field.weights, field.means, field.covariances, strict=True):
        noised = alpha**2 * covariance + sigma**2 * IDENTITY
        law = scipy.stats.multivariate_normal((alpha * mean).numpy(), noised.numpy())
        total = total + weight.item() * law.pdf(x.numpy())
    torch.testing.assert_close(field.log_prob(x, t).exp(), torch.from_numpy(total))


@every_process
@pytest.mark.parametrize("ratio", [0.1, 1.0, 8.0])
def test_denoising_is_the_posterior_mean_of_the_data(process, ratio):
    t = time_at(process, ratio)
    alpha, sigma = (float(c) for c in process.coefficients(t))
    for x in (-1.0 * alpha, 0.2 * alpha + sigma):
        mean, density = posterior_mean(lambda x0: x0, x, alpha, sigma)
        batch = tensor(x).reshape(1, 1)
        assert pair(process)(batch, t).x0.item() == pytest.approx(mean, rel=1e-7, abs=1e-9)
        assert pair(process).log_prob(batch, t).exp().item() == pytest.approx(density, rel=1e-7)


@every_process
def test_the_marginal_score_is_the_posterior_mean_of_the_conditional_score(process):
    t = time_at(process, 0.7)
    alpha, sigma = (float(c) for c in process.coefficients(t))
    for x in (-1.0 * alpha, 0.4 * alpha, 1.5 * alpha):
        mean, _ = posterior_mean(lambda x0, x=x: (alpha * x0 - x) / sigma**2, x, alpha, sigma)
        score = pair(process)(tensor(x).reshape(1, 1), t).score.item()
        assert score == pytest.approx(mean, rel=1e-7, abs=1e-8)


@every_process
def test_the_density_of_noised_data_is_normalised_its_score_averages_zero(process):
    """Also Fisher's identity, ``E[score^2] = -E[score']``, by quadrature over the line."""
    t = time_at(process, 0.9)
    field, alpha = pair(process), float(process.alpha(t))
    x = torch.linspace(-9 * alpha, 9 * alpha, 4001, dtype=torch.float64).reshape(-1, 1)
    x.requires_grad_()
    score = field(x, t).score
    (slope,) = torch.autograd.grad(score.sum(), x)
    weight = field.log_prob(x, t).exp() * (18 * alpha / 4000)

    def mean(values):
        return float((weight * values.flatten()).sum().detach())

    assert mean(torch.ones_like(x)) == pytest.approx(1, abs=1e-9)
    assert mean(score) * alpha == pytest.approx(0, abs=1e-9)
    assert mean(score**2) == pytest.approx(-mean(slope), rel=1e-8)


def test_the_score_needs_no_normaliser():
    """A density known only up to a factor has the same score: the factor's gradient is zero."""
    process = sf.VE()
    t = time_at(process, 0.8)
    alpha, sigma = process.coefficients(t)
    x = normal(6, 2).requires_grad_()
    centred = x - alpha * MEAN
    precision = torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * IDENTITY)
    for log_factor in (0.0, 123.4):
        energy = log_factor - 0.5 * ((centred @ precision) * centred).sum()
        (gradient,) = torch.autograd.grad(energy, x, retain_graph=True)
        torch.testing.assert_close(gaussian(process)(x, t).score, gradient)


@every_process
def test_the_ideal_denoiser_of_a_data_set_weighs_its_points_by_their_likelihood(process):
    data = normal(7, 3, seed=4)
    field = sf.Empirical(process, data)
    for t in interior_times(process, 3):
        alpha, sigma = (float(c) for c in process.coefficients(t))
        x = process.perturb(data[:4], t, normal(4, 3, seed=5))
        law = torch.distributions.Normal(alpha * data, sigma)
        joint = torch.stack([law.log_prob(row).sum(1) for row in x]) - math.log(7)
        torch.testing.assert_close(field(x, t).x0, joint.softmax(1) @ data, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(field.log_prob(x, t), joint.logsumexp(1), rtol=1e-8, atol=1e-8)


@every_process
def test_a_data_set_is_the_mixture_of_its_points_without_spread(process):
    data = normal(5, 2, seed=4)
    points = sf.Mixture(process, torch.ones(5), data, torch.zeros(5, 2, 2))
    t = time_at(process, 0.6)
    x = noisy(process, t)
    found, same = sf.Empirical(process, data)(x, t), points(x, t)
    torch.testing.assert_close(found.x0, same.x0)
    torch.testing.assert_close(found.eps, same.eps)
    torch.testing.assert_close(sf.Empirical(process, data).log_prob(x, t), points.log_prob(x, t))


def test_exact_fields_take_samples_of_any_shape():
    data = normal(6, 2, 3, 4)
    field, flat = sf.Empirical(sf.VP(), data), sf.Empirical(sf.VP(), data.flatten(1))
    x, times = normal(3, 2, 3, 4, seed=1), tensor(0.1, 0.4, 0.8)
    torch.testing.assert_close(field(x, times).x0.flatten(1), flat(x.flatten(1), times).x0)
    covariance = torch.eye(24) + 0.3
    field = sf.Gaussian(sf.VP(), data[0], covariance)
    flat = sf.Gaussian(sf.VP(), data[0].flatten(), covariance)
    torch.testing.assert_close(field(x, times).eps.flatten(1), flat(x.flatten(1), times).eps)


@every_process
def test_a_time_per_sample_gives_what_each_sample_gets_alone(process):
    times = interior_times(process, 4)
    x = normal(4, 2)
    together = mixture(process)(x, times)
    for k, t in enumerate(times):
        alone = mixture(process)(x[k : k + 1], t)
        for view in ("x0", "eps", "score", "v", "velocity"):
            want = getattr(alone, view)[0]
            torch.testing.assert_close(getattr(together, view)[k], want, rtol=1e-10, atol=1e-12)


@every_process
def test_float32_loses_no_digits_where_almost_no_noise_is_left(process):
    """At ``t_min`` the offset from the data is tiny, and must not be found as a difference."""
    t = tensor(process.t_min)[0]
    x = process.perturb(normal(64, 2), t, normal(64, 2, seed=1)).float()
    wide, narrow = gaussian(process)(x.double(), t), gaussian(process)(x, t)
    for view in ("x0", "eps", "score", "v"):
        want, got = getattr(wide, view), getattr(narrow, view)
        assert got.dtype == torch.float32
        assert (got.double() - want).norm() <= 1e-5 * want.norm(), view


class Constant(nn.Module):
    """A network whose output is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, scaled, label):
        return self.output


@every_process
def test_an_eps_network_is_passed_on_untouched_at_any_noise_level(process):
    output = normal(16, 2, dtype=torch.float32)
    for t in (tensor(process.t_min)[0], time_at(process, 0.5)):
        x = normal(16, 2, seed=1, dtype=torch.float32)
        found = sf.Denoiser(Constant(output), process, sf.Eps(), (2,))(x, t)
        torch.testing.assert_close(found.eps, output, rtol=0, atol=0)


class Oracle(nn.Module):
    """A perfect network: outputs the target of ``head`` for the exact posterior means."""

    def __init__(self, field, head, t):
        super().__init__()
        self.field, self.head, self.t = field, head, t

    def forward(self, scaled, label):
        scale = self.head(*self.field.process.coefficients(self.t)).scale
        exact = self.field(scaled / scale, self.t)
        return self.head.target(*self.field.process.coefficients(self.t), exact.x0, exact.eps)


@every_process
@every_parametrization
def test_a_perfect_network_gives_the_exact_estimate_whatever_it_predicts(process, head):
    for t in interior_times(process, 3):
        x, exact = noisy(process, t), mixture(process)
        denoiser = sf.Denoiser(Oracle(exact, head, t), process, head, (2,))
        found, truth = denoiser(x, t), exact(x, t)
        for view in ("x0", "eps", "score", "velocity"):
            want, got = getattr(truth, view), getattr(found, view)
            assert (got - want).norm() <= 1e-10 * want.norm(), view


def test_each_parametrization_predicts_what_its_name_says():
    process, t = sf.VP(), tensor(0.4)[0]
    alpha, sigma = process.coefficients(t)
    x0, eps = normal(5, 2), normal(5, 2, seed=1)
    var = 0.49 * alpha**2 + sigma**2
    expected = {
        sf.Eps(): eps,
        sf.X0(): x0,
        sf.Score(): -eps / sigma,
        sf.V(): alpha * eps - sigma * x0,
        sf.Velocity(): eps - x0,
        sf.Preconditioned(0.7): (sigma * x0 - alpha * 0.49 * eps) / (0.7 * var.sqrt()),
    }
    for head, target in expected.items():
        torch.testing.assert_close(head.target(alpha, sigma, x0, eps), target)


@every_process
def test_preconditioning_gives_inputs_and_targets_of_unit_variance(process):
    head = sf.Preconditioned(0.7)
    for t in interior_times(process):
        one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        alpha, sigma = process.coefficients(t)
        of_x0, of_eps = (head.target(alpha, sigma, *pair) for pair in ((one, zero), (zero, one)))
        assert float((0.7 * of_x0) ** 2 + of_eps**2) == pytest.approx(1, rel=1e-10)
        scale = head(alpha, sigma).scale
        assert float(scale**2 * ((0.7 * alpha) ** 2 + sigma**2)) == pytest.approx(1, rel=1e-10)
        # the skip connection leaves nothing that the input could explain
        covariance = alpha * 0.49 * of_x0 + sigma * of_eps
        assert float(covariance) == pytest.approx(0, abs=1e-10)


def test_a_noise_prediction_is_refused_where_no_signal_is_left_and_v_is_not():
    process = sf.Flow(t_max=1.0)
    for head in (sf.Eps(), sf.Score()):
        with pytest.raises(ValueError, match="use V, Velocity or Preconditioned"):
            sf.Denoiser(nn.Identity(), process, head, (2,))
    field = gaussian(process)
    last = tensor(1.0)[0]
    for head in (sf.V(), sf.Velocity(), sf.Preconditioned()):
        denoiser = sf.Denoiser(Oracle(field, head, last), process, head, (2,))
        torch.testing.assert_close(denoiser(normal(4, 2), 1.0).x0, MEAN.expand(4, 2))


def test_a_table_that_ends_without_signal_refuses_a_noise_prediction():
    with pytest.raises(ValueError, match="no finite coefficients at t = 2, where alpha = 0"):
        sf.Denoiser(nn.Identity(), sf.Tabulated([0.9, 0.5, 0.0]), sf.Eps(), (2,))


@every_process
def test_a_field_under_another_process_makes_the_same_estimate_at_equal_snr(process):
    ratios = torch.linspace(math.log(0.1), math.log(30.0), 5, dtype=torch.float64).exp()
    target = sf.EDM(t_min=0.05, t_max=35.0)
    moved, truth = mixture(process).under(target), mixture(target)
    for ratio in ratios:
        x = noisy(target, ratio)
        got, want = moved(x, ratio), truth(x, ratio)
        for view in ("x0", "eps", "score", "velocity"):
            torch.testing.assert_close(
                getattr(got, view), getattr(want, view), rtol=1e-8, atol=1e-9
            )
        t = process.time(-ratio.log())
        inner = mixture(process)(process.alpha(t) * x, t)
        torch.testing.assert_close(got.x0, inner.x0, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(got.score, process.alpha(t) * inner.score, rtol=1e-8, atol=1e-9)


def test_there_and_back_again_is_the_same_field():
    field = mixture(sf.VP(t_min=1e-3))
    inner = sf.Cosine(t_min=0.05, t_max=0.95)
    back = field.under(inner).under(sf.VP(t_min=0.2, t_max=0.7))
    x, t = normal(6, 2), tensor(0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    torch.testing.assert_close(back(x, t).x0, field(x, t).x0, rtol=1e-9, atol=1e-9)


def test_under_refuses_a_process_that_reaches_further_than_the_field():
    with pytest.raises(ValueError, match=r"reaches noise levels that .* does not.*Narrow t_min"):
        mixture(sf.VP()).under(sf.EDM(t_max=1000.0))
    with pytest.raises(ValueError, match="reaches noise levels"):
        mixture(sf.EDM()).under(sf.VP())


def test_given_binds_a_condition_that_a_call_may_still_override():
    class Shifted(sf.ScoreField):
        def estimate(self, x, at, *, shift=0.0):
            return sf.Estimate.from_x0(x, at, x * 0 + shift)

    field = Shifted(sf.VP(), (2,))
    x = normal(3, 2)
    bound = field.condition_on(shift=2.0)
    assert (field(x, 0.5).x0 == 0).all()
    assert (bound(x, 0.5).x0 == 2).all()
    assert (bound(x, 0.5, shift=3.0).x0 == 3).all()
    assert (bound.under(sf.EDM(t_min=0.1, t_max=9.0))(x, 1.0).x0 == 2).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sf.Gaussian(sf.VP(), MEAN, torch.eye(3)), "disagree"),
        (lambda: sf.Gaussian(sf.VP(), MEAN, tensor(1, 2, 0, 1).reshape(2, 2)), "symmetric"),
        (lambda: sf.Gaussian(sf.VP(), MEAN, tensor(1, 2, 2, 1).reshape(2, 2)), "semi-definite"),
        (lambda: sf.Mixture(sf.VP(), tensor(1, 0), torch.ones(2, 1), torch.ones(2, 1, 1)), "posit"),
        (lambda: sf.Empirical(sf.VP(), torch.ones(3)), r"needs \(N, ...\)"),
        (lambda: gaussian(sf.VP())(torch.ones(4, 3), 0.5), "takes batches of samples of shape"),
        (lambda: gaussian(sf.VP())(torch.ones(4, 2), torch.ones(3)), "t has shape"),
    ],
)
def test_an_impossible_field_or_call_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "make", [sf.Estimate.from_eps, sf.Estimate.from_score], ids=["eps", "score"]
)
@pytest.mark.parametrize("t", [1.0, torch.tensor([0.5, 1.0])], ids=["one time", "one for each"])
def test_noise_and_score_are_refused_where_they_tell_nothing_of_the_data(make, t):
    process, x = sf.Flow(t_max=1.0), torch.zeros(2, 3)
    with pytest.raises(
        ValueError, match="alpha = 0 at t = 1, where noise and score do not determine"
    ):
        make(x, sf.Instant.of(process, t, x), x)


@pytest.mark.parametrize("process", [sf.Flow(), sf.Cosine()], ids=["Flow", "Cosine"])
def test_a_time_in_single_precision_may_be_the_end_of_the_interval(process):
    """Rounding puts 0.999 above itself."""
    field, x = mixture(process), torch.zeros(2, 2)
    for t in (torch.tensor(0.999), torch.full((2,), 0.999)):
        torch.testing.assert_close(field(x, t).x0, field(x, 0.999).x0)


@pytest.mark.parametrize("t", [0.0, 1.5, math.nan])
def test_a_call_outside_the_interval_is_refused(t):
    with pytest.raises(ValueError, match=r"a call of the field at t = .*, outside \[1e-05, 1.0\]"):
        mixture(sf.VP())(torch.zeros(2, 2), t)
