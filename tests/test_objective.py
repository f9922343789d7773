"""The loss is the distance between scores it claims to be, whatever the network predicts."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import (
    ALL_PROCESSES,
    PARAMETRIZATIONS,
    PROCESS_IDS,
    interior_times,
    label,
    normal,
    tensor,
)
from scipy import stats
from torch import nn

import scorefield as sf
from scorefield.networks import MLP
from scorefield.training import (
    EDMWeighting,
    LikelihoodWeighting,
    LogNormalTimes,
    MinSNR,
    Objective,
    Simple,
    UniformTimes,
    Weighting,
)

WEIGHTINGS = [Simple(), LikelihoodWeighting(), EDMWeighting(data_std=0.6), MinSNR(gamma=3.0)]
TIMES = [UniformTimes(), LogNormalTimes(), LogNormalTimes(mean=1.0, std=3.0)]

every_process = pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
every_parametrization = pytest.mark.parametrize("parametrization", PARAMETRIZATIONS, ids=label)
every_weighting = pytest.mark.parametrize("weighting", WEIGHTINGS, ids=label)


def random_network(dim, dtype=torch.float64):
    """A network none of whose layers is zero, so that its error is not the target's size."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = MLP(dim, width=16, depth=1)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    return network.to(dtype)


def instant(process, t):
    return sf.Instant(process, t, *process.coefficients(t))


def lambda_by_hand(weighting, process, t):
    """``lambda(t)``, written anew from the definitions of each paper."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    snr = (alpha / sigma) ** 2
    if isinstance(weighting, Simple):  # unit weight on eps, and score = -eps / sigma
        return sigma**2
    if isinstance(weighting, LikelihoodWeighting):  # g^2 = -2 sigma^2 d(log alpha/sigma)/dt
        t = t.clone().requires_grad_()
        (slope,) = torch.autograd.grad(process.half_log_snr(t).sum(), t)
        return -2 * sigma**2 * slope
    # x0 = (x + sigma^2 score) / alpha turns a weight on x0 into one on the score
    on_x0 = (sigma**2 / alpha) ** 2
    if isinstance(weighting, EDMWeighting):
        ratio, d = sigma / alpha, weighting.data_std  # EDM's own noise level, at alpha = 1
        return (ratio**2 + d**2) / (ratio * d) ** 2 * on_x0
    return snr.clamp(max=weighting.gamma) * on_x0  # min-SNR: min(SNR, gamma) on x0


@every_weighting
@every_parametrization
@every_process
def test_the_loss_is_the_weighted_distance_between_scores(process, parametrization, weighting):
    """Equation (1), formed from the field's own score and the score of the kernel, -eps/sigma."""
    denoiser = sf.Denoiser(random_network(3), process, parametrization, (3,))
    t = interior_times(process, 7)
    x0, eps = normal(7, 3, seed=2), normal(7, 3, seed=3)
    x = process.perturb(x0, t, eps)
    with torch.no_grad():
        found = Objective(weighting, UniformTimes()).loss(denoiser, x0, t, eps)
        distance = (denoiser(x, t).score + eps / process.sigma(t)[:, None]).square().mean(1)
    assert found.shape == (7,)
    expected = lambda_by_hand(weighting, process, t) * distance
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@every_process
def test_sigma_squared_gives_ddpms_mean_squared_error_of_eps(process):
    """Row 33: with lambda = sigma^2 the loss is || eps - network(x_t) ||^2 and nothing else."""
    network = random_network(4, torch.float32)
    denoiser = sf.Denoiser(network, process, sf.Eps(), (4,))
    count = 64
    t = interior_times(process, count)
    x0, eps = normal(count, 4).float(), normal(count, 4, seed=1).float()
    with torch.no_grad():
        found = Objective(Simple(), UniformTimes()).loss(denoiser, x0, t, eps)
        x = process.perturb(x0, t, eps)
        output = network(x, sf.noise_label(process, t).float())
        expected = torch.stack(
            [nn.functional.mse_loss(a, b) for a, b in zip(output, eps, strict=True)]
        )
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


@every_process
def test_the_simple_weight_on_eps_is_one_in_float64(process):
    t = interior_times(process, 50)
    alpha, sigma = process.coefficients(t)
    weight = Simple()(instant(process, t)) * (alpha * sf.Eps()(alpha, sigma).out / sigma**2) ** 2
    assert (weight - 1).abs().max() < 1e-14


def test_the_likelihood_weight_of_vp_is_beta():
    t = torch.linspace(1e-5, 1, 101, dtype=torch.float64)
    found = LikelihoodWeighting()(instant(sf.VP(), t))
    torch.testing.assert_close(found, 0.1 + 19.9 * t, rtol=1e-9, atol=0)


def test_the_likelihood_weights_of_ve_and_flow_match_their_closed_forms():
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    ladder = 0.01 * 5000.0**t
    found = LikelihoodWeighting()(instant(sf.VE(), t))
    torch.testing.assert_close(found, ladder**2 * 2 * math.log(5000), rtol=1e-9, atol=0)
    found = LikelihoodWeighting()(instant(sf.Flow(), t))
    torch.testing.assert_close(found, 2 * t / (1 - t), rtol=1e-9, atol=0)


@pytest.mark.parametrize("d", [0.5, 1.0, 2.0])
def test_the_edm_weight_is_edms_lambda_in_the_space_of_x0(d):
    """Table 1 of Karras et al.: (s^2 + d^2) / (s d)^2, for x_0 and at alpha = 1."""
    s = tensor(0.002, 0.1, 0.5, 3.0, 80.0)
    on_x0 = EDMWeighting(d)(instant(sf.EDM(), s)) / s**4  # the score is (x0 - x) / s^2
    torch.testing.assert_close(on_x0, (s**2 + d**2) / (s * d) ** 2, rtol=1e-12, atol=0)


@every_process
def test_the_edm_weight_is_one_on_the_preconditioned_output(process):
    t = interior_times(process, 20)
    alpha, sigma = process.coefficients(t)
    out = sf.Preconditioned(0.7)(alpha, sigma).out
    weight = EDMWeighting(0.7)(instant(process, t)) * (alpha * out / sigma**2) ** 2
    torch.testing.assert_close(weight, torch.ones_like(weight), rtol=1e-12, atol=0)


@every_process
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_eps_by_min_of_snr_and_gamma_over_snr(process, gamma):
    t = interior_times(process, 40)
    alpha, sigma = process.coefficients(t)
    snr = (alpha / sigma) ** 2
    on_eps = MinSNR(gamma)(instant(process, t)) / sigma**2
    expected = torch.minimum(snr, torch.full_like(snr, gamma)) / snr
    torch.testing.assert_close(on_eps, expected, rtol=1e-12, atol=0)
    assert on_eps.min() < 0.2, "some level is beyond gamma, or nothing was tested"
    assert on_eps.max() == 1


def test_the_weight_is_formed_in_float64_before_it_meets_the_data():
    """At sigma = 3e-4, where float32 cannot tell alpha from 1, the loss is still the score's."""
    process = sf.VP(t_min=1e-6)
    t = tensor(1e-6)
    x0, eps = normal(1, 3), normal(1, 3, seed=1)
    for parametrization in PARAMETRIZATIONS:
        narrow, wide = (
            Objective(EDMWeighting(), UniformTimes()).loss(
                sf.Denoiser(random_network(3, dtype), process, parametrization, (3,)),
                x0.to(dtype),
                t,
                eps.to(dtype),
            )
            for dtype in (torch.float32, torch.float64)
        )
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=0)


def test_a_weighting_of_ones_own_needs_one_method():
    class Inverse(Weighting):
        def __call__(self, at):
            return 1 / (1 + at.sigma)

    process = sf.Flow()
    denoiser = sf.Denoiser(random_network(2), process, sf.V(), (2,))
    t, x0, eps = tensor(0.3, 0.6), normal(2, 2), normal(2, 2, seed=1)
    with torch.no_grad():
        found = Objective(Inverse(), UniformTimes()).loss(denoiser, x0, t, eps)
        score = denoiser(process.perturb(x0, t, eps), t).score
    expected = ((score + eps / t[:, None]) ** 2).mean(1) / (1 + t)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("weighting", [Simple(), EDMWeighting(), MinSNR()], ids=label)
@pytest.mark.parametrize("times", [UniformTimes(), LogNormalTimes()], ids=label)
def test_a_step_asks_the_process_once_for_its_coefficients_and_once_for_the_label(times, weighting):
    calls = []

    class Counted(sf.VP):
        def alpha(self, t):
            calls.append(t)
            return super().alpha(t)

    denoiser = sf.Denoiser(random_network(2), Counted(), sf.Preconditioned(), (2,))
    steps = sf.fit(denoiser, Objective(weighting, times), normal(20, 2).float())
    next(steps)
    calls.clear()
    next(steps)
    assert len(calls) <= 2


@pytest.mark.parametrize("shape", [(5,), (2, 6), (3, 4, 4)])
def test_one_time_for_all_or_one_per_sample_give_each_sample_its_own_loss(shape):
    process = sf.VP()
    denoiser = sf.Denoiser(random_network(math.prod(shape)), process, sf.V(), shape)
    objective = Objective(Simple(), UniformTimes())
    t = tensor(0.1, 0.4, 0.9)
    x0, eps = normal(3, *shape), normal(3, *shape, seed=1)
    with torch.no_grad():
        together = objective.loss(denoiser, x0, t, eps)
        alone = [objective.loss(denoiser, x0[[k]], t[k], eps[[k]]) for k in range(3)]
        shared = objective.loss(denoiser, x0, 0.4, eps)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-11, atol=0)
    torch.testing.assert_close(shared[1], together[1], rtol=1e-11, atol=0)


def test_the_exact_score_minimises_the_loss():
    """Row 29: the marginal score is the posterior mean of the kernel's, so nothing does better."""
    process, t, count = sf.VP(), 0.3, 20000
    truth = sf.Gaussian(process, torch.zeros(2).double(), tensor([1.0, 0.6], [0.6, 1.0]))

    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x, label):
            return self.factor * truth(x, t).eps

    x0 = truth.data(normal(count, 2), torch.rand(count, dtype=torch.float64))
    eps = normal(count, 2, seed=1)
    objective = Objective(Simple(), UniformTimes())
    losses = {
        factor: objective.loss(
            sf.Denoiser(Scaled(factor), process, sf.Eps(), (2,)), x0, t, eps
        ).mean()
        for factor in (0.9, 1.0, 1.1)
    }
    assert losses[1.0] < losses[0.9]
    assert losses[1.0] < losses[1.1]
    # and the least loss is the posterior variance of eps, tr(alpha^2 C / C_t) / 2
    alpha, sigma = process.coefficients(tensor(t)[0])
    e = tensor(1.6, 0.4)
    least = float((alpha**2 * e / (alpha**2 * e + sigma**2)).mean())
    assert losses[1.0].item() == pytest.approx(least, rel=4 * math.sqrt(2 / count))


@every_process
def test_uniform_times_have_uniform_quantiles(process):
    u = tensor(1e-9, 0.1, 0.25, 0.5, 0.9, 1 - 1e-9)
    expected = stats.uniform(process.t_min, process.t_max - process.t_min).ppf(u.numpy())
    np.testing.assert_allclose(UniformTimes()(process, u).numpy(), expected, rtol=1e-12)


@every_process
@pytest.mark.parametrize(("mean", "std"), [(-0.4, 1.4), (-1.2, 1.2)])
def test_log_normal_times_have_log_normal_quantiles_of_sigma_over_alpha(process, mean, std):
    u = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)
    t = LogNormalTimes(mean, std)(process, u)
    ratio = process.sigma(t) / process.alpha(t)
    ends = process.half_log_snr(tensor(process.t_max, process.t_min)).neg().exp()
    expected = stats.lognorm(s=std, scale=math.exp(mean)).ppf(u.numpy())
    expected = expected.clip(float(ends[1]), float(ends[0]))
    np.testing.assert_allclose(ratio.numpy(), expected, rtol=1e-8)
    assert (np.diff(expected) > 0).sum() > 30, "the interval holds most of the distribution"


@every_process
@pytest.mark.parametrize("times", TIMES, ids=label)
def test_times_never_leave_the_interval(process, times):
    u = torch.cat([tensor(1e-300, 1e-16, 1e-12, 1 - 1e-12, 1 - 2**-53), torch.rand(100).double()])
    t = times(process, u)
    assert t.shape == u.shape
    assert t.isfinite().all()
    assert (t >= process.t_min).all()
    assert (t <= process.t_max).all()


def test_times_reach_the_far_ends_in_float64():
    """A tail of one in 2^53 is not lost: erfinv saturates only where u itself does."""
    process = sf.EDM(t_min=1e-9, t_max=1e9)
    t = LogNormalTimes(0.0, 1.0)(process, tensor(2.0**-40, 1 - 2.0**-40))
    expected = stats.norm.ppf(float(Fraction(1, 2**40)))
    torch.testing.assert_close(t.log(), tensor(expected, -expected), rtol=1e-4, atol=0)
