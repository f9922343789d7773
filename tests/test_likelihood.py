"""Log-densities against closed forms, their error bars against the errors they stand for."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

import scorefield as sf
from scorefield._internal.errors import NumericalError
from scorefield.evaluate.certify import PROCESSES
from scorefield.likelihood.divergence import Directions, trace


def mixture(process: sf.Process, dim: int, parts: int, seed: int = 0) -> sf.Mixture:
    """Return a mixture with means apart and turned covariances, its mean not zero."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(parts, dim, dim, generator=draw, dtype=torch.float64)).Q
    variance = 0.05 + torch.rand(parts, dim, generator=draw, dtype=torch.float64)
    means = torch.randn(parts, dim, generator=draw, dtype=torch.float64)
    weights = torch.rand(parts, generator=draw) + 0.3
    return sf.Mixture(process, weights, means, turn * variance[:, None] @ turn.mT)


def draws(field: sf.Mixture, count: int, seed: int = 5) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    eps = torch.randn(count, *field.shape, generator=g, dtype=torch.float64)
    return field.data(eps, torch.rand(count, generator=g, dtype=torch.float64))


def truth(field: sf.Mixture, x: torch.Tensor) -> torch.Tensor:
    """Return the log-density of data with the lowest noise on it."""
    process = field.process
    alpha = float(process.alpha(torch.tensor(process.t_min, dtype=torch.float64)))
    return field.log_prob(alpha * x, process.t_min) + x[0].numel() * math.log(alpha)


def full(field: sf.Mixture) -> sf.Moments:
    """Return the exact mean and covariance of a mixture's data."""
    mean = field.weights @ field.means
    apart = field.means - mean
    covariance = torch.einsum("k,kij->ij", field.weights, field.covariances)
    covariance = covariance + torch.einsum("k,ki,kj->ij", field.weights, apart, apart)
    return sf.Moments(mean, *torch.linalg.eigh(covariance))


@pytest.mark.parametrize("dim", [1, 2, 16])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", PROCESSES)
def test_closed_form(name: str, parts: int, dim: int) -> None:
    """Instantaneous change of variables; E-3 and E-4: its sign, and the prior's constant."""
    field = mixture(PROCESSES[name](), dim, parts)
    x = draws(field, 16)
    found = sf.log_prob(field, x, nfe=100, probes=0, prior=full(field))
    assert (found.value - truth(field, x)).abs().max() <= 1e-4 * dim
    assert (found.stderr == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "parts", "nfe"), [(64, 3, 60), (784, 1, 24)])
@pytest.mark.parametrize("name", PROCESSES)
def test_closed_form_in_many_dimensions(name: str, dim: int, parts: int, nfe: int) -> None:
    field = mixture(PROCESSES[name](), dim, parts)
    x = draws(field, 1)
    found = sf.log_prob(field, x, nfe=nfe, probes=0, batch_size=1)
    assert (found.value + found.prior_mismatch - truth(field, x)).abs().max() <= 1e-4 * dim


@pytest.mark.parametrize("name", PROCESSES)
def test_steps_of_each_sample_reach_their_tolerance(name: str) -> None:
    field = mixture(PROCESSES[name](), 4, 3)
    x = draws(field, 12)
    errors = []
    for tolerance in (1e-3, 1e-6):
        control = sf.Adaptive(tolerance, tolerance)
        found = sf.log_prob(field, x, times=control, probes=0, prior=full(field))
        error = (found.value - truth(field, x)).abs() - found.prior_mismatch.abs()
        assert (error <= 10 * found.solver_error).all()
        assert float((error / found.solver_error).median()) <= 1
        assert found.solver_error.max() <= 10 * tolerance
        errors.append(float(found.solver_error.mean()))
    assert errors[1] < 0.05 * errors[0]


def test_calls_of_adaptive_steps_are_each_samples_own() -> None:
    field = mixture(sf.VP(), 4, 3)
    x, control = draws(field, 3), sf.Adaptive(1e-4, 1e-4)
    whole = sf.log_prob(field, x, times=control, probes=0, batch_size=4)
    for k in range(3):
        with sf.count_calls(field) as calls:
            alone = sf.log_prob(field, x[k : k + 1], times=control, probes=0, ids=[k], batch_size=4)
        assert calls.count == int(alone.nfe) == int(whole.nfe[k])
    assert len(set(whole.nfe.tolist())) > 1


def test_probes_stay_the_same_along_adaptive_steps() -> None:
    """E-5: with new probes in every call no step would be within a tolerance, however small."""
    field = mixture(sf.VP(), 16, 3)
    x = draws(field, 400)
    found = sf.log_prob(field, x, times=sf.Adaptive(1e-4, 1e-4), probes=16, batch_size=200)
    off = (found.value - truth(field, x)) / found.stderr
    assert 0.9 < float(off.square().mean().sqrt()) < 1.25
    assert found.solver_error.max() < 0.05 * found.stderr.min()


def test_density_integrates_to_one() -> None:
    """The exact likelihood of a 2-D distribution, added up over the plane."""
    field = mixture(sf.VP(), 2, 3)
    line = torch.linspace(-7, 7, 141, dtype=torch.float64)
    plane = torch.cartesian_prod(line, line)
    found = sf.log_prob(field, plane, batch_size=1024)
    mass = found.value.exp().sum() * (line[1] - line[0]) ** 2
    assert abs(float(mass) - 1) <= 1e-3


def test_signal_is_a_shape_like_any_other() -> None:
    field = mixture(sf.Flow(), 6, 2)
    shaped = sf.Mixture(
        field.process, field.weights, field.means.reshape(2, 2, 3), field.covariances
    )
    x = draws(field, 3)
    flat = sf.log_prob(field, x).value
    assert torch.allclose(sf.log_prob(shaped, x.reshape(3, 2, 3)).value, flat, atol=1e-10)


def test_steps_of_each_image_reach_their_tolerance() -> None:
    """Every image stands at a time of its own, also in batches as long as an image is wide."""
    flat = mixture(sf.VP(), 16, 1)
    field = sf.Gaussian(flat.process, flat.means.reshape(1, 4, 4), flat.covariances[0])
    x = draws(flat, 3).reshape(3, 1, 4, 4)
    for batch_size in (3, 4):  # of 3 an error, of 4 once a wrong value in silence
        control = sf.Adaptive(1e-3, 1e-3)
        found = sf.log_prob(field, x, times=control, prior=full(flat), batch_size=batch_size)
        assert (found.value - truth(field, x)).abs().max() <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 16, 64])
def test_intervals_contain_the_closed_form(dim: int) -> None:
    """Hutchinson's trace is unbiased with an honest error; a sum not divided by K is neither."""
    field = mixture(sf.VP(), dim, 3)
    count = 1000
    x = draws(field, 8).repeat(count // 8, 1)
    found = sf.log_prob(field, x, nfe=28, probes=12, prior=full(field))
    exact = truth(field, x)
    low, high = found.interval(0.95)
    share = float(((low <= exact) & (exact <= high)).double().mean())
    assert 0.93 <= share <= 0.97
    # the mean of all of them has an error sqrt(1000) times less, far below one trace
    off = (found.value - exact).mean() / (found.stderr.square().mean() / count).sqrt()
    assert abs(float(off)) < 4


def test_standard_error_falls_as_the_root_of_the_probes() -> None:
    field = mixture(sf.VP(), 16, 3)
    x = draws(field, 64)
    few, many = (
        sf.log_prob(field, x, nfe=16, probes=k).stderr.square().mean().sqrt() for k in (8, 128)
    )
    assert float(few / many) == pytest.approx(4, rel=0.15)


def test_each_sample_has_its_own_divergence() -> None:
    """E-6: one scalar summed over the batch would give all samples one value."""
    field = mixture(sf.VP(), 16, 3)
    x = draws(field, 4)
    at = field.instants(torch.tensor([0.3], dtype=torch.float64))[0]
    noise = sf.Noise(0, torch.arange(4))
    _, traces = trace(field, x, at, Directions(0), noise)
    for k in range(4):

        def eps(one: torch.Tensor) -> torch.Tensor:
            return field(one[None], 0.3).eps[0]

        jacobian = torch.func.jacrev(eps)(x[k])
        assert float(traces[0, k]) == pytest.approx(float(at.sigma * jacobian.trace()), rel=1e-9)


def test_probes_belong_to_sample_and_node() -> None:
    """E-5: a run draws the same probes each time, and other ones for another id or seed."""
    field = mixture(sf.VP(), 16, 3)
    x = draws(field, 2)
    first, again = (sf.log_prob(field, x, probes=4).value for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sf.log_prob(field, x, probes=4, ids=[7, 8]).value)
    assert not torch.equal(first, sf.log_prob(field, x, probes=4, seed=1).value)
    nodes = [next(Directions(4).vectors(x, sf.Noise(0, torch.arange(2)), node)) for node in (0, 1)]
    assert not torch.equal(*nodes)


@pytest.mark.parametrize(
    "settings",
    [
        {"probes": 0},
        {"probes": 4},
        {"stderr": 0.6},
        {"times": sf.Adaptive(1e-3, 1e-3)},
        {"times": sf.Adaptive(1e-3, 1e-3), "probes": 4},
    ],
)
def test_value_does_not_depend_on_the_batch(settings: dict) -> None:
    field = mixture(sf.VP(), 16, 3)
    x = draws(field, 11)
    whole = sf.log_prob(field, x, batch_size=8, **settings)
    alone = sf.log_prob(field, x[9:10], ids=[9], batch_size=8, **settings)
    order = torch.tensor([4, 9, 0, 10, 2, 1, 3, 8, 7, 6, 5])
    shuffled = sf.log_prob(field, x[order], ids=order, batch_size=8, **settings)
    for name in vars(whole):
        values = getattr(whole, name)
        assert torch.equal(values[9:10], getattr(alone, name)), name
        assert torch.equal(values[order], getattr(shuffled, name)), name


def test_probes_are_spent_until_the_error_is_met() -> None:
    field = mixture(sf.VP(), 64, 3)
    x = draws(field, 8)
    found = sf.log_prob(field, x, stderr=0.5, prior=full(field))
    assert (found.stderr <= 0.5).all()
    few = sf.log_prob(field, x, probes=8, prior=full(field))
    assert (found.products > few.products).any()
    exact = sf.log_prob(field, x, nfe=80, stderr=1e-3, prior=full(field))  # no dearer than probes
    assert (exact.stderr == 0).all()
    assert (exact.value - truth(field, x)).abs().max() <= 64e-4


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_intervals_are_students(freedom: int, level: float) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    found = sf.Likelihood(zero, zero + 1, *[zero] * 5, zero + freedom + 1)
    expected = stats.t.ppf(0.5 + level / 2, freedom)
    assert float(found.interval(level)[1]) == pytest.approx(expected, rel=0.03)


def test_few_products_are_spent_where_few_make_it_exact() -> None:
    field = mixture(sf.VP(), 3, 3)
    found = sf.log_prob(field, draws(field, 4), nfe=16, stderr=1e-9, max_probes=8)
    assert (found.products == 16 * 3).all()
    assert (found.stderr == 0).all()
    wide = mixture(sf.VP(), 16, 3)
    found = sf.log_prob(wide, draws(wide, 4), nfe=16, stderr=1e-9)
    assert (found.products == 16 * (8 + 8 + 16)).all()
    assert (found.probes == 0).all()


class Blind(torch.nn.Module):
    """A network that lets no gradient through."""

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return 0.9 * x.detach()


class Serial(torch.autograd.Function):
    """An operation that knows no batches of gradients."""

    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    def backward(ctx, pulled):
        return torch.from_numpy(pulled.numpy().copy())


class Own(torch.nn.Module):
    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return Serial.apply(x)


def test_a_network_without_a_gradient_is_refused_and_one_without_batches_is_not() -> None:
    x = torch.zeros(2, 4)
    for kind in (sf.X0(), sf.Eps()):
        blind = sf.Denoiser(Blind(), sf.VP(), kind, (4,)).eval()
        with pytest.raises(ValueError, match="carries no gradient"):
            sf.log_prob(blind, x)
    assert sf.log_prob(sf.Denoiser(Own(), sf.VP(), sf.X0(), (4,)).eval(), x).value.isfinite().all()


def test_calls_are_counted() -> None:
    field = mixture(sf.VP(), 4, 2)
    x = draws(field, 3)
    with sf.count_calls(field) as calls:
        found = sf.log_prob(field, x, nfe=21, probes=0)
    assert calls.count == 21
    assert found.nfe.tolist() == [21.0] * 3
    assert found.products.tolist() == [84.0] * 3


def test_solver_error_is_of_the_size_of_the_error() -> None:
    field = mixture(sf.VP(), 8, 4)
    x = draws(field, 64)
    for nfe in (16, 24, 32):
        found = sf.log_prob(field, x, nfe=nfe, probes=0, prior=full(field))
        error = (found.value - truth(field, x)).abs()
        assert float((error / found.solver_error).median()) < 2
        assert float(error.mean() / found.solver_error.mean()) > 0.1


def steep() -> sf.Mixture:
    """Return six components in 12-D with variances from 4 down to 4e-6 along turned axes."""
    draw = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(6, 12, 12, generator=draw, dtype=torch.float64)).Q
    scales = 4 * torch.logspace(0, -6, 12, dtype=torch.float64)
    means = 1.5 * torch.randn(6, 12, generator=draw, dtype=torch.float64)
    return sf.Mixture(sf.VP(), torch.ones(6), means, turn * scales @ turn.mT)


def apart() -> sf.Mixture:
    """Return three narrow modes in 2-D, wide apart: some items lie near a ridge between two."""
    means = 2.0 * torch.randn(3, 2, generator=torch.Generator().manual_seed(11)).double()
    variance = torch.tensor([0.1, 0.05, 0.03], dtype=torch.float64)[:, None, None]
    return sf.Mixture(sf.VP(), torch.ones(3), means, variance * torch.eye(2))


@pytest.mark.parametrize(
    "settings",
    [
        *({"nfe": n} for n in (20, 40, 120)),
        {"times": sf.Adaptive(1e-2, 1e-2)},
        {"solver": sf.Heun(), "times": 20},
        {"solver": sf.Dopri5(), "times": 16},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [steep, apart])
def test_solver_error_covers_the_error_of_nearly_every_item(kind, settings: dict) -> None:
    """Also of details far below the data's deviation, and near ridges: twice it covers all."""
    field = kind()
    x = draws(field, 40)
    found = sf.log_prob(field, x, probes=0, prior=full(field), batch_size=40, **settings)
    error = (found.value + found.prior_mismatch - truth(field, x)).abs() - 1e-5
    assert float((error <= found.solver_error).double().mean()) >= 0.95
    assert (error <= 3 * found.solver_error).all()


def test_adaptive_steps_see_details_far_below_the_deviation_of_the_data() -> None:
    """A first step of a tenth of the deviation passed over them: 0.7 nats off at any tolerance."""
    field = steep()
    x = draws(field, 16)
    found = sf.log_prob(
        field, x, times=sf.Adaptive(1e-3, 1e-3), probes=0, prior=full(field), batch_size=16
    )
    assert (found.value - truth(field, x)).abs().max() <= 0.02
    assert found.nfe.median() <= 180


def test_prior_mismatch_is_what_a_standard_prior_costs() -> None:
    """A prior N(0, I) that ignores the data's mean and variance has an error that is told."""
    field = mixture(sf.VP(), 8, 3)
    x = draws(field, 32)
    found = sf.log_prob(field, x, nfe=80, probes=0, prior="standard")
    error = truth(field, x) - found.value
    assert float(error.abs().mean()) > 1e-3
    assert float((error - found.prior_mismatch).abs().mean()) < 0.1 * float(error.abs().mean())


def test_truncation_is_what_the_last_noise_hides() -> None:
    """E-7: the integral starts at t_min, and what that leaves out is told."""
    process = sf.VP(t_min=4e-3)
    field = mixture(process, 4, 3)
    x = draws(field, 32)
    found = sf.log_prob(field, x, nfe=100, probes=0, prior=full(field))
    noiseless = mixture(replace(process, t_min=1e-9), 4, 3)
    missing = truth(noiseless, x) - found.value
    assert float(missing.abs().mean()) > 1e-3
    assert float((missing - found.truncation).abs().mean()) < 0.1 * float(missing.abs().mean())


def test_bits_per_dim() -> None:
    """2823 nats in 3072 dimensions are 1.326 bits per dimension."""
    zero = torch.zeros(1, dtype=torch.float64)
    found = sf.Likelihood(zero - 2823, *[zero] * 7)
    assert float(found.bits_per_dim(3072)) == pytest.approx(1.3257, abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"times": sf.Adaptive(1e-2, 1e-2)}])
def test_float32_network_and_inference_mode(settings: dict) -> None:
    """A network in single precision gives what it gives outside inference mode."""
    torch.manual_seed(0)
    field = sf.Denoiser(torch_network(), sf.VP(), sf.V(), (3,)).eval()
    x = torch.randn(5, 3)
    outside = sf.log_prob(field, x, **settings)
    with torch.inference_mode():
        inside = sf.log_prob(field, x.clone(), **settings)
    assert torch.equal(outside.value, inside.value)
    assert outside.value.dtype == torch.float64
    fine = sf.log_prob(field, x, nfe=160)
    assert (outside.value - fine.value).abs().max() < 0.02


def torch_network() -> torch.nn.Module:
    from scorefield.networks import MLP

    network = MLP(3, width=32, depth=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nfe": 7}, "nfe=7"),
        ({"probes": 1}, "probes=1"),
        ({"probes": 4, "stderr": 0.1}, "leave one of them out"),
        ({"stderr": -1.0}, "stderr=-1"),
        ({"times": sf.Adaptive(), "nfe": 20}, "nfe=20: cannot be combined with times"),
        ({"times": sf.Adaptive(), "stderr": 0.1}, "stderr=0.1: cannot be combined"),
        ({"times": sf.Adaptive(end=0.1)}, "leave start and end out"),
        ({"max_probes": 2}, "max_probes=2"),
        ({"prior": "gaussian"}, "prior='gaussian'"),
        ({"prior": sf.Moments(torch.zeros(3), torch.ones(3))}, "4 coordinates"),
        ({"ids": [1]}, "1 ids for 2 samples"),
        ({"ids": [-1, 0]}, "list of ids, at least 0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf.log_prob(mixture(sf.VP(), 4, 2), torch.zeros(2, 4), **settings)


def test_bad_samples_are_refused() -> None:
    field = mixture(sf.VP(), 4, 2)
    for x, message in [
        (torch.zeros(2, 5), "shape"),
        (torch.zeros(4), "shape"),
        (torch.zeros(2, 4, dtype=torch.int64), "floating"),
        (torch.tensor([[0.0] * 4, [math.nan] * 4]), "not finite in samples \\[1\\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            sf.log_prob(field, x)
    with pytest.raises(ValueError, match=r"level=1"):
        sf.log_prob(field, torch.zeros(1, 4)).interval(1)


def test_error_that_cannot_be_met_is_refused() -> None:
    field = mixture(sf.VP(), 64, 3)
    with pytest.raises(NumericalError, match=r"stderr=0.001 is not met with 16 probes"):
        sf.log_prob(field, draws(field, 4), stderr=1e-3, max_probes=16)


# --- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_the_bound_of_an_exact_score_is_the_log_density(name: str) -> None:
    """The reverse SDE of the exact score, from the exact law, has the data's density: no gap."""
    field = mixture(PROCESSES[name](), 3, 3)
    x = draws(field, 200)
    found = sf.elbo(field, x, nfe=256, prior=full(field), batch_size=200)
    off = (found.value - truth(field, x)) / found.stderr
    assert 0.85 < float(off.square().mean().sqrt()) < 1.25, "the error bar is honest"
    assert abs(float(off.mean())) < 4 / math.sqrt(len(x))
    assert (found.nfe == 256).all()


class Wrong(sf.ScoreField):
    """A field whose noise is off by a constant share: the score of no density near its own."""

    def __init__(self, base: sf.ScoreField, share: float) -> None:
        super().__init__(base.process, base.shape, base.mean, base.variance)
        self.base, self.share = base, share

    def estimate(self, x: torch.Tensor, at: sf.Instant, **condition: object) -> sf.Estimate:
        return sf.Estimate.from_eps(x, at, self.share * self.base(x, at.t).eps)


def test_the_bound_of_a_wrong_score_is_below_in_the_mean() -> None:
    """By the weighted distance of the scores, as the theorem says."""
    field = mixture(sf.VP(), 2, 3)
    x = draws(field, 2000)
    moments, share = full(field), 0.5
    wrong = sf.elbo(Wrong(field, share), x, nfe=64, prior=moments, batch_size=500)
    gap = truth(field, x) - wrong.value
    # int E|eps - eps_hat|^2 (rho / r)^2 dlog rho over the data, by sums over many noise levels
    process = field.process
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = (-process.half_log_snr(ends)).exp().log10().tolist()
    r = torch.logspace(low + 1e-9, high - 1e-9, 400, dtype=torch.float64)
    lost = []
    for k, level in enumerate(r):
        t = process.time(-level.log())
        noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(k)).double()
        y = draws(field, 500, seed=1000 + k) + level * noise
        eps = field(process.alpha(t) * y, t).eps
        lost.append(((1 - share) * eps).square().sum(1).mean())
    expected = torch.trapezoid(torch.stack(lost), r.log())
    assert float(gap.mean()) == pytest.approx(float(expected), rel=0.1)
    assert float(gap.mean()) > 10 * float(gap.std()) / math.sqrt(len(x))


def test_a_bound_does_not_depend_on_the_batch() -> None:
    field = mixture(sf.VP(), 5, 3)
    x = draws(field, 7)
    whole = sf.elbo(field, x, nfe=8, batch_size=4)
    alone = sf.elbo(field, x[5:6], nfe=8, batch_size=4, ids=[5])
    assert torch.equal(whole.value[5:6], alone.value)
    assert torch.equal(whole.stderr[5:6], alone.stderr)
    assert not torch.equal(whole.value, sf.elbo(field, x, nfe=8, batch_size=4, seed=1).value)


def test_the_error_of_a_bound_falls_with_its_calls() -> None:
    field = mixture(sf.Flow(), 4, 3)
    x = draws(field, 64)
    few, many = (sf.elbo(field, x, nfe=n).stderr.square().mean().sqrt() for n in (32, 512))
    assert float(few / many) == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("nfe", [2, 7, 6.0])
def test_calls_of_a_bound_come_in_pairs(nfe: float) -> None:
    with pytest.raises(ValueError, match="give an even number of calls, 4 or more"):
        sf.elbo(mixture(sf.VP(), 4, 2), torch.zeros(2, 4), nfe=nfe)


# a solver of one's choice


SOLVERS = [
    (sf.DDIM(), 1),
    (sf.Heun(), 2),
    (sf.Singlestep(), 2),
    (sf.RK4(), 4),
    (sf.Dopri5(), 5),
    (sf.Multistep(4, corrector=True), 4),
]


@pytest.mark.parametrize(
    ("process", "parts"), [(sf.VP(), 1), (sf.VP(), 3), (sf.Flow(), 3), (sf.EDM(), 3)], ids=str
)
@pytest.mark.parametrize(("solver", "order"), SOLVERS, ids=str)
def test_a_solver_integrates_the_density_at_its_order(
    process: sf.Process, parts: int, solver: sf.Solver, order: int
) -> None:
    """Twice the steps leave a share of 2^-order of the error, on a mixture and a Gaussian."""
    field = mixture(process, 2, parts)
    x = draws(field, 3)
    exact = truth(field, x)
    errors = []
    for steps in (40, 80):
        with sf.count_calls(field) as calls:
            result = sf.log_prob(field, x, solver, steps, prior=full(field), batch_size=3)
        assert calls.count == int(result.nfe[0])
        errors.append(float((result.value - exact).abs().max()))
    assert errors[1] < max(1.5 * 2.0**-order * errors[0], 5e-6), "at the least the prior's error"
    assert errors[1] < (1.0 if order == 1 else 0.05)
    if solver.error_order is None:
        assert result.solver_error.isnan().all()
    else:
        assert (result.solver_error + 5e-6 > 0.1 * (result.value - exact).abs()).all()


class HalfHeun(sf.OneStep):
    """Heun's method as a user writes it."""

    order, calls = 2, 2

    def step(self, field: sf.ScoreField, state: sf.State, s: torch.Tensor) -> torch.Tensor:
        first = field(state.x, state.t).velocity
        ahead = state.x + (s - state.t) * first
        return state.x + (s - state.t) * (first + field(ahead, s).velocity) / 2


def test_the_density_by_steps_of_ones_own_or_by_a_budget_is_that_of_the_same_grid() -> None:
    field = mixture(sf.VP(), 2, 3)
    x = draws(field, 3)
    own = sf.log_prob(field, x, HalfHeun(), 30)
    torch.testing.assert_close(own.value, sf.log_prob(field, x, sf.Heun(), 30).value)
    budget = sf.log_prob(field, x, sf.RK4(), nfe=30)
    assert torch.equal(budget.value, sf.log_prob(field, x, sf.RK4(), 6).value)
    assert (budget.nfe == 27).all()
    adaptive = sf.log_prob(field, x, sf.Dopri5(), sf.Adaptive(1e-4, 1e-4))
    assert torch.equal(adaptive.value, sf.log_prob(field, x, times=sf.Adaptive(1e-4, 1e-4)).value)
    fine = sf.log_prob(field, x, sf.Dopri5(), 60)
    for result in (adaptive, sf.log_prob(field, x, times=200)):
        torch.testing.assert_close(result.value, fine.value, rtol=1e-3, atol=1e-3)
    rough = sf.log_prob(field, x, sf.Heun(), sf.Adaptive(1e-3, 1e-3))
    assert ((rough.value - fine.value).abs() < rough.solver_error + 1e-3).all()


def test_a_solver_that_adds_noise_gives_no_density() -> None:
    field = mixture(sf.VP(), 2, 3)
    x = draws(field, 1)
    for solver in (sf.DDIM(1.0), sf.EulerMaruyama(), sf.Langevin()):
        with pytest.raises(ValueError, match="nothing leads back"):
            sf.log_prob(field, x, solver, 20)
    with pytest.raises(ValueError, match="Adaptive needs an error estimate"):
        sf.log_prob(field, x, sf.RK4(), sf.Adaptive())
