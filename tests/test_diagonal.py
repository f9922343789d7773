"""Processes with one noise level per coordinate: their law, solvers, likelihoods and refusals."""

import functools
import math

import pytest
import scipy.integrate
import torch
from cases import tensor

import scorefield as sf
from scorefield.evaluate.certify import affine_moments
from scorefield.process import check_times
from scorefield.training.objective import Objective, Simple, UniformTimes

WEIGHTS = tensor(0.4, 0.6)
MEANS = torch.tensor([[0.8, -0.5], [-0.6, 0.4]], dtype=torch.float64)
COVARIANCES = tensor([[0.3, 0.18], [0.18, 0.15]], [[0.2, -0.18], [-0.18, 0.4]])
START, END = 0.8, 0.15
DECAY = tensor(0.2, 1.5)


def rotation(angle):
    return tensor([math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)])


def rates():
    """Return two processes given by a drift and a diffusion for each coordinate."""
    drifts = (lambda t: -1 - t, lambda t: -0.3 + 0 * t)
    diffusions = (lambda t: 1 + t, lambda t: 0.5 + t**2)
    return drifts, diffusions


def time(t):
    return torch.tensor(t, dtype=torch.float64)


@functools.cache
def by_sde():
    return sf.PerCoordinate(
        [sf.LinearSDE(*pair, t_min=1e-3) for pair in zip(*rates(), strict=True)]
    )


PROCESSES = {
    "Whitening": sf.Whitening(sf.VP(), tensor(2.0, 0.3)),
    "Blurring": sf.Blurring(sf.VP(beta_max=6.0), DECAY),
    "PerCoordinate": by_sde(),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def mixture(process):
    return sf.Mixture(process, WEIGHTS, MEANS, COVARIANCES)


def log_density(x, alpha, sigma, weights=WEIGHTS, means=MEANS, covariances=COVARIANCES):
    """Return the log-density of the noised mixture by its definition."""
    parts = []
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        noised = alpha[:, None] * covariance * alpha + torch.diag(sigma**2)
        law = torch.distributions.MultivariateNormal(alpha * mean, noised)
        parts.append(law.log_prob(x) + weight.log())
    return torch.stack(parts).logsumexp(0)


def points(count=16):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_in_a_turned_frame_the_kernel_solves_the_moment_equations_of_matrices():
    frame, (drifts, diffusions) = rotation(0.7), rates()

    def matrix(values):
        return lambda t: frame @ torch.diag(torch.stack([value(t) for value in values])) @ frame.T

    phi, covariance = sf.moments(matrix(drifts), matrix(diffusions), 0.8, dim=2)
    alpha, sigma = by_sde().coefficients(time(0.8))
    torch.testing.assert_close(frame @ torch.diag(alpha) @ frame.T, phi, rtol=1e-8, atol=1e-9)
    noise = frame @ torch.diag(sigma**2) @ frame.T
    torch.testing.assert_close(noise, covariance, rtol=1e-8, atol=1e-9)


def test_drift_and_diffusion_of_each_coordinate_are_its_own():
    process, t = by_sde(), tensor(0.1, 0.5, 0.9)
    drifts, diffusions = rates()
    lifted = process.lift(t)
    for derived, given in ((process.drift, drifts), (process.diffusion, diffusions)):
        expected = torch.stack([value(t) for value in given], -1)[:, None]
        torch.testing.assert_close(derived(lifted), expected, rtol=1e-6, atol=1e-8)
    blurring = sf.Blurring(sf.VP(), DECAY)
    expected = (1 + DECAY) * sf.VP().drift(time(0.4))
    torch.testing.assert_close(blurring.drift(time(0.4)), expected, rtol=1e-9, atol=0)


@every_process
def test_exact_fields_have_the_density_of_noised_data_and_its_gradient(process):
    field, t = mixture(process), time(0.3)
    x = points().requires_grad_()
    density = log_density(x, *process.coefficients(t))
    torch.testing.assert_close(field.log_prob(x, t), density)
    score = torch.autograd.grad(density.sum(), x)[0]
    torch.testing.assert_close(field(x, t).score, score)
    each = torch.full((16,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(field(x, each).score, score)
    estimate = field(x, t)
    rebuilt = process.perturb(estimate.x0, t, estimate.eps)
    torch.testing.assert_close(rebuilt, x)


def test_the_field_of_a_data_set_is_the_mixture_of_its_points():
    process, data = PROCESSES["Blurring"], points(6)
    narrow = torch.full((6, 1, 1), 1e-12, dtype=torch.float64) * torch.eye(2)
    one = sf.Empirical(process, data)
    two = sf.Mixture(process, torch.ones(6), data, narrow)
    torch.testing.assert_close(one(points(), 0.2).x0, two(points(), 0.2).x0, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        one.log_prob(points(), 0.2), two.log_prob(points(), 0.2), rtol=1e-6, atol=1e-8
    )


@pytest.fixture(scope="module")
def path():
    """Return the start of a path under the process with decay, and its end by SciPy."""

    def velocity(t, y):
        y = torch.tensor(y).reshape(-1, 2).requires_grad_()
        beta, total = 0.1 + 5.9 * t, t * (0.1 + 0.5 * t * 5.9)
        alpha, variance = time(math.exp(-total / 2)), time(-math.expm1(-total))
        drift = -0.5 * beta * (1 + DECAY)
        squared = beta * alpha**2 - 2 * drift * variance  # g^2 = (sigma^2)' - 2 f sigma^2
        density = log_density(y, alpha ** (1 + DECAY), variance.sqrt().expand(2))
        score = torch.autograd.grad(density.sum(), y)[0]
        return (drift * y - 0.5 * squared * score).detach().flatten().numpy()

    begin = points()
    solution = scipy.integrate.solve_ivp(
        velocity, (START, END), begin.flatten().numpy(), method="DOP853", rtol=1e-11, atol=1e-12
    )
    return begin, torch.tensor(solution.y[:, -1]).reshape(-1, 2)


def end(solver, path, times):
    state = sf.State(path[0], time(START), sf.Noise(0, torch.arange(16)))
    *_, state = sf.integrate(mixture(PROCESSES["Blurring"]), solver, state, times)
    return float((state.x - path[1]).norm(dim=1).mean())


ODE = [
    *(sf.Euler(), sf.Midpoint(), sf.Heun(), sf.Bosh3(), sf.RK4(), sf.Tsit5()),
    *(sf.DDIM(), sf.EulerMaruyama(0.0), sf.StochasticHeun(0.0), sf.Reversible(sf.Heun())),
    *(sf.Multistep(order, kind()) for order in (2, 3) for kind in (
        sf.DataPrediction, sf.NoisePrediction, sf.AnglePrediction)),
    *(sf.Multistep(order, corrector=True) for order in (2, 3)),
    *(sf.Singlestep(order, kind()) for order in (2, 3) for kind in (
        sf.DataPrediction, sf.NoisePrediction, sf.AnglePrediction)),
]  # fmt: skip


@pytest.mark.parametrize("solver", ODE, ids=repr)
def test_solvers_of_the_ode_converge_at_their_order_to_the_path_of_scipy(solver, path):
    process = PROCESSES["Blurring"]
    steps = (8, 16) if solver.calls > 3 else (32, 64)
    coarse, fine = (
        end(solver, path, sf.even_log_snr(process, n, start=START, end=END)) for n in steps
    )
    assert math.log2(coarse / fine) > solver.order - 0.25
    assert fine < {1: 3e-2, 2: 1e-3, 3: 1e-4}.get(solver.order, 1e-5)


def test_adaptive_steps_come_as_near_as_their_tolerance(path):
    control = sf.Adaptive(rtol=1e-6, atol=1e-6, start=START, end=END)
    assert end(sf.Dopri5(), path, control) < 1e-5


SDE = [
    sf.EulerMaruyama(),
    sf.StochasticHeun(),
    sf.DDIM(1.0),
    sf.DDPM("forward"),
    sf.ReverseDiffusion(),
    sf.Multistep(2, eta=1.0),
    sf.Ancestral(sf.DDIM()),
    sf.Churn(sf.Heun(), 8.0, 16),
    sf.Restart(sf.Heun(), low=0.8, high=1.5),
    sf.Program((sf.Heun(), sf.EulerMaruyama()), (1.5,)),
    sf.PredictorCorrector(sf.DDIM(), sf.Langevin(0.05)),
]


@pytest.mark.parametrize("solver", SDE, ids=repr)
def test_the_distribution_of_solvers_with_noise_converges(solver):
    process = PROCESSES["Blurring"]
    mean, covariance = tensor(0.8, -0.5), tensor([0.9, 0.4], [0.4, 0.5])
    field, errors = sf.Gaussian(process, mean, covariance), []
    for steps in (16, 32):
        times = sf.even_log_snr(process, steps, start=0.95, end=END)
        got, spread = affine_moments(field, solver, times)
        alpha, sigma = process.coefficients(time(END))
        exact = alpha[:, None] * covariance * alpha + torch.diag(sigma**2)
        errors.append(float((got - alpha * mean).norm() + (spread - exact).norm()))
    assert errors[1] < 0.1
    if not isinstance(solver, sf.PredictorCorrector | sf.Churn):  # of a fixed amount of noise
        assert errors[1] < 0.56 * errors[0]


@every_process
def test_samples_of_the_default_plan_have_the_moments_of_the_data(process):
    field = mixture(process)
    x = sf.sample(field, 4000, nfe=12)
    torch.testing.assert_close(x.double().mean(0), field.mean, rtol=0, atol=0.04)
    centred = MEANS - field.mean
    spread = torch.einsum(
        "k,kij->ij", WEIGHTS, COVARIANCES + centred[:, :, None] * centred[:, None]
    )
    torch.testing.assert_close(torch.cov(x.double().T), spread, rtol=0, atol=0.05)


def test_whitening_is_the_scalar_process_of_scaled_data():
    scale = tensor(2.0, 0.3)
    scaled = sf.Mixture(sf.VP(), WEIGHTS, MEANS / scale, COVARIANCES / scale[:, None] / scale)
    begin, times = points(), sf.even_log_snr(sf.VP(), 12)
    for solver in (sf.Heun(), sf.DDIM(), sf.Multistep(3, sf.DataPrediction())):
        ends = []
        for field, unit in ((mixture(PROCESSES["Whitening"]), scale), (scaled, 1.0)):
            state = sf.State(unit * begin, times[0], sf.Noise(0, torch.arange(16)))
            *_, state = sf.integrate(field, solver, state, times)
            ends.append(state.x / unit)
        torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "process",
    [
        PROCESSES["Whitening"],
        sf.Blurring(sf.VP(), DECAY),
        sf.PerCoordinate([sf.VP(), sf.VE()]),
    ],
    ids=repr,
)
def test_likelihoods_are_those_of_the_data_with_the_lowest_noise(process):
    field = mixture(process)
    x = field.data(points(8), torch.linspace(0.05, 0.95, 8, dtype=torch.float64))
    alpha, sigma = process.coefficients(time(process.t_min))
    exact = log_density(alpha * x, alpha, sigma) + alpha.log().sum()
    finer = sf.log_prob(field, x, nfe=160)
    for result, tolerance in ((sf.log_prob(field, x), 5e-4), (finer, 5e-5)):
        assert float((result.value - exact).square().mean().sqrt()) < tolerance
    assert bool((finer.prior_mismatch.abs() < 1e-4).all())
    probed = sf.log_prob(field, x, probes=16)
    assert float(((probed.value - exact) / probed.stderr).abs().mean()) < 2


def test_codes_lead_back_to_their_data():
    field = mixture(PROCESSES["Blurring"])
    x = field.data(points(), torch.linspace(0.05, 0.95, 16, dtype=torch.float64))
    codes = sf.encode(field, x)
    assert bool((codes.error < 1e-3).all())
    torch.testing.assert_close(sf.decode(field, codes).x, x, rtol=0, atol=2e-3)


class Right(torch.nn.Module):
    """The network whose output is right for data at one point."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, x, label):
        alpha, sigma = self.process.coefficients(label.reshape(-1, 1))
        return (x - alpha) / sigma


@every_process
def test_the_loss_of_the_right_network_is_zero_and_it_samples_its_point(process):
    field = sf.Denoiser(Right(process), process, sf.Eps(), (2,), 1.0, 0.1, label=lambda _, t: t)
    t = torch.linspace(0.01, process.t_max, 16, dtype=torch.float64)
    loss = Objective(Simple(), UniformTimes()).loss(field, torch.ones(16, 2).double(), t, points())
    assert float(loss.max()) < 1e-20
    x = sf.sample(field, 4, nfe=10)
    torch.testing.assert_close(x, torch.ones(4, 2), rtol=0, atol=1e-3)


class Own(sf.Process):
    """One value per coordinate, without its declaration."""

    def alpha(self, t):
        return torch.exp(-t[..., None] * DECAY)

    def sigma(self, t):
        return (-torch.expm1(-2 * t[..., None] * DECAY)).sqrt()


def diagonal():
    return mixture(PROCESSES["Blurring"])


OTHERS = {
    "two levels": (lambda: sf.tune(diagonal(), 8), "tuning: needs one noise level"),
    "bound": (lambda: sf.elbo(diagonal(), points()), "elbo: needs one noise level"),
    "audit": (lambda: sf.audit(diagonal(), points(64)), "audit: needs one noise level"),
    "certify": (lambda: sf.certify(sf.Multistep(4), diagonal().process), r'write start="rising"'),
    "under": (lambda: diagonal().under(sf.EDM()), "under: needs one noise level"),
    "under it": (lambda: mixture(sf.VP()).under(by_sde()), "under: needs one noise level"),
    "start": (lambda: sf.sample(diagonal(), 4, sf.Multistep(4), 8), r'write start="rising"'),
    "own time": (
        lambda: sf.sample(diagonal(), 4, sf.Multistep(2, quadrature=sf.Exact(sf.OwnTime())), 8),
        "OwnTime: needs one noise level",
    ),
    "adaptive": (
        lambda: sf.log_prob(diagonal(), points(), times=sf.Adaptive()),
        "one noise level per coordinate give a number of steps",
    ),
    "moments": (
        lambda: sf.log_prob(diagonal(), points(), prior=sf.Moments.of(points())),
        "diagonal=True",
    ),
    "shape": (lambda: sf.Gaussian(by_sde(), torch.zeros(3), torch.eye(3)), r"shape=\(3,\)"),
    "undeclared": (Own, "set `coordinates`"),
    "vectors": (
        lambda: sf.LinearSDE(lambda t: -t[..., None] * DECAY, torch.ones_like),
        "give PerCoordinate a LinearSDE for each",
    ),
    "constant vectors": (
        lambda: sf.LinearSDE(lambda t: -DECAY, torch.ones_like),
        "drift_fn: returns shape",
    ),
    "grid": (lambda: by_sde().alpha(tensor(0.1, 0.2)), r"process.lift\(t\)"),
    "scale": (lambda: sf.Whitening(sf.VP(), tensor(1.0, -1.0)), "must be positive, not -1"),
    "decay": (lambda: sf.Blurring(sf.VP(), tensor(-1.0)), "of the shape of one sample|0 or more"),
    "twice": (lambda: sf.Whitening(by_sde(), tensor(1.0, 1.0)), "one value for all coordinates"),
    "none": (lambda: sf.PerCoordinate([]), "give one for each coordinate"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_needs_one_noise_level_is_rejected_by_name(name):
    call, message = OTHERS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_derivative_of_several_values_is_not_their_sum():
    class Declared(Own):
        coordinates = (2,)

        def alpha(self, t):
            return torch.exp(-t * DECAY)

        def sigma(self, t):
            return (-torch.expm1(-2 * t * DECAY)).sqrt()

    t = time(0.3)
    torch.testing.assert_close(Declared().rates(t)[0], -DECAY * torch.exp(-0.3 * DECAY))
    assert check_times(Declared(), tensor(0.9, 0.5)).shape == (2, 1, 1)
