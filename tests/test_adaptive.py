"""Adaptive steps: the error follows the tolerance, and each sample walks alone."""

import functools
import math

import pytest
import scipy.integrate
import torch
from cases import (
    COVARIANCE,
    MEAN,
    MORE,
    PROCESSES,
    gaussian,
    label,
    mixture,
    normal,
    silent,
    tensor,
)
from test_sample import Network, network_field
from torch import nn

import scorefield as sf
from scorefield._internal.errors import NumericalError

ESTIMATING = [
    sf.Heun(),
    sf.Bosh3(),
    sf.Dopri5(),
    sf.Tsit5(),
    sf.Singlestep(2),
    sf.Singlestep(3, sf.AnglePrediction()),
]
every_solver = pytest.mark.parametrize("solver", ESTIMATING, ids=label)


def thin(process):
    """Return the exact field of a Gaussian a hundred times longer than it is wide, tilted."""
    cos, sin = math.cos(0.6), math.sin(0.6)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    return sf.Gaussian(process, MEAN, turn @ torch.diag(tensor(1.0, 1e-4)) @ turn.T)


# the field, and whether the way is from data to noise
PROBLEMS = {
    "mixture on VP": (lambda: mixture(PROCESSES["VP"]), False),
    "mixture on EDM": (lambda: mixture(PROCESSES["EDM"]), False),
    "thin Gaussian on Flow": (lambda: thin(PROCESSES["Flow"]), False),
    "mixture on VE": (lambda: mixture(PROCESSES["VE"]), False),
    "mixture on Cosine, data to noise": (lambda: mixture(PROCESSES["Cosine"]), True),
}
TOLERANCES = [1e-2, 1e-4, 1e-6, 1e-8]
TIGHT = ("mixture on VP", "thin Gaussian on Flow")  # the problems of tolerances that take minutes
MEASURED = [
    pytest.param(name, solver, tolerance, marks=MORE if tolerance < 1e-6 else ())
    for name in PROBLEMS
    for solver in (sf.Dopri5(), sf.Tsit5(), sf.Bosh3(), sf.Singlestep(3))
    for tolerance in TOLERANCES
    if solver.order > 3 or tolerance > 1e-8  # third order takes thousands of steps there
    if tolerance > 1e-6 or name in TIGHT
]


@functools.cache
def exact(name):
    """Return a field, where 16 paths begin, and where the flow carries them, by DOP853.

    In ``y = x / alpha`` and ``l = log(sigma / alpha)`` the flow is ``dy/dl = e^l E[eps | x]``.
    """
    make, up = PROBLEMS[name]
    field = make()
    process = field.process
    ends = tensor(process.t_max, process.t_min)
    ends = ends.flip(0) if up else ends
    alpha, _ = process.coefficients(ends)
    levels = -process.half_log_snr(ends)
    z = normal(16, 2, seed=3)
    x = process.prior(field.mean, field.variance, ends[0]).draw(z)

    def slope(level, y):
        t = process.time(tensor(-level)[0])
        at = process.alpha(t) * torch.from_numpy(y).reshape(-1, 2)
        return (math.exp(level) * field(at, t).eps).flatten().numpy()

    begin = (x / alpha[0]).flatten().numpy()
    found = scipy.integrate.solve_ivp(
        slope, levels.tolist(), begin, method="DOP853", rtol=1e-12, atol=1e-13
    )
    return field, ends, x, alpha[1] * torch.from_numpy(found.y[:, -1]).reshape(-1, 2)


@pytest.mark.parametrize(("name", "solver", "tolerance"), MEASURED, ids=label)
def test_the_error_at_the_end_is_of_the_size_of_the_tolerance(name, solver, tolerance):
    """At worst thirty times it, and three times it in the median of the samples."""
    field, ends, x, end = exact(name)
    control = sf.Adaptive(tolerance, tolerance, start=float(ends[0]), end=float(ends[1]))
    got = sf.prepare(field, solver, control)(sf.State(x, ends[0], silent(16))).x
    # like a step's error, per coordinate and relative to the state where that is large
    error = ((got - end) / (1 + end.abs())).square().mean(1).sqrt() / tolerance
    assert float(error.max()) <= 30
    assert float(error.median()) <= 3


@pytest.mark.parametrize("up", [False, True], ids=["to data", "to noise"])
@pytest.mark.parametrize("name", ["VP", "VE", "Flow", "Tabulated"])
@every_solver
def test_the_field_is_never_called_outside_the_interval(solver, name, up):
    process = PROCESSES[name]
    field, seen = mixture(process), []
    field.register_forward_hook(lambda _, args, __: seen.append(args[1].t.flatten().cpu()))
    inner = process.time(tensor(3.0, -1.0)) if name != "VP" else tensor(process.t_min, 1.0)
    low, high = inner.tolist()
    begin, end = (low, high) if up else (high, low)
    control = sf.Adaptive(1e-2, 1e-2, start=begin, end=end)
    at = sf.State(normal(5, 2), tensor(begin)[0], silent(5))
    *_, last = sf.integrate(field, solver, at, control)
    times = torch.cat(seen)
    assert low <= float(times.min())
    assert float(times.max()) <= high
    assert (last.t == end).all(), "every sample arrives exactly"


FIELDS = [mixture(sf.VP(t_min=1e-3)), network_field(sf.VP(t_min=1e-3))]


@pytest.mark.parametrize("field", FIELDS, ids=["exact", "network"])
@pytest.mark.parametrize("solver", [*ESTIMATING, sf.StochasticHeun()], ids=label)
def test_a_sample_is_the_same_bits_whoever_shares_its_batch(field, solver):
    """The others take more rounds or fewer, at times of their own; nothing of it is seen."""
    control = sf.Adaptive(2e-2, 2e-2)

    def run(ids):
        return sf.sample(field, ids, solver, control, seed=5, batch_size=64)

    whole = run(64)
    assert torch.equal(torch.cat([run([k]) for k in (0, 63)]), whole[[0, 63]])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1)).tolist()
    assert torch.equal(run(order), whole[order])
    strangers = [k if k % 9 == 0 else k + 640 for k in range(64)]
    assert torch.equal(run(strangers)[::9], whole[::9])


def test_samples_take_as_many_steps_as_each_of_them_needs():
    """Each stands at a time of its own on the way, and is left where it arrived."""
    field = mixture(PROCESSES["VP"])
    begin = tensor(1.0)[0]
    x = torch.cat([torch.zeros(1, 2), normal(15, 2), torch.full((1, 2), 6.0)])
    states = list(
        sf.integrate(field, sf.Bosh3(), sf.State(x, begin, silent(17)), sf.Adaptive(1e-4, 1e-4))
    )
    times = torch.stack([state.t.flatten() for state in states])
    assert (times.diff(dim=0) <= 0).all()
    assert len(set(times[len(times) // 2].tolist())) > 10
    taken = (times.diff(dim=0) < 0).sum(0)
    assert taken.max() > taken.min()
    for k in range(17):
        arrived = int((times[:, k] == field.process.t_min).nonzero()[0])
        assert torch.equal(states[arrived].x[k], states[-1].x[k])


@pytest.mark.parametrize("solver", [sf.Dopri5(), sf.Bosh3(), sf.Tsit5()], ids=label)
def test_the_last_call_of_a_step_is_the_first_of_the_next_and_of_a_repeated_one(solver):
    """Until the first step is taken by all there is nothing to keep; then one call is saved."""
    field = mixture(PROCESSES["VP"])
    at = sf.State(normal(6, 2), tensor(1.0)[0], silent(6))
    with sf.count_calls(field) as calls:
        states = sf.integrate(field, solver, at, sf.Adaptive(1e-5, 1e-5, first=0.2))
        before, made, begun, repeated = next(states), 0, False, 0
        for state in states:
            moved = state.t < before.t
            repeated += int((~moved & (before.t > field.process.t_min)).any())
            assert calls.count - made == solver.calls + (not begun)
            begun = begun or bool(moved.all())
            before, made = state, calls.count
    assert begun
    assert repeated > 0, "the case has no repeated step"


@pytest.mark.parametrize("name", ["EDM", "VP", "Flow"])
@pytest.mark.parametrize("solver", [sf.Dopri5(), sf.Heun()], ids=label)
def test_no_step_is_longer_than_the_longest(solver, name):
    """In the noise angle, and but for a rest of a hundredth that is taken along."""
    process = PROCESSES[name]
    field = mixture(process)
    begin = tensor(process.t_max)[0]
    x = process.prior(field.mean, field.variance, begin).draw(normal(16, 2))
    control = sf.Adaptive(1e-1, 1e-1, longest=0.25)
    angles = []
    for state in sf.integrate(field, solver, sf.State(x, begin, silent(16)), control):
        alpha, sigma = process.coefficients(state.t.flatten())
        angles.append(torch.atan2(sigma, field.data_std * alpha))
    steps = -torch.stack(angles).diff(dim=0)
    assert float(steps.max()) <= 0.25 * 1.011
    assert float(steps.max()) > 0.24, "the case meets the limit"


def test_a_repeated_step_is_shorter_and_none_grows_right_after_it():
    field, tried = mixture(PROCESSES["EDM"]), []

    class Watched(sf.Dopri5):
        def advance(self, field, state, s, *, error=False):
            tried.append((float(state.t[0]), float(s[0])))
            return super().advance(field, state, s, error=error)

    at = sf.State(80 * normal(1, 2), tensor(80.0)[0], silent(1))
    list(sf.integrate(field, Watched(), at, sf.Adaptive(1e-5, 1e-5)))
    lengths, repeats = [t - s for t, s in tried], 0
    for k in range(1, len(tried)):
        if tried[k][0] == tried[k - 1][0]:
            repeats += 1
            assert lengths[k] <= 0.9 * lengths[k - 1] * (1 + 1e-9)
            if k + 1 < len(tried) and tried[k + 1][0] != tried[k][0]:
                assert lengths[k + 1] <= 1.01 * lengths[k]
    assert repeats > 0


def test_a_sample_nobody_asked_for_cannot_fail_a_request():
    """The field is not a number for sample 7 alone, which only fills the batch."""
    process = PROCESSES["VP"]
    whole = mixture(process)
    bad = sf.prior(whole, 16).x[7]

    class Broken(sf.Mixture):
        def estimate(self, x, at, **condition):
            found = super().estimate(x, at, **condition)
            near = ((x - bad.to(x)).norm(dim=1) < 0.05)[:, None]
            return sf.Estimate.from_x0(x, at, torch.where(near, math.nan, found.x0))

    field = Broken(process, whole.weights, whole.means, whole.covariances)
    control = sf.Adaptive(1e-2, 1e-2)
    x = sf.sample(field, [2, 3], sf.Heun(), control, batch_size=16)
    assert torch.equal(x, sf.sample(field, [3, 2], sf.Heun(), control, batch_size=16).flip(0))
    with pytest.raises(NumericalError, match=r"samples \[7\]"):
        sf.sample(field, 16, sf.Heun(), control, batch_size=16)


def test_arriving_on_the_last_step_allowed_is_arriving():
    field = mixture(PROCESSES["VP"])
    at = sf.State(normal(3, 2), tensor(1.0)[0], silent(3))
    needed = len(list(sf.integrate(field, sf.Heun(), at, sf.Adaptive(1e-2, 1e-2)))) - 1
    exactly = sf.Adaptive(1e-2, 1e-2, max_steps=needed)
    *_, last = sf.integrate(field, sf.Heun(), at, exactly)
    assert (last.t == field.process.t_min).all()
    with pytest.raises(NumericalError, match="did not arrive"):
        list(sf.integrate(field, sf.Heun(), at, sf.Adaptive(1e-2, 1e-2, max_steps=needed - 1)))


@pytest.mark.parametrize("up", [False, True], ids=["to data", "to noise"])
def test_data_without_any_deviation_and_coordinates_at_zero_are_no_trouble(up):
    process = PROCESSES["VP"]
    field = sf.Gaussian(process, torch.zeros(2), torch.zeros(2, 2))
    ends = (process.t_min, process.t_max) if up else (process.t_max, process.t_min)
    x = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    at = sf.State(x, tensor(ends[0])[0], silent(2))
    control = sf.Adaptive(1e-3, 0.0, start=ends[0], end=ends[1])
    *_, last = sf.integrate(field, sf.Bosh3(), at, control)
    _, (first, second) = process.coefficients(tensor(*ends))
    torch.testing.assert_close(last.x, x * second / first, rtol=3e-2, atol=0)


def test_the_error_of_stochastic_heun_is_of_the_order_it_claims():
    """One and a half, since the noise of a step is of order one half."""
    field, errors = mixture(PROCESSES["VP"]), []
    assert sf.StochasticHeun().error_order == 1.5
    assert sf.StochasticHeun(0.0).error_order == 2
    for eta, claim in ((1.0, 1.5), (0.0, 2.0)):
        errors = []
        for h in (0.016, 0.004, 0.001):  # steps longer than an interval of the path
            at = sf.State(normal(500, 2), tensor(0.5)[0], silent(500))
            out = sf.StochasticHeun(eta).advance(field, at, tensor(0.5 - h)[0], error=True)
            errors.append(float(out.error.square().mean().sqrt()))
        assert math.log(errors[1] / errors[2], 4) == pytest.approx(claim, abs=0.1)


def test_a_prepared_run_refuses_samples_that_stand_elsewhere():
    field = mixture(PROCESSES["VP"])
    run = sf.prepare(field, sf.Heun(), sf.Adaptive(start=0.9, end=0.1))
    with pytest.raises(ValueError, match=r"samples must stand at t = 0\.9"):
        run(sf.State(normal(3, 2), tensor(0.05)[0], silent(3)))


def gaussian_moments(process, t):
    alpha, sigma = process.coefficients(tensor(t)[0])
    identity = torch.eye(2, dtype=torch.float64)
    return alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * identity


@pytest.mark.parametrize("name", ["VP", "EDM"])
def test_adaptive_steps_of_the_sde_draw_from_the_law_of_a_gaussian(name):
    """Repeated steps follow the same path: rejecting some must not bias the law."""
    process, count = PROCESSES[name], 2000
    control, end = sf.Adaptive(2e-2, 2e-2), process.t_min
    x = sf.sample(
        gaussian(process),
        count,
        sf.StochasticHeun(),
        control,
        seed=2,
        finish=False,
        batch_size=count,
        dtype=torch.float64,
    )
    mean, covariance = gaussian_moments(process, end)
    assert ((x.mean(0) - mean).abs() < 4 * (covariance.diagonal() / count).sqrt()).all()
    outer = (x - mean)[:, :, None] * (x - mean)[:, None]
    assert ((outer.mean(0) - covariance).abs() < 4 * outer.std(0) / count**0.5).all()


@pytest.mark.slow
def test_tighter_tolerances_converge_to_the_end_of_one_brownian_path():
    field = mixture(sf.VP(t_min=1e-3))

    def end(tolerance):
        control = sf.Adaptive(tolerance, tolerance)
        return sf.sample(
            field, 32, sf.StochasticHeun(), control, batch_size=32, dtype=torch.float64
        )

    finest = end(4e-4)
    gaps = [float((end(tolerance) - finest).norm(dim=1).mean()) for tolerance in (1e-1, 1e-2, 2e-3)]
    assert gaps[0] > 2 * gaps[1] > 3 * gaps[2]
    other = sf.sample(
        field,
        32,
        sf.StochasticHeun(),
        sf.Adaptive(1e-2, 1e-2),
        batch_size=32,
        seed=1,
        dtype=torch.float64,
    )
    assert float((other - finest).norm(dim=1).mean()) > 20 * gaps[1], "another seed, another path"


NO_ESTIMATE = [sf.DDIM(), sf.Multistep(3), sf.DDIM(1.0), sf.Churn(sf.Heun(), 5.0, 10), sf.unipc(2)]


@pytest.mark.parametrize("solver", NO_ESTIMATE, ids=label)
def test_a_solver_without_an_error_estimate_is_refused_before_any_call(solver):
    field = mixture(PROCESSES["VP"])
    at = sf.State(normal(2, 2), tensor(1.0)[0], silent(2))
    with sf.count_calls(field) as calls:
        with pytest.raises(ValueError, match=r"needs an error estimate.*Use Heun.*or give a grid"):
            sf.sample(field, 2, solver, sf.Adaptive())
        with pytest.raises(ValueError, match="needs an error estimate"):
            list(sf.integrate(field, solver, at, sf.Adaptive()))
    assert calls.count == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rtol": 0.0, "atol": 0.0}, "rtol=0, atol=0: give numbers >= 0, not both 0"),
        ({"rtol": -1e-3}, "rtol=-0.001"),
        ({"atol": math.nan}, "atol=nan"),
        ({"rtol": math.inf}, "rtol=inf"),
        ({"first": 0.0}, "first=0.*needs 0 < first <= 1"),
        ({"first": 1.5}, "first=1.5.*needs 0 < first <= 1"),
        ({"longest": 0.0}, "longest=0.*longest > 0"),
        ({"max_steps": 0}, "max_steps=0: must be a whole number, at least 1"),
        ({"rtol": 10**400}, "rtol=10{400}: must be a positive number"),
        ({"max_steps": 10**18}, "max_steps=10{18}: must be at most 100,000"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sf.Adaptive(**arguments)


@pytest.mark.parametrize("ends", [(0.5, 0.5), (1.5, 0.1), (0.5, -0.1), (math.nan, 0.1)])
def test_a_way_outside_the_interval_is_refused_before_any_call(ends):
    field = mixture(PROCESSES["VP"])
    with sf.count_calls(field) as calls, pytest.raises(ValueError, match="must be two times in"):
        sf.sample(field, 2, sf.Heun(), sf.Adaptive(start=ends[0], end=ends[1]))
    assert calls.count == 0


def test_sampling_refuses_a_way_from_data_to_noise_and_a_state_elsewhere():
    field, up = mixture(PROCESSES["VP"]), sf.Adaptive(start=0.1, end=0.9)
    with pytest.raises(ValueError, match="times rise"):
        sf.sample(field, 2, sf.Heun(), up)
    with pytest.raises(ValueError, match=r"is at t=0.7 and the times start at 0.1"):
        next(sf.integrate(field, sf.Heun(), sf.State(normal(2, 2), tensor(0.7)[0], silent(2)), up))


def test_too_few_steps_end_in_an_error_that_names_the_samples():
    field = mixture(PROCESSES["VP"])
    message = r"did not arrive in 7 steps for samples \[10, 11, 12\].*raise the tol.*or max_steps"
    at = sf.State(normal(3, 2), tensor(1.0)[0], sf.Noise(0, torch.tensor([10, 11, 12])))
    with pytest.raises(NumericalError, match=message):
        list(sf.integrate(field, sf.Dopri5(), at, sf.Adaptive(1e-8, 1e-8, max_steps=7)))


class Broken(nn.Module):
    """A network whose value is not a number below some noise level, for ``x[0] > 0``."""

    def __init__(self):
        super().__init__()
        self.inner = Network()

    def forward(self, x, label):
        bad = (label < -0.25) & (x[:, 0] > 0)
        return torch.where(bad[:, None], math.nan, self.inner(x, label))


@pytest.mark.parametrize("solver", [*ESTIMATING, sf.StochasticHeun()], ids=label)
def test_a_field_that_is_not_finite_ends_in_an_error_and_not_in_an_endless_walk(solver):
    process = sf.VP(t_min=1e-3)
    field = sf.Denoiser(Broken(), process, sf.X0(), (2,), label=sf.noise_label)
    with pytest.raises(NumericalError, match=r"t = 0\.\d+ for samples \[.*not finite"):
        sf.sample(field, 16, solver, sf.Adaptive(1e-2, 1e-2), batch_size=16, dtype=torch.float64)
