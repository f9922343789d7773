"""Codes against the exact flow, and the way there and back."""

import math

import pytest
import torch
from cases import PROCESSES, mixture, normal, tensor

import scorefield as sf
from scorefield._internal.errors import NumericalError
from scorefield.networks import MLP

every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
TIGHT = sf.Adaptive(1e-8, 1e-8)


class Balls(sf.ScoreField):
    """The exact field of two round Gaussians: cheap in any dimension."""

    def __init__(self, process, dim, std=0.4):
        self.means = 0.7 * torch.stack([normal(dim), normal(dim, seed=1)])
        variance = std**2 + (0.5 * (self.means[0] - self.means[1])) ** 2
        super().__init__(process, (dim,), self.means.mean(0), variance)
        self.std = std

    def estimate(self, x, at, **condition):
        alpha, sigma = (torch.as_tensor(c).reshape(-1, 1, 1).to(x) for c in (at.alpha, at.sigma))
        total = (alpha * self.std) ** 2 + sigma**2
        away = x[:, None] - alpha * self.means.to(x)
        weights = (-0.5 * away.square().sum(2, keepdim=True) / total).softmax(1)
        x0 = self.means.to(x) + alpha * self.std**2 / total * away
        return sf.Estimate.from_x0(x, at, (weights * x0).sum(1))

    def data(self, count):
        return self.means[torch.arange(count) % 2] + self.std * normal(count, len(self.means[0]))


@pytest.mark.parametrize("dim", [2, 64, 3072])
def test_a_round_trip_returns_the_data(dim):
    """To a tolerance, by default in single precision, and by reversible steps to the last digit."""
    field = Balls(sf.VP(), dim)
    x = field.data(6)
    assert sf.encode(field, x, sf.Dopri5(), TIGHT, batch_size=8).error.max() <= 1e-5
    assert sf.encode(field, x.float(), batch_size=8).error.max() <= 1e-3
    exact = sf.encode(field, x, sf.Reversible(sf.Singlestep()), batch_size=8)
    assert exact.error.max() <= 1e-12
    back = sf.decode(field, exact, sf.Reversible(sf.Singlestep()), batch_size=8)
    assert ((back.x - x).norm(dim=1) <= 1e-12 * x.norm(dim=1)).all()
    assert back.error.max() <= 1e-12


@every_process
def test_a_code_is_where_the_exact_flow_of_a_gaussian_leads(process):
    """Along each axis it keeps the quantile: the code of any process is the data standardised."""
    mean, variance = tensor(0.8, -0.5), tensor(0.6, 0.2)
    field = sf.Gaussian(process, mean, torch.diag(variance))
    x = mean + variance.sqrt() * normal(5, 2)
    first = torch.tensor(process.t_min, dtype=torch.float64)
    noised = process.prior(mean, variance, first)
    expected = (process.alpha(first) * x - noised.mean) / noised.std
    codes = sf.encode(field, x)
    torch.testing.assert_close(codes.z, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sf.decode(field, expected).x, x, rtol=1e-4, atol=1e-4)
    assert codes.nfe == 160, "80 calls there and 80 back"
    assert sf.encode(field, x, check=False).nfe == 80


@every_process
def test_codes_of_data_are_standard_normal(process):
    field = mixture(process)
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(4000, 2, generator=g, dtype=torch.float64)
    x = field.data(eps, torch.rand(4000, generator=g, dtype=torch.float64))
    z = sf.encode(field, x, sf.round_trip_plan(field, 30), check=False, batch_size=4000).z
    assert z.mean(0).abs().max() < 4 / math.sqrt(4000)
    assert (z.T @ z / 4000 - torch.eye(2)).abs().max() < 4 * math.sqrt(2 / 4000)
    assert abs(float(z.pow(4).mean()) - 3) < 4 * math.sqrt(96 / 8000)


def test_decoding_noise_is_sampling_from_it():
    field = mixture(sf.VP())
    plan = sf.round_trip_plan(field, 40)
    z, _ = sf.Noise(3, torch.arange(4)).draw((2,), torch.empty(0, dtype=torch.float64))
    drawn = sf.sample(field, 4, plan, seed=3, dtype=torch.float64)
    alpha = field.process.alpha(torch.tensor(field.process.t_min, dtype=torch.float64))
    torch.testing.assert_close(sf.decode(field, z, plan).x, drawn / alpha, rtol=1e-12, atol=1e-12)


def test_the_error_told_is_the_one_made():
    field = mixture(sf.VP())
    x, plan = field.means.repeat(2, 1) + 0.1 * normal(6, 2), sf.round_trip_plan(field, 12)
    codes = sf.encode(field, x, plan)
    back = sf.decode(field, codes.z, plan, check=False)
    typical = field.data_std * math.sqrt(2)
    made = (back.x - x).norm(dim=1) / x.norm(dim=1).clamp(min=typical)
    torch.testing.assert_close(codes.error, made, rtol=1e-6, atol=0)
    assert made.min() > 1e-6
    assert back.error.isnan().all()
    again = sf.encode(field, back.x, plan, check=False)
    told = sf.decode(field, codes.z, plan).error
    made = (again.z - codes.z).norm(dim=1) / codes.z.norm(dim=1).clamp(min=math.sqrt(2))
    torch.testing.assert_close(told, made, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("solver", "times"),
    [(None, None), (sf.Dopri5(), sf.Adaptive(1e-4, 1e-4)), (sf.Reversible(sf.Heun()), None)],
    ids=["grid", "adaptive", "reversible"],
)
def test_a_code_does_not_depend_on_the_batch(solver, times):
    field = mixture(sf.VP())
    x = normal(7, 2)
    whole = sf.encode(field, x, solver, times, batch_size=4)
    alone = sf.encode(field, x[5:6], solver, times, ids=[5], batch_size=4)
    assert torch.equal(whole.z[5:6], alone.z)
    assert torch.equal(whole.error[5:6], alone.error)
    back = sf.decode(field, whole, solver, times, batch_size=4)
    one = alone._replace(partner=None if whole.partner is None else whole.partner[5:6])
    assert torch.equal(back.x[5:6], sf.decode(field, one, solver, times, ids=[5], batch_size=4).x)


def test_shapes_are_those_of_the_field():
    field = Balls(sf.Flow(), 12)
    shaped = sf.Denoiser(Plain(), sf.Flow(), sf.X0(), (3, 2, 2)).eval()
    x = field.data(3)
    codes = sf.encode(shaped, x.reshape(3, 3, 2, 2))
    assert codes.z.shape == (3, 3, 2, 2)
    assert sf.interpolate(shaped, x.reshape(3, 3, 2, 2), x.reshape(3, 3, 2, 2)).x.shape == (
        3, 9, 3, 2, 2,
    )  # fmt: skip


# --- the way between -----------------------------------------------------------------------------


def test_a_strip_begins_and_ends_with_the_samples_themselves():
    field = mixture(sf.VP())
    a, b = normal(3, 2), normal(3, 2, seed=1)
    strip = sf.interpolate(field, a, b, points=5)
    assert torch.equal(strip.x[:, 0], a)
    assert torch.equal(strip.x[:, -1], b)
    codes = sf.encode(field, torch.cat([a, b]))
    middle = sf.decode(field, sf.slerp(codes.z[:3], codes.z[3:], 0.5)).x
    torch.testing.assert_close(strip.x[:, 2], middle, rtol=1e-9, atol=1e-9)
    assert torch.equal(strip.error, codes.error.reshape(2, 3).amax(0))
    assert strip.nfe == 160 + 80


def test_a_strip_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    field = sf.Denoiser(MLP(2, width=129, depth=1), sf.VP(), sf.V(), (2,)).eval()
    a, b = normal(9, 2, dtype=torch.float32), normal(9, 2, seed=1, dtype=torch.float32)
    plan = sf.round_trip_plan(field, 10)
    whole = sf.interpolate(field, a, b, plan, points=4, batch_size=7).x
    alone = sf.interpolate(field, a[5:6], b[5:6], plan, points=4, ids=[5], batch_size=7).x
    assert torch.equal(whole[5:6], alone)


@pytest.mark.parametrize(
    "process",
    [sf.Flow(t_max=1.0), sf.Tabulated(torch.tensor([0.99, 0.9, 0.7, 0.4, 0.1, 0.0]))],
    ids=["Flow", "Tabulated"],
)
def test_codes_where_no_signal_is_left_at_the_end(process):
    """They go to a noise beside which the data does not show."""
    field, x = mixture(process), normal(4, 2)
    assert float(process.alpha(torch.tensor(process.t_max, dtype=torch.float64))) == 0
    assert sf.encode(field, x).error.max() < 1e-3
    assert sf.encode(field, x, sf.Dopri5(), sf.Adaptive(1e-6, 1e-6)).error.max() < 1e-3


def test_the_middle_of_two_draws_is_as_likely_as_they_are():
    """A straight way would leave the shell: its middle is shorter by the root of two."""
    a, b = normal(50, 400), normal(50, 400, seed=1)
    middle = sf.slerp(a, b, 0.5).norm(dim=1) / math.sqrt(400)
    assert (middle - 1).abs().max() < 0.1
    assert ((a + b) / 2).norm(dim=1).max() / math.sqrt(400) < 0.8


def test_slerp_turns_at_a_constant_rate():
    a, b = tensor(2.0, 0.0)[None], tensor(0.0, 3.0)[None]
    for weight in (0.0, 0.25, 0.5, 1.0):
        angle, length = weight * math.pi / 2, 2 + weight
        expected = length * tensor(math.cos(angle), math.sin(angle))[None]
        torch.testing.assert_close(sf.slerp(a, b, weight), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((), ()), ((2, 3), (3,)), ((2, 3), (1, 3))])
def test_slerp_takes_batches_of_one_shape(shapes):
    with pytest.raises(ValueError, match=r"a has shape .*: give \(B, ...\)"):
        sf.slerp(*map(torch.ones, shapes), 0.5)


def test_slerp_is_straight_where_no_way_is_distinguished():
    a = tensor(1.0, -2.0)[None]
    torch.testing.assert_close(sf.slerp(a, a, 0.3), a)
    torch.testing.assert_close(sf.slerp(a, -3 * a, 0.25), torch.zeros_like(a))
    torch.testing.assert_close(sf.slerp(a, torch.zeros_like(a), 0.25), 0.75 * a)
    near = a + tensor(1e-9, 1e-9)[None]
    torch.testing.assert_close(sf.slerp(a, near, 0.5), (a + near) / 2, rtol=1e-14, atol=0)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((sf.EulerMaruyama(),), "adds noise or stays in place"),
        ((sf.Langevin(),), "adds noise or stays in place"),
        ((sf.Heun(), tensor(0.1, 0.9)), "times rise"),
        ((sf.DDIM(), sf.balanced(sf.VP(), 4, to_data=True)), "times end at the data"),
        ((sf.default_plan(mixture(sf.VP())), tensor(0.9, 0.1)), "a plan, which has its own times"),
        ((sf.DDIM(), sf.Adaptive()), "Adaptive needs an error estimate"),
        ((sf.Heun,), "solver=Heun: must be an instance"),
    ],
)
@pytest.mark.parametrize("carry", [sf.encode, sf.decode])
def test_what_leads_nowhere_and_back_is_refused(carry, arguments, message):
    field = mixture(sf.VP())
    with sf.count_calls(field) as calls, pytest.raises(ValueError, match=message):
        carry(field, normal(2, 2), *arguments)
    assert calls.count == 0


def test_samples_that_do_not_fit_are_refused():
    field = mixture(sf.VP())
    with pytest.raises(ValueError, match=r"batches of samples of shape \(2,\)"):
        sf.encode(field, normal(2, 3))
    with pytest.raises(ValueError, match="1 ids for 2 samples"):
        sf.decode(field, normal(2, 2), ids=[1])
    with pytest.raises(ValueError, match="give pairs"):
        sf.interpolate(field, normal(2, 2), normal(3, 2))
    with pytest.raises(ValueError, match="points=1"):
        sf.interpolate(field, normal(2, 2), normal(2, 2), points=1)
    with pytest.raises(NumericalError, match=r"the code of \[0, 1\] is not finite"):
        sf.encode(
            sf.Denoiser(Broken(), sf.VP(), sf.X0(), (2,)).eval(), normal(2, 2, dtype=torch.float32)
        )


class Plain(torch.nn.Module):
    def forward(self, x, label):
        return 0.5 * x


class Broken(torch.nn.Module):
    def forward(self, x, label):
        return x * math.nan


# --- reversible steps ----------------------------------------------------------------------------


@every_process
def test_reversible_steps_undo_themselves_whatever_their_size(process):
    """Also in few steps, where the pair is far apart and the path is rough."""
    field, x = mixture(process), normal(5, 2)
    times = sf.balanced(process, 6, end=process.t_min)
    for base in (sf.DDIM(), sf.Heun()):
        solver = sf.Reversible(base)
        *_, up = sf.integrate(field, solver, sf.State(x, times[-1], sf.Noise(0, torch.arange(5))),
                              times.flip(0))  # fmt: skip
        *_, back = sf.integrate(field, solver, up, times)
        torch.testing.assert_close(back.x, x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(back.memory.tensors, x, rtol=1e-12, atol=1e-12)
        assert (up.memory.tensors - up.x).abs().max() > 1e-3 * up.x.abs().max()


def test_a_reversible_step_is_the_recurrence_in_print():
    """McCallum and Foster (2024), equation 2 with a coupling of 1."""
    process = sf.EDM()
    field = sf.Gaussian(process, torch.zeros(2), 0.25 * torch.eye(2))
    t, s = tensor(2.0)[0], tensor(1.5)[0]
    m_t, m_s = ((0.25 + time**2).sqrt() for time in (t, s))
    y, z = normal(3, 2), normal(3, 2, seed=1)
    solver = sf.Reversible(sf.DDIM())
    noise = sf.Noise(0, torch.arange(3))

    def step(x, a, b):
        return sf.DDIM().advance(field, sf.State(x, a, noise), b).x

    memory = solver.advance(field, sf.State(y, t, noise), s).memory._replace(tensors=z, x=y)
    out = solver.advance(field, sf.State(y, t, noise, memory), s)
    u, w = y / m_t, z / m_t
    u = u + (step(m_t * w, t, s) / m_s - w)
    w = w - (step(m_s * u, s, t) / m_t - u)
    torch.testing.assert_close(out.x, m_s * u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.memory.tensors, m_s * w, rtol=1e-12, atol=1e-12)


def test_what_no_pair_can_be_made_of_is_refused():
    for make, message in [
        (lambda: sf.Reversible(sf.Multistep(2)), "this solver uses earlier steps"),
        (lambda: sf.Reversible(sf.EulerMaruyama()), "adds noise itself"),
        (lambda: sf.Churn(sf.Reversible(sf.DDIM()), 1.0, 5), "this solver uses earlier steps"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    at = sf.State(normal(2, 2), tensor(0.5, 0.5), sf.Noise(0, torch.arange(2)))
    with pytest.raises(ValueError, match="all samples in one direction"):
        sf.Reversible(sf.DDIM()).advance(mixture(sf.VP()), at, tensor(0.4, 0.6))
