"""Fields on spaces: solvers, samples, codes and likelihoods, against mixtures of heat kernels."""

import math

import pytest
import torch
from cases import MORE

import scorefield as sf
from scorefield.evaluate.certify.order import slope
from scorefield.solvers import Geodesic, State
from scorefield.spaces import SO3, Brownian, Euclidean, HeatMixture, Product, Sphere, Torus

F64 = torch.float64
POSES = Product(SO3(), Euclidean(3))
SPACES = [Sphere(2), Sphere(3), Torus(2), SO3(), POSES]
QUICK = [
    Sphere(2),
    Product(Torus(1), Euclidean(2)),
    *[pytest.param(space, marks=MORE) for space in SPACES[1:]],
]


def noise(count, seed=0):
    return sf.Noise(seed, torch.arange(count))


def like(count=1):
    return torch.zeros(count, 1, dtype=F64)


def mixture(space, count=3, std=0.4):
    z, _ = noise(count, 5).draw(space.shape, like())
    centres = Brownian(space).prior(0.0, 1.0, torch.tensor(1.0)).draw(z)
    weights = torch.arange(1.0, 1 + count)
    return HeatMixture(Brownian(space), weights, centres, std + 0.1 * torch.arange(count))


def end(field, solver, times, count, seed=1):
    """Return where a solver carries points of the prior, from the first time to the last."""
    times = torch.as_tensor(times, dtype=F64)
    z, after = noise(count, seed).draw(field.shape, like())
    begin = field.process.prior(field.mean, field.variance, times[0]).draw(z)
    *_, state = sf.integrate(field, solver, State(begin, times[0], after), times)
    return state.x


ORDERS = [
    (sf.Heun(), Sphere(2)),
    (sf.RK4(), Product(Torus(1), Euclidean(1))),
    *[
        pytest.param(solver, space, marks=MORE)
        for solver in (sf.Euler(), sf.Heun(), sf.RK4(), sf.Tsit5())
        for space in SPACES
    ],
]


@pytest.mark.parametrize(("solver", "space"), ORDERS, ids=str)
def test_a_solver_has_its_order_on_a_space_and_stays_on_it(solver, space):
    """Tsit5 converges faster here: on grids this coarse its error of order 6 is the largest."""
    field = mixture(space)
    counts = [{1: 32, 2: 10, 4: 6, 6: 8}[solver.calls] * 2**k for k in range(4)]

    def follow(rule, steps):
        return end(field, rule, sf.even_log_snr(field.process, steps, start=3.0, end=0.5), 3)

    truth = follow(sf.Dopri5(), 128 if solver.order > 2 else 50)
    errors = [float(space.distance(follow(solver, n), truth).mean()) for n in counts]
    order = slope(counts, errors)
    assert solver.order - 0.15 < order < solver.order + (0.15 if solver.order < 5 else 1.5)
    assert (space.project(truth) - truth).abs().max() < 1e-12


def test_on_a_euclidean_space_samples_are_those_of_edm():
    field = mixture(Euclidean(2))
    covariances = field.std[:, None, None] ** 2 * torch.eye(2, dtype=F64)
    flat = sf.Mixture(sf.EDM(0.01, 80.0), field.weights, field.centres, covariances)
    x = sf.sample(field, 8, sf.Heun(), 12, dtype=F64)
    times = sf.balanced(field.process, 12, data_std=field.data_std)
    expected = sf.sample(flat, 8, sf.Heun(), times, dtype=F64)
    assert field.data_std == pytest.approx(flat.data_std)
    assert (x - expected).abs().max() < 1e-9
    value = sf.log_prob(field, x).value
    assert (value - flat.log_prob(x, 0.01)).abs().max() < 1e-3


def moments(space, x):
    """Return averages of eigenfunctions of degrees 1 and 2, with their standard errors."""
    u = x.flatten(1)
    pairs = u[:, :, None] * u[:, None, :]
    values = torch.cat([u, pairs.flatten(1)], 1)
    return values.mean(0), values.std(0) / len(x) ** 0.5


@pytest.mark.parametrize("solver", [sf.EulerMaruyama(0.5), sf.DDIM(1.0)])
@pytest.mark.parametrize("space", [Sphere(2), pytest.param(SO3(), marks=pytest.mark.slow)])
def test_a_geodesic_random_walk_has_the_law_of_the_field(solver, space):
    field, count = mixture(space), 1500
    times = sf.even_log_snr(field.process, 24, start=4.0, end=0.3)
    x = end(field, solver, times, count)
    y, after = field.data(noise(count, 7), like(count))
    y, _ = space.heat_sample(y, 0.3**2, after)
    (one, error), (two, other) = moments(space, x), moments(space, y)
    assert ((one - two).abs() <= 4.5 * (error**2 + other**2).sqrt() + 0.01).all()


def test_the_mean_of_a_mixture_decays_as_the_eigenvalue():
    field = mixture(Sphere(2))
    x = sf.sample(field, 2000, nfe=16, dtype=F64)
    decay = (-(field.std**2)).exp()[:, None]
    mean = (field.weights[:, None] * decay * field.centres).sum(0)
    value, error = moments(Sphere(2), x)
    assert ((value[:3] - mean).abs() <= 4 * error[:3] + 0.005).all()


@pytest.mark.parametrize("space", QUICK, ids=str)
def test_likelihoods_are_exact_and_codes_come_back(space):
    field = mixture(space, 1 if space.volume == math.inf else 3)
    x, _ = field.data(noise(3, 3), like(3))
    result = sf.log_prob(field, x)
    error = result.value - field.log_prob(x, field.process.t_min)
    assert error.abs().max() < 1e-3
    assert (error.abs() <= result.solver_error + result.prior_mismatch.abs() + 1e-9).all()
    smooth = field.log_prob(x, 0.0)
    assert (result.value + result.truncation - smooth).abs().max() < 1e-3
    probes = sf.log_prob(field, x, probes=16)
    assert ((probes.value - result.value).abs() <= 4.5 * probes.stderr + 2e-3).all()
    nfe = None if space.volume < math.inf else 640
    codes = sf.encode(field, x, nfe=nfe)
    back = sf.decode(field, codes, nfe=nfe, check=False)
    assert codes.error.max() < 3e-6
    assert space.distance(back.x, x).max() < 1e-5


@MORE
def test_the_likelihood_of_poses_is_exact_for_a_mixture_too():
    field = mixture(POSES)
    x, _ = field.data(noise(3, 3), like(3))
    error = sf.log_prob(field, x).value - field.log_prob(x, field.process.t_min)
    assert error.abs().max() < 1e-3


def test_a_sample_is_the_same_alone_and_in_a_batch():
    field = mixture(POSES)
    for solver in (sf.Heun(), sf.EulerMaruyama()):
        batch = sf.sample(field, 6, solver, 8, dtype=F64)
        alone = sf.sample(field, [4], solver, 8, dtype=F64)
        assert (alone[0] - batch[4]).abs().max() < 1e-9


def test_adaptive_steps_arrive_where_fine_grids_do():
    field = mixture(Sphere(2))
    fine = sf.sample(field, 4, sf.RK4(), sf.karras(field.process, 60), dtype=F64)
    steps = sf.Adaptive(1e-6, 1e-6)
    for solver in (sf.Tsit5(), sf.Heun()):
        x = sf.sample(field, 4, solver, steps if solver == sf.Tsit5() else sf.Adaptive(), dtype=F64)
        assert (x - fine).abs().max() < (1e-4 if solver == sf.Tsit5() else 0.03)


@pytest.mark.parametrize("space", [Sphere(2), SO3()], ids=str)
def test_guidance_adds_the_gradient_of_a_potential(space):
    field, x = mixture(space), mixture(space, 4).centres
    towards = mixture(space, 2).centres[1]
    tilted = sf.Tilted(field, lambda x, t: -(space.distance(x, towards.expand_as(x)) ** 2) / 2)
    push = tilted(x, 0.7).score - field(x, 0.7).score
    far = space.distance(x, towards.expand_as(x)) > 1e-3
    assert (push - space.log(x, towards.expand_as(x)))[far].abs().max() < 1e-9
    space.check(sf.sample(tilted, 2, nfe=4, dtype=F64))


def test_the_end_of_a_path_can_be_learned():
    field = mixture(Sphere(2))
    z = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    f = lambda z: sf.unroll(field, z, sf.Heun(), 4)[:, 0].sum()  # noqa: E731
    grad = torch.autograd.functional.jacobian(f, z)
    h = torch.zeros_like(z)
    h[1, 2] = 1e-5
    assert float((f(z + h) - f(z - h)) / 2e-5) == pytest.approx(float(grad[1, 2]), abs=1e-6)


S2 = mixture(Sphere(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Brownian(3), "Sphere"),
        (lambda: sf.sample(S2, 2, sf.Multistep(), 4), "Multistep.*manifold"),
        (lambda: sf.sample(S2, 2, sf.StochasticHeun(), 4), "StochasticHeun.*manifold"),
        (lambda: sf.sample(S2, 2, sf.Churn(sf.Heun(), 1.0, 4), 4), "Churn.*manifold"),
        (lambda: Geodesic(sf.Reversible(sf.DDIM())), "Reversible.*manifold"),
        (lambda: S2.under(sf.VP()), "under adds vectors"),
        (lambda: sf.interpolate(S2, S2.centres[:1], S2.centres[1:2]), "interpolate adds vectors"),
        (lambda: sf.elbo(S2, S2.centres), "elbo adds vectors"),
        (lambda: sf.restore(S2, S2.centres), "restore adds vectors"),
        (lambda: sf.tune(S2, 8), "tune adds vectors"),
        (lambda: sf.audit(S2, S2.centres), "audit adds vectors"),
        (lambda: sf.log_prob(S2, 2 * S2.centres), "point 0"),
        (lambda: sf.log_prob(S2, S2.centres, prior="standard"), "uniform"),
        (lambda: sf.encode(S2, math.nan * S2.centres), "not finite"),
        (lambda: HeatMixture(Brownian(Sphere(2)), torch.ones(2), S2.centres, 0.1), "weights"),
        (lambda: HeatMixture(Brownian(Sphere(2)), torch.ones(3), S2.centres, -0.1), "std"),
    ],
)
def test_calls_without_meaning_on_a_space_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("space", [Torus(1), pytest.param(Sphere(2), marks=pytest.mark.slow)])
def test_the_error_of_a_network_vanishes_at_the_exact_noise(space):
    field, x0 = mixture(space, 1), mixture(space, 4).centres.repeat(500, *[1] * len(space.shape))
    t = torch.full((len(x0),), 0.7, dtype=F64)
    eps, _ = field.process.noise(x0, t, noise(len(x0)))
    x = field.process.perturb(x0, t, eps)
    target = field.process.target_noise(x0, x, t, eps)
    kernel = HeatMixture(field.process, torch.ones(1), x0[:1], 0.0)
    assert (target[:1] - kernel(x[:1], 0.7).eps).abs().max() < 1e-9
    z, _ = space.heat_sample(x0, 0.49, noise(len(x0)))
    assert (x - z).abs().max() < 1e-7  # distances are inverted to about 1e-8
    # the mean of the noise over the data is that of the field: E <eps, f> for a test function
    only = field.data(noise(2000, 5), like(2000))[0]
    eps, _ = field.process.noise(only, t, noise(2000, 6))
    x = field.process.perturb(only, t, eps)
    target = field.process.target_noise(only, x, t, eps)
    direction = space.tangent(x, x.new_ones(x.shape))
    gap = space.inner(target - field(x, t).eps, direction)
    assert gap.mean().abs() <= 4 * gap.std() / 2000**0.5


def test_training_learns_a_field_on_a_space_and_its_folder_loads(tmp_path):
    field = mixture(Torus(1), 2, 0.2)
    x, _ = field.data(noise(1000, 11), like(1000))
    network = sf.networks.MLP(sf.spaces.SpaceNetwork.count(Torus(1)), 32, 1)
    run = sf.train(x.float(), space=Torus(1), network=network, steps=400, batch_size=128, lr=3e-3)
    new, _ = field.data(noise(40, 12), like(40))
    values = run.log_prob(new).value
    truth, uniform = field.log_prob(new, 0.01), -math.log(2 * math.pi)
    assert (truth - values).mean().abs() < 0.2 < 0.6 < (values - uniform).mean()
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run", network=run.field)
    assert torch.equal(again.sample(4), run.sample(4))
    with pytest.raises(ValueError, match="item 0"):
        sf.train(3 * torch.eye(3), space=Sphere(2), steps=2)
    with pytest.raises(ValueError, match="space=2"):
        sf.train(torch.eye(3), space=2)
    with pytest.raises(ValueError, match="interpolate adds vectors"):
        run.interpolate(new[:1].float(), new[1:2].float())
