"""Fields of coupled data and noise: each use has the right distribution, or is refused by name."""

import dataclasses
import math

import pytest
import torch
from cases import COVARIANCE, MEAN, tensor

import scorefield as sf
from scorefield.evaluate.certify.subjects import ODE_SOLVERS, SDE_SOLVERS

STEPS = 16
NO_SCORE = "has no score, because its data and noise were coupled"
PROCESSES = {"Flow": sf.Flow(), "VP": sf.VP()}


def coupled(process=None, correlation=1.0):
    return sf.CoupledGaussian(process or sf.Flow(), MEAN, COVARIANCE, correlation)


def exact_ends(field, seed, n):
    """Return where the exact flow carries the prior's samples: affine maps between Gaussians."""
    process, t = field.process, field.process.t_max
    x = sf.prior(field, n, seed=seed, dtype=torch.float64).x
    alpha, sigma = (float(c) for c in process.coefficients(tensor(t)[0]))
    variances, basis = torch.linalg.eigh(COVARIANCE)
    s = variances.sqrt()
    w = (alpha * s) ** 2 + 2 * alpha * sigma * field.correlation * s + sigma**2
    return MEAN + (((x - alpha * MEAN) @ basis) * s / w.sqrt()) @ basis.T


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_every_solver_of_the_ode_follows_the_coupled_flow(name, process):
    field = coupled(process, 0.8)
    times = sf.balanced(process, STEPS, data_std=field.data_std)
    x = sf.sample(field, 64, ODE_SOLVERS[name](STEPS), times, seed=1, dtype=torch.float64)
    error = (x - exact_ends(field, 1, 64)).abs().max()
    assert error < (0.2 if ODE_SOLVERS[name](STEPS).order == 1 else 0.03), float(error)


def mask():
    return sf.Mask(torch.tensor([True, False]))


def corrected(corrector):
    return sf.PredictorCorrector(sf.DDIM(), corrector)


REPLACED = sf.Replacement(torch.tensor([True, False]), tensor(0.3, 0.0))
NOISY = {
    **{name: make(STEPS) for name, make in SDE_SOLVERS.items()},
    "Langevin": corrected(sf.Langevin()),
    "Replacement": corrected(REPLACED),
    "RePaint": sf.RePaint(sf.DDIM(), REPLACED),
}


@pytest.mark.parametrize("name", NOISY)
def test_every_solver_with_noise_is_refused(name):
    field, solver = coupled(), NOISY[name]
    with pytest.raises(ValueError, match=f"solver=.*{NO_SCORE}"):
        sf.sample(field, 4, solver, STEPS)
    with pytest.raises(ValueError, match=NO_SCORE):
        next(sf.integrate(field, solver, sf.prior(field, 4), 4))
    with pytest.raises(ValueError, match=NO_SCORE):
        solver.advance(field, sf.prior(field, 4), tensor(0.5)[0])
    assert sf.sample(coupled(correlation=0.0), 4, solver, 4).isfinite().all()


def test_noise_would_give_another_distribution_than_the_data():
    narrow = sf.CoupledGaussian(sf.Flow(), torch.zeros(1), 0.09 * torch.eye(1))
    assert not narrow.has_score
    assert float(sf.sample(narrow, 512, sf.Heun(), 24).std()) == pytest.approx(0.3, rel=0.1)
    narrow.has_score = True  # a wrong declaration
    for solver in (sf.EulerMaruyama(), sf.DDIM(1.0), sf.StochasticHeun()):
        assert float(sf.sample(narrow, 512, solver, 24).std()) < 0.2


def refused():
    field, y = coupled(), tensor(0.3, 0.0)
    potential = sf.Tilted
    yield "Tilted", lambda: potential(field, lambda x, t: x.sum(1))
    yield "Tilted, clean", lambda: potential(field, lambda x: x.sum(1), clean=True)
    yield "Product", lambda: sf.Product([field, field], (1.0, 1.0))
    yield "elbo", lambda: sf.elbo(field, torch.zeros(2, 2))
    yield "score", lambda: field(torch.zeros(2, 2), 0.5).score
    yield (
        "score of a view",
        lambda: field.under(sf.Cosine(t_min=0.05, t_max=0.9))(torch.zeros(2, 2), 0.5).score,
    )
    yield "score of a guided field", lambda: sf.Clipped(field)(torch.zeros(2, 2), 0.5).score
    for method in ("mmps", "pigdm", "dps", "replacement", "repaint"):
        yield (
            method,
            lambda method=method: sf.restore(
                field, y[None].where(torch.tensor([True, False]), math.nan), method=method, n=2
            ),
        )
    for cls in (sf.MMPS, sf.PiGDM, sf.DPS):
        yield cls.__name__, lambda cls=cls: cls(field, mask(), y)


REFUSED = dict(refused())


@pytest.mark.parametrize("name", REFUSED)
def test_every_use_of_a_score_is_refused(name):
    with pytest.raises(ValueError, match="no score, because its data and noise were coupled"):
        REFUSED[name]()


def test_an_own_solver_that_uses_the_score_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Own(sf.OneStep):
        def step(self, field, state, s):
            return state.x + (s - state.t) * field(state.x, state.t).score

    with pytest.raises(ValueError, match=f"Estimate.score: this field {NO_SCORE}"):
        sf.sample(coupled(), 4, Own(), 4)


def test_guidance_by_differences_and_clipping_keep_the_flow():
    class Both(sf.ScoreField):
        """A field with a class, and one without: the same distribution moved by 1."""

        def __init__(self):
            super().__init__(sf.Flow(), (2,), MEAN, COVARIANCE.diagonal())
            self.base, self.moved = (
                coupled(),
                sf.CoupledGaussian(sf.Flow(), MEAN + 1, COVARIANCE),
            )

        def estimate(self, x, at, y=None):
            part = self.base if y is None else self.moved
            inner = part(x, at)
            return sf.Estimate(x, at, inner.basis, inner.of_x0, inner.of_eps)

    field = Both()
    assert not field.has_score
    # the velocities are linear with the same slope, so a scale of 3 moves the samples by 3
    guided = sf.ClassifierFree(field, 3.0).condition_on(y=1)
    x = sf.sample(guided, 64, sf.Heun(), 40, dtype=torch.float64)
    plain = sf.sample(field, 64, sf.Heun(), 40, dtype=torch.float64)
    assert torch.allclose(x, plain + 3, atol=0.02)
    wide = sf.Clipped(coupled(), 100.0)
    assert torch.allclose(sf.sample(wide, 64, sf.Heun(), 40, dtype=torch.float64), plain, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("steps", [None, 40])
def test_the_likelihood_of_a_coupled_flow_is_that_of_its_data(process, steps):
    field = coupled(process)
    x = sf.Gaussian(process, MEAN, COVARIANCE).data(
        torch.randn(16, 2, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
    )
    exact = torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(x)
    solver = {} if steps is None else {"solver": sf.RK4(), "times": steps}
    value = sf.log_prob(field, x, **solver).value
    assert (value - exact).abs().max() < 2e-3


def test_codes_of_a_coupled_flow_are_the_noise():
    field = coupled()
    z = torch.randn(64, 2, dtype=torch.float64)
    variances, basis = torch.linalg.eigh(COVARIANCE)
    x = MEAN + z @ (basis * variances.sqrt()) @ basis.T
    codes = sf.encode(field, x)
    assert (codes.z - z).abs().max() < 0.01
    assert codes.error.max() < 1e-5


def test_the_marginal_density_is_the_closed_form():
    field, x = coupled(sf.VP(), 0.6), torch.randn(8, 2, dtype=torch.float64)
    eps = torch.randn(400_000, 2, dtype=torch.float64)
    rest = torch.randn_like(eps)
    variances, basis = torch.linalg.eigh(COVARIANCE)
    x0 = MEAN + ((0.6 * eps @ basis + 0.8 * rest) * variances.sqrt()) @ basis.T
    xt = field.process.perturb(x0, 0.3, eps)
    law = torch.distributions.MultivariateNormal(xt.mean(0), xt.T.cov())
    assert torch.allclose(field.log_prob(x, 0.3), law.log_prob(x), atol=0.05)
    # both means regress on x with slope 1
    estimate = field(xt, 0.3)
    for mean, value in ((estimate.x0, x0), (estimate.eps, eps)):
        centred = mean - mean.mean(0)
        assert torch.allclose((centred * (value - mean)).mean(0), tensor(0.0, 0.0), atol=5e-3)


def test_a_correlation_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"correlation=1\.5"):
        coupled(correlation=1.5)
