"""Products of fields with covariances: posteriors of several observations, against closed forms."""

import pytest
import torch
from cases import PROCESS_IDS, PROCESSES, interior_times, normal

import scorefield as sf

NOISE = torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64)
OBSERVED = torch.tensor([[0.6, -0.4], [0.1, 0.3], [1.2, -0.2]], dtype=torch.float64)
PRIOR_MEAN = torch.tensor([0.4, -0.3], dtype=torch.float64)
PRIOR = torch.tensor([[0.9, 0.4], [0.4, 0.5]], dtype=torch.float64)


def posterior(mean, covariance, observed, noise=NOISE):
    """The Gaussian of x0 from N(mean, covariance), given ``observed = x0 + noise`` each."""
    precision = torch.linalg.inv(covariance) + len(observed) * torch.linalg.inv(noise)
    total = torch.linalg.inv(covariance) @ mean + torch.linalg.inv(noise) @ observed.sum(0)
    return torch.linalg.inv(precision) @ total, torch.linalg.inv(precision)


def composed(process, observed=OBSERVED):
    """The product of one posterior for each observation and the prior."""
    moments = [posterior(PRIOR_MEAN, PRIOR, row[None]) for row in observed]
    moments.append((PRIOR_MEAN, PRIOR))
    weights = [1.0] * len(observed) + [1.0 - len(observed)]
    fields = [sf.Gaussian(process, *each) for each in moments]
    return sf.Product(fields, weights, covariances=torch.stack([c for _, c in moments]))


@pytest.mark.parametrize("name", PROCESS_IDS)
def test_posteriors_of_gaussians_compose_exactly_at_every_noise_level(name):
    process = PROCESSES[name]
    product, exact = (
        composed(process),
        sf.Gaussian(process, *posterior(PRIOR_MEAN, PRIOR, OBSERVED)),
    )
    torch.testing.assert_close(product.mean, exact.mean)
    torch.testing.assert_close(product.variance, exact.variance)
    x = normal(6, 2)
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    for t in torch.cat([ends, interior_times(process)]):
        ours, truth = product(x, t), exact(x, t)
        torch.testing.assert_close(ours.x0, truth.x0, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(ours.eps, truth.eps, rtol=1e-7, atol=1e-7)
    each = interior_times(process, 6)
    torch.testing.assert_close(product(x, each).x0, exact(x, each).x0, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 2.0), (3.0, -0.5)])
def test_a_product_of_gaussians_of_any_weights_is_exact(weights):
    process = sf.VP()
    covariances = torch.stack([PRIOR, 4 * NOISE])
    means = torch.stack([PRIOR_MEAN, -PRIOR_MEAN])
    fields = [sf.Gaussian(process, m, c) for m, c in zip(means, covariances, strict=True)]
    product = sf.Product(fields, weights, covariances=covariances)
    inverses = [w * torch.linalg.inv(c) for w, c in zip(weights, covariances, strict=True)]
    covariance = torch.linalg.inv(sum(inverses))
    mean = covariance @ sum(p @ m for p, m in zip(inverses, means, strict=True))
    exact = sf.Gaussian(process, mean, covariance)
    x = normal(6, 2)
    for t in interior_times(process):
        torch.testing.assert_close(product(x, t).score, exact(x, t).score, rtol=1e-8, atol=1e-8)
        alpha, sigma = process.coefficients(t)
        ours = product(x, t)
        torch.testing.assert_close(alpha * ours.x0 + sigma * ours.eps, x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", [sf.Heun(), sf.EulerMaruyama()], ids=["ode", "sde"])
def test_samples_have_the_moments_of_the_joint_posterior(solver):
    """Within 4 standard errors and the steps' own error, in which (1) is 10 times too narrow."""
    mean, covariance = posterior(PRIOR_MEAN, PRIOR, OBSERVED)
    n = 3000
    x = sf.sample(composed(sf.VP()), n, solver, 100, batch_size=n).double()
    off = (x.mean(0) - mean) / (covariance.diag() / n).sqrt()
    assert float(off.abs().max()) < 4
    variance = covariance.diag()
    spread = ((variance[:, None] * variance + covariance**2) / n).sqrt()
    off = (torch.cov(x.T) - covariance).abs() - 0.02 * covariance.abs()
    assert bool((off < 4 * spread).all())


def test_posteriors_of_a_mixture_compose_nearly():
    """A prior of three modes and ten observations: nearer by far than the sum of scores."""
    process = sf.VP()
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[1.5, 0.2], [-1.0, 1.0], [-0.3, -1.4]], dtype=torch.float64)
    parts = 0.2 * torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    noise, normal_at = torch.eye(2).double(), torch.distributions.MultivariateNormal

    def given(observed):
        moments = [posterior(m, c, observed, noise) for m, c in zip(means, parts, strict=True)]
        # p(y) = p(x0) p(y | x0) / p(x0 | y) at any x0
        evidence = torch.stack(
            [
                normal_at(m, c).log_prob(m)
                + sum(normal_at(m, noise).log_prob(row) for row in observed)
                - normal_at(*after).log_prob(m)
                for m, c, after in zip(means, parts, moments, strict=True)
            ]
        )
        mixed = (weights.log() + evidence).softmax(0)
        return sf.Mixture(process, mixed, *map(torch.stack, zip(*moments, strict=True)))

    def covariance(field):
        middle = field.weights @ field.means
        outer = torch.einsum("k,kd,ke->de", field.weights, field.means, field.means)
        within = torch.einsum("k,kde->de", field.weights, field.covariances)
        return within + outer - middle[:, None] * middle

    observed = normal(10, 2, seed=5) + OBSERVED[0]
    fields = [*(given(row[None]) for row in observed), given(observed[:0])]
    each = [1.0] * len(observed) + [1.0 - len(observed)]
    covariances = torch.stack([covariance(field) for field in fields])
    truth = given(observed).data(normal(1000, 2), torch.rand(1000, dtype=torch.float64))

    def distance(**settings):
        product = sf.Product(fields, each, **settings)
        x = sf.sample(product, 1000, sf.Heun(), 40, batch_size=1000)
        return sf.metrics.energy_distance(x.double(), truth)

    assert 4 * distance(covariances=covariances) < distance()


def gaussians():
    return [sf.Gaussian(sf.VP(), PRIOR_MEAN, PRIOR)] * 2


@pytest.mark.parametrize(
    ("weights", "covariances", "message"),
    [
        ((1.0, 1.0), PRIOR, r"give one for each field, \(2, 2, 2\)"),
        ((1.0, 1.0), torch.stack([PRIOR, 0 * PRIOR]), "symmetric and positive definite"),
        ((1.0, -2.0), torch.stack([PRIOR, PRIOR]), "must be wider than the others"),
    ],
)
def test_covariances_of_no_product_are_rejected(weights, covariances, message):
    with pytest.raises(ValueError, match=message):
        sf.Product(gaussians(), weights, covariances=covariances)


def test_a_product_with_covariances_has_no_likelihood():
    with pytest.raises(ValueError, match="a Product has no density"):
        sf.log_prob(composed(sf.VP()), torch.zeros(2, 2))
