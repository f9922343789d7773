"""Generation: a sample is a function of field, plan, seed and id, and of nothing else."""

import itertools
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import (
    ALL_PROCESSES,
    ALL_SOLVERS,
    PROCESS_IDS,
    PROCESSES,
    label,
    linear_alpha_bar,
    mixture,
    normal,
    silent,
    tensor,
)
from torch import nn

import scorefield as sf
from scorefield.evaluate.certify import ODE_SOLVERS, SDE_SOLVERS

ROOT = Path(sf.__file__).parent
CERTIFIED = {name: make(4) for name, make in {**ODE_SOLVERS, **SDE_SOLVERS}.items()}
every_solver = pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)


class Network(nn.Module):
    """A small network with random weights, of shape 2 -> 2."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x, label):
        return self.layers(torch.cat([x, label[:, None]], 1))


def network_field(process):
    return sf.Denoiser(Network(), process, sf.Preconditioned(), (2,))


PROCESS = sf.VP(t_min=1e-3)
FIELDS = [mixture(PROCESS), network_field(PROCESS)]
every_field = pytest.mark.parametrize("field", FIELDS, ids=["exact", "network"])


@pytest.mark.parametrize("solver", CERTIFIED.values(), ids=CERTIFIED)
@every_field
def test_a_sample_by_id_is_the_same_bits_alone_in_any_order_and_in_any_split(solver, field):
    times = sf.even_log_snr(PROCESS, 4)

    def run(n, **options):
        return sf.sample(field, n, solver, times, seed=3, batch_size=8, **options)

    whole = run(11)
    assert whole.shape == (11, 2)
    assert whole.dtype == torch.float32
    assert whole.isfinite().all()
    assert torch.equal(torch.cat([run([k]) for k in (0, 7, 10)]), whole[[0, 7, 10]])
    order = [10, 3, 3, 0, 9, 1, 2, 8, 7, 4, 6, 5]
    assert torch.equal(run(order), whole[order])
    assert torch.equal(torch.cat([run(range(0, 5)), run(range(5, 11))]), whole)
    assert torch.equal(run(3), whole[:3])
    assert not torch.equal(sf.sample(field, 11, solver, times, seed=4, batch_size=8), whole)
    other_size = sf.sample(field, 11, solver, times, seed=3, batch_size=5)
    torch.testing.assert_close(other_size, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
def test_the_default_plan_draws_from_the_law_of_the_data(process):
    """Mean and covariance of 600 samples lie within four standard errors, on every process."""
    field, count = mixture(process), 600
    x = sf.sample(field, count, batch_size=600, dtype=torch.float64)
    mean = field.weights @ field.means
    centred = field.means - mean
    spread = field.covariances + centred[:, :, None] * centred[:, None]
    covariance = torch.einsum("k,kij->ij", field.weights, spread)
    assert ((x.mean(0) - mean).abs() < 4 * (covariance.diagonal() / count).sqrt()).all()
    outer = (x - mean)[:, :, None] * (x - mean)[:, None]
    standard = outer.std(0) / count**0.5
    assert ((outer.mean(0) - covariance).abs() < 4 * standard).all()


def test_samples_start_from_the_noised_moments_of_the_data():
    """On VE the data's own mean and variance are still there at the end: N(0, s^2) would be off."""
    process, count = sf.VE(sigma_max=2.0), 20000
    mean, variance = tensor(3.0, -1.0), tensor(4.0, 0.25)
    field = sf.Gaussian(process, mean, torch.diag(variance))
    end = tensor(process.t_max)[0]
    x = sf.prior(field, count, dtype=torch.float64).x
    total = variance + process.sigma(end) ** 2
    assert ((x.mean(0) - mean).abs() < 4 * (total / count).sqrt()).all()
    assert ((x.var(0) / total - 1).abs() < 4 * (2 / count) ** 0.5).all()


def test_without_the_finish_samples_keep_the_noise_of_the_last_time():
    field = mixture(PROCESS)
    times = sf.even_log_snr(PROCESS, 6, end=0.2)
    rough = sf.sample(field, 5, sf.Heun(), times, finish=False)
    torch.testing.assert_close(field(rough, 0.2).x0, sf.sample(field, 5, sf.Heun(), times))


@every_solver
def test_every_call_of_the_field_is_counted(solver):
    field, steps = mixture(PROCESS), 6
    times = sf.even_log_snr(PROCESS, steps)
    with sf.count_calls(field) as calls:
        sf.sample(field, 10, solver, times, batch_size=4, finish=False)
    assert (calls.count, calls.rows) == (3 * steps * solver.calls, 12 * steps * solver.calls)
    with sf.count_calls(field) as calls:
        sf.sample(field, 4, solver, times, batch_size=4)
    assert calls.count == steps * solver.calls + 1, "the finish is one more call"
    sf.sample(field, 4, solver, times, batch_size=4)
    assert calls.count == steps * solver.calls + 1, "outside the block nothing is counted"


@every_solver
def test_integrate_yields_the_state_at_every_time_of_the_grid(solver):
    field, times = mixture(PROCESS), sf.even_log_snr(PROCESS, 5)
    x = normal(3, 2)
    states = list(sf.integrate(field, solver, sf.State(x, times[0], silent(3)), times))
    assert [float(state.t) for state in states] == times.tolist()
    assert states[0].x is x
    again = sf.State(x, times[0], silent(3))
    for state, s in zip(states[1:], times[1:], strict=True):
        again = solver.advance(field, again, s)
        assert torch.equal(state.x, again.x)


@every_solver
def test_solvers_and_states_are_never_changed_by_a_step(solver):
    """A run may be resumed from any of its states, and one solver may serve two runs at once."""
    field, times = mixture(PROCESS), sf.even_log_snr(PROCESS, 6)
    run = sf.integrate(field, solver, sf.State(normal(3, 2), times[0], silent(3)), times)
    other = sf.integrate(field, solver, sf.State(normal(3, 2, seed=1), times[0], silent(3)), times)
    states = [state for state, _ in zip(run, other, strict=True)]
    resumed = list(sf.integrate(field, solver, states[3], times[3:]))
    assert torch.equal(resumed[-1].x, states[-1].x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@every_solver
def test_the_state_keeps_its_type_to_the_last_step(solver, dtype):
    field, times = mixture(PROCESS), sf.uniform(PROCESS, 3, end=0.1)
    x = sf.sample(field, 3, solver, times, dtype=dtype)
    assert x.dtype == dtype
    wide = sf.sample(field, 3, solver, times, dtype=torch.float64)
    tolerance = {torch.float64: 0.0, torch.float32: 1e-4, torch.bfloat16: 0.2}[dtype]
    torch.testing.assert_close(x.double(), wide, rtol=tolerance, atol=tolerance)


def test_a_sample_of_no_ids_is_empty():
    assert sf.sample(mixture(PROCESS), 0).shape == (0, 2)
    assert sf.sample(mixture(PROCESS), []).shape == (0, 2)


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (-1, {}, "must be a number of samples or a list of ids"),
        ([3, -2], {}, "must be a number of samples or a list of ids"),
        (4, {"batch_size": 0}, "batch_size=0: must be"),
        (4, {"times": tensor(0.1, 0.5)}, r"times rise.*times.flip\(0\)"),
        (4, {"times": tensor(0.5, 0.7, 0.1)}, "must fall strictly"),
        (4, {"times": tensor(1.2, 0.5)}, "outside the process's"),
        (4, {"times": tensor(0.5)}, "give two or more"),
        (4, {"times": tensor(math.nan, 0.1)}, "outside the process's"),
        (4, {"seed": -1}, "seed=-1"),
        (4, {"seed": 1.5}, "seed=1.5"),
        (4, {"batch_size": 1.5}, "batch_size=1.5"),
        (4, {"solver": sf.Heun}, r"solver=Heun: must be an instance; write Heun\("),
        (
            4,
            {"solver": tensor(0.5, 0.1)},
            r"solver=tensor.*must be a Solver; write one such as Heun\(\)",
        ),
        (
            4,
            {"solver": sf.default_plan(FIELDS[0]), "times": tensor(0.5, 0.1)},
            "times cannot be combined with a plan",
        ),
    ],
)
def test_an_impossible_request_is_refused_before_any_call(n, options, message):
    field = mixture(PROCESS)
    with sf.count_calls(field) as calls, pytest.raises(ValueError, match=message):
        sf.sample(field, n, **options)
    assert calls.count == 0


def entered(run):
    """Return the functions of the library that a call enters, without comprehensions."""
    names = set()

    def look(frame, event, _):
        code = frame.f_code
        if event == "call" and Path(code.co_filename).is_relative_to(ROOT):
            names.add((code.co_filename, code.co_qualname))

    run()  # so that nothing is imported or cached in the second run
    before = sys.getprofile()
    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(before)
    return {name for name in names if not name[1].endswith("comp>") and "<genexpr>" not in name[1]}


def test_few_functions_stand_between_sample_and_the_network():
    class Null(nn.Module):
        def forward(self, x, label):
            return torch.zeros_like(x)

    field = sf.Denoiser(Null(), sf.VP(), sf.Eps(), (2,))
    solver, times = sf.DDIM(), sf.balanced(field.process, 10)
    found = entered(lambda: sf.sample(field, 4, solver, times))
    assert 20 < len(found) <= 40, sorted(found)


def test_integrate_refuses_a_state_that_does_not_stand_at_the_start():
    at = sf.State(normal(3, 2), tensor(0.7)[0], silent(3))
    with pytest.raises(ValueError, match=r"is at t=0.7 and the times start at 0.5"):
        next(sf.integrate(mixture(PROCESS), sf.Heun(), at, tensor(0.5, 0.1)))


ROWS = {1: [1], 32: [32], 64: [64], 65: [33, 33], 130: [44, 44, 44]}  # of samples, in each call


@pytest.mark.parametrize(("count", "rows"), ROWS.items())
def test_batches_are_equal_and_no_larger_than_the_samples_need(count, rows):
    """One sample once cost as much as 64; with another size of batches the values are close."""
    field = mixture(PROCESS)
    x = sf.sample(field, count, nfe=4, dtype=torch.float64)
    seen = []
    handle = field.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    few = sf.sample(field, count, nfe=4, dtype=torch.float64)
    codes = sf.encode(field, few, nfe=4, check=False)
    sf.decode(field, codes, nfe=4, check=False)
    sf.log_prob(field, few, nfe=8)
    sf.elbo(field, few, nfe=4)
    known = torch.where(torch.tensor([True, False]), few, torch.nan)
    sf.restore(field, known, nfe=4)
    handle.remove()
    assert set(seen) == set(rows)
    assert seen.count(rows[0]) >= 6 * len(rows)
    padded = sf.sample(field, count, nfe=4, dtype=torch.float64, batch_size=64)
    torch.testing.assert_close(x, padded, rtol=0, atol=1e-5)


def test_a_tensor_of_ids_is_ids_however_many_it_holds():
    field = mixture(PROCESS)
    whole = sf.sample(field, 6)
    for ids in ([5], [5, 2], []):
        few = sf.sample(field, torch.tensor(ids, dtype=torch.int64), batch_size=6)
        assert torch.equal(few, whole[ids])
    assert torch.equal(sf.sample(field, torch.tensor(6)), whole)


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(2)], ids=["dropout", "batch norm"])
def test_a_network_that_mixes_or_drops_is_refused_in_training(layer):
    class Mixed(Network):
        def __init__(self):
            super().__init__()
            self.last = layer

        def forward(self, x, label):
            return self.last(super().forward(x, label))

    field = sf.Denoiser(Mixed(), PROCESS, sf.Preconditioned(), (2,))
    with pytest.raises(ValueError, match=r"network.last .* is in training.*field.eval\(\)"):
        sf.sample(field, 4)
    assert sf.sample(field.eval(), 4).isfinite().all()


# --- the end at the data, and the default plan ----------------------------------------------------


class Shifted(sf.Process):
    """A process whose formulas cannot be continued to where there is no noise."""

    t_min, t_max = 0.1, 5.0

    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return 0.05 + t


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
def test_the_time_of_the_data_has_all_signal_and_no_noise(process):
    t = tensor(process.t_data)[0]
    assert process.t_data < process.t_min
    assert process.coefficients(t) == (1.0, 0.0)
    between = torch.linspace(process.t_data, process.t_min, 9).double()
    assert (process.half_log_snr(between).diff() < 0).all(), "and the way there is monotone"


def test_a_process_that_does_not_come_from_the_data_has_no_time_of_it():
    assert Shifted().t_data is None
    with pytest.raises(ValueError, match=r"to_data with end = None on .*can be continued"):
        sf.balanced(Shifted(), 4, to_data=True)


def test_a_process_that_cannot_be_asked_before_its_start_can_be_sampled():
    class Guarded(Shifted):
        def sigma(self, t):
            if bool((t <= 0).any()):
                raise RuntimeError("no noise is known there")
            return 0.05 + t

    assert Guarded().t_data is None
    for plan in (None, sf.Plan(sf.Heun(), sf.uniform(Guarded(), 4))):
        assert sf.sample(mixture(Guarded()), 4, plan).isfinite().all()


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
def test_a_run_that_ends_at_the_data_costs_no_call_there_and_leaves_no_noise(process):
    """With DDIM the last step is the denoiser's call; with order 3 it is better than that."""
    field = mixture(process)
    times = sf.balanced(process, 8, to_data=True)
    assert times[-1] == process.t_data
    with sf.count_calls(field) as calls:
        ended = sf.sample(field, 32, sf.DDIM(), times, dtype=torch.float64)
    assert calls.count == 8
    finished = sf.sample(field, 32, sf.DDIM(), times[:-1], dtype=torch.float64)
    torch.testing.assert_close(ended, finished, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"a call of the field at t = .*outside"):
        sf.sample(field, 2, sf.Heun(), times)


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
def test_the_default_plan_spends_the_calls_it_is_given_and_is_better_for_more(process):
    """By the distance to the ends of the paths that another solver finds in 1,200 calls."""
    field, count = mixture(process), 128
    times = sf.balanced(process, 200, end=process.t_min)
    end = sf.sample(field, count, sf.Tsit5(), times, batch_size=count, dtype=torch.float64)
    errors = []
    for nfe in (4, 6, 10, 20, 40):
        with sf.count_calls(field) as calls:
            plan = sf.default_plan(field, nfe)
            x = sf.sample(field, count, plan, batch_size=count, dtype=torch.float64)
        assert calls.count == nfe
        errors.append(float((x - end).norm(dim=1).mean()))
    assert all(fine < 0.7 * coarse for coarse, fine in itertools.pairwise(errors[:-1]))
    assert errors[-1] < min(errors[-2], 3e-3)


def test_a_plan_stands_where_a_solver_and_its_times_do():
    field = mixture(PROCESS)
    plan = sf.Plan(sf.Heun(), sf.uniform(PROCESS, 5))
    at = sf.prior(field, 3)
    *_, last = sf.integrate(field, plan, at)
    assert torch.equal(last.x, sf.prepare(field, plan)(at).x)
    assert torch.equal(last.x, sf.prepare(field, plan.solver, plan.times)(at).x)
    rough = sf.sample(field, 3, replace(plan, finish=False))
    assert torch.equal(rough, sf.sample(field, 3, plan.solver, plan.times, finish=False))
    assert not torch.equal(rough, sf.sample(field, 3, plan))


@pytest.mark.parametrize("nfe", [2, 3, 5, 8, 12, 20, 33])
def test_the_default_plan_suits_a_process_without_a_time_of_the_data(nfe):
    field = mixture(Shifted())
    with sf.count_calls(field) as calls:
        x = sf.sample(field, 8, sf.default_plan(field, nfe))
    assert calls.count == nfe
    assert x.isfinite().all()


@pytest.mark.parametrize("nfe", [2, 4, 8, 20, 100])
@pytest.mark.parametrize(
    "process",
    [sf.Flow(t_max=1.0), sf.Tabulated(linear_alpha_bar() - linear_alpha_bar()[-1])],
    ids=["Flow", "Tabulated"],
)
def test_the_default_plan_starts_where_there_is_signal(process, nfe):
    field = mixture(process)
    plan = sf.default_plan(field, nfe)
    assert float(process.alpha(plan.times[0])) > 0
    assert sf.sample(field, 8, plan).isfinite().all()


def test_the_default_plan_never_calls_the_field_below_the_process():
    process = sf.VP(t_min=1e-2)
    for nfe in (4, 20, 100, 400):
        times = sf.default_plan(mixture(process), nfe).times
        assert (times[:-1] >= process.t_min).all()
        assert (times.diff() < 0).all()
    for nfe in (1, 2.5):
        with pytest.raises(ValueError, match=f"nfe={nfe}: must be a whole number, at least 2"):
            sf.default_plan(mixture(process), nfe)
    wide = sf.EDM(1e-5, 1e6)
    times = sf.default_plan(mixture(wide), 20).times
    assert times[-1] == 0, "times are near t_min where the noise is, however long the interval"
    hidden = sf.Gaussian(sf.VP(), torch.zeros(2), 1e-14 * torch.eye(2))
    with pytest.raises(ValueError, match="deviation 1e-07 disappears in the lowest noise"):
        sf.sample(hidden, 3)
    flat = sf.Gaussian(process, torch.zeros(2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="data_std=0: must be a positive number"):
        sf.sample(flat, 3)


# the face: solver, times, nfe


def balanced(field, steps, **ends):
    return sf.balanced(field.process, steps, data_std=field.data_std, **ends)


@pytest.mark.parametrize("nfe", [2, 3, 4, 5, 8, 13, 20])
def test_a_plan_knows_its_calls(nfe):
    for process in PROCESSES.values():
        field = mixture(process)
        plan = sf.default_plan(field, nfe=nfe)
        with sf.count_calls(field) as calls:
            sf.sample(field, 2, plan)
        assert plan.nfe == calls.count == nfe


@every_solver
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_plan_of_a_solver_knows_its_calls(solver, steps):
    field = mixture(PROCESS)
    for times in (sf.balanced(PROCESS, steps), sf.uniform(PROCESS, steps)):
        for finish in (True, False):
            plan = sf.Plan(solver, times, finish)
            with sf.count_calls(field) as calls:
                sf.sample(field, 2, plan)
            assert plan.nfe == calls.count


def test_calls_that_depend_on_noise_levels_or_on_the_state_are_not_claimed():
    times = sf.balanced(PROCESS, 6)
    restart = sf.Restart(sf.Heun(), 0.1, 1.0)
    program = sf.Program((sf.Heun(), sf.DDIM()), (1.0,))
    assert sf.Plan(restart, times).nfe is None
    assert sf.Plan(program, times).nfe is None
    assert sf.Plan(sf.Program((sf.Heun(), sf.Midpoint()), (1.0,)), times).nfe == 13
    assert sf.Plan(sf.Heun(), sf.Adaptive()).nfe is None


@pytest.mark.parametrize("nfe", [4, 5, 9, 16])
@pytest.mark.parametrize(
    "solver",
    [
        sf.DDIM(),
        sf.Heun(),
        sf.Multistep(3),
        sf.RK4(),
        sf.Restart(sf.DDIM(), 0.1, 1.0),
        sf.Program((sf.Heun(), sf.DDIM()), (1.0,)),
    ],
    ids=str,
)
def test_a_solver_makes_as_many_steps_as_its_calls_allow(solver, nfe):
    field = mixture(PROCESS)

    def calls(**choice):
        with sf.count_calls(field) as count:
            sf.sample(field, 1, solver, **choice)
        return count.count

    least = calls(times=1)
    if least > nfe:
        with pytest.raises(ValueError, match=f"nfe={nfe}: must be at least {least}"):
            calls(nfe=nfe)
        return
    made = calls(nfe=nfe)
    steps = max(steps for steps in range(1, nfe) if calls(times=steps) == made)
    assert made <= nfe < calls(times=steps + 1)
    x = sf.sample(field, 3, solver, nfe=nfe)
    assert torch.equal(x, sf.sample(field, 3, solver, balanced(field, steps)))


def test_whole_numbers_of_steps_and_calls_mean_the_same_everywhere():
    field = mixture(PROCESS)
    x = sf.sample(field, 5, sf.Heun(), 6)
    assert torch.equal(x, sf.sample(field, 5, sf.Heun(), balanced(field, 6)))
    assert torch.equal(
        sf.sample(field, 5, nfe=6), sf.sample(field, 5, sf.default_plan(field, nfe=6))
    )
    plan = sf.default_plan(field, nfe=6)
    assert torch.equal(sf.sample(field, 5, plan, nfe=6), sf.sample(field, 5, plan))
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        sf.unroll(field, z, nfe=6), sf.unroll(field, z, sf.default_plan(field, nfe=6))
    )
    steps = sf.round_trip_plan(field, nfe=12).times
    for codes in (
        sf.encode(field, x, nfe=12),
        sf.encode(field, x, sf.round_trip_plan(field, nfe=12)),
        sf.encode(field, x, times=12),
    ):
        assert codes.nfe == 24
        assert torch.equal(codes.z, sf.encode(field, x, times=steps).z)
    assert torch.equal(
        sf.decode(field, x, sf.Heun(), nfe=12).x, sf.decode(field, x, sf.Heun(), times=6).x
    )
    strip = sf.interpolate(field, x[:2], x[2:4], points=3, nfe=12)
    assert strip.nfe == 36
    observed = torch.where(torch.tensor([True, False]), x, math.nan)
    assert torch.equal(
        sf.restore(field, observed, nfe=7),
        sf.restore(
            field,
            observed,
            solver=sf.Multistep(2, sf.AnglePrediction(field.data_std), eta=1.0),
            times=6,
        ),
    )


def test_the_samples_of_integrate_from_the_prior_are_those_of_sample():
    field = mixture(PROCESS)
    for solver in (sf.Heun(), sf.DDIM(1.0)):
        *_, state = sf.integrate(field, solver, sf.prior(field, 16, seed=3), 20)
        x = sf.sample(field, 16, solver, 20, seed=3, batch_size=16, finish=False)
        assert torch.equal(state.x, x)
    half = sf.prior(field, [4, 2], 0.5, dtype=torch.float64)
    assert half.x.dtype == torch.float64
    states = list(sf.integrate(field, sf.Heun(), half, 3))
    assert [float(state.t) for state in states] == balanced(field, 3, start=0.5).tolist()
    whole = sf.prior(field, 5, 0.5, dtype=torch.float64)
    assert torch.equal(half.x, whole.x[[4, 2]])


FIELD = mixture(PROCESS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sf.sample(FIELD, (16, 2)), r"n=(16, 2) is a tuple: a sample's shape is the field"),
        (lambda: sf.sample(FIELD, torch.Size([16])), "n=(16,) is a tuple"),
        (lambda: sf.prior(FIELD, (16, 2)), "Write n=16, or give ids as a list"),
        (lambda: sf.sample(16, FIELD), "field=16: must be a ScoreField; write the field first"),
        (lambda: sf.encode(FIELD.process, torch.zeros(1, 2)), "field=VP("),
        (lambda: sf.log_prob(torch.zeros(1, 2), FIELD), "field=tensor([[0., 0.]]): must be"),
        (lambda: sf.sample(FIELD, 2, sf.Heun), "solver=Heun: must be an instance"),
        (lambda: sf.sample(FIELD, 2, sf.Heun(), 4, nfe=8), "nfe=8: cannot be combined with times"),
        (lambda: sf.sample(FIELD, 2, sf.default_plan(FIELD, 4), nfe=8), "the plan makes 4 calls"),
        (lambda: sf.sample(FIELD, 2, sf.Heun(), nfe=2.5), "nfe=2.5: must be a whole number"),
        (lambda: sf.prior(FIELD, 2, 7.0), "t=7: must be in [0.001, 1]"),
        (
            lambda: sf.Gaussian(torch.zeros(2), torch.eye(2), sf.VP()),
            "process=tensor([0., 0.]): must be a Process; write Gaussian(process, mean, cov",
        ),
        (lambda: sf.Gaussian(sf.VP, torch.zeros(2), torch.eye(2)), "process=VP: must be an inst"),
        (lambda: sf.balanced(sf.VP, 8), "write VP(...)"),
        (
            lambda: sf.Denoiser(torch.nn.Identity, sf.VP(), sf.V(), (2,)),
            "network=Identity: must be an instance; write Identity(...)",
        ),
        (
            lambda: sf.Denoiser(torch.nn.Identity(), sf.VP(), sf.V, (2,)),
            "parametrization=V: must be an instance; write V(...)",
        ),
        (
            lambda: sf.Denoiser(torch.nn.Identity(), sf.VP, sf.V(), (2,)),
            "process=VP: must be an instance; write VP(...)",
        ),
        (lambda: sf.Denoiser(torch.nn.Identity(), sf.VP(), sf.V(), 2), "shape=2: must be a tuple"),
        (lambda: FIELD([[0.0, 0.0]], 0.5), "write torch.as_tensor(x)"),
        (lambda: sf.Gaussian(sf.VP(), [0.0], torch.eye(1)), "mean=[0.0]: must be a Tensor"),
        (lambda: sf.sample(FIELD, 2, sf.Heun(), 8.0), "times=8: must be a number of steps"),
        (lambda: sf.sample(FIELD, 2, sf.Dopri5(), sf.Adaptive), "write Adaptive(...)"),
        (lambda: FIELD.under(sf.Flow), "process=Flow: must be an instance; write Flow(...)"),
        (lambda: sf.Training(torch.zeros(4, 2)), "data=Tensor(...): must be a Data; write Data(x)"),
        (lambda: sf.Matrix([[1.0]]), "matrix=[[1.0]]: must be a Tensor"),
        (
            lambda: sf.metrics.compare(torch.rand(64, 2), torch.rand(64, 2), metrics=["mmd"]),
            "metric='mmd': must be a Metric; write one such as metrics.EnergyDistance()",
        ),
        (lambda: sf.balanced(8, sf.VP()), "process=8: must be a Process"),
        (lambda: sf.prior(2, FIELD), "field=2: must be a ScoreField; write the field first"),
        (
            lambda: next(sf.integrate(FIELD, sf.Heun(), torch.zeros(2, 2), 8)),
            "state=Tensor(...): must be a State; write one such as prior(field, 16)",
        ),
    ],
)
def test_wrong_kinds_of_arguments_get_one_clear_error(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
