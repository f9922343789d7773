"""Plans fitted to a field: exact where paths are linear, and never worse than the general plan."""

import math

import pytest
import torch
from cases import PROCESS_IDS, PROCESSES, normal

import scorefield as sf
from scorefield.plan import Plan
from scorefield.solvers.fitted import Fitted, level_times
from scorefield.tuning import _Search, tune
from scorefield.tuning.student import Student
from scorefield.tuning.teacher import teach

LEVELS = (2.0, 0.5, -0.5, -1.5, -math.inf)


def spread(eigenvalues, process=None):
    process = sf.VP(t_min=1e-8) if process is None else process
    mean = torch.zeros(len(eigenvalues), dtype=torch.float64)
    return sf.Gaussian(process, mean, torch.tensor(eigenvalues).double().diag())


def ring(process=None):
    angle = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    means = torch.stack([angle.cos(), angle.sin()], 1)
    cov = 0.02 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2)
    process = sf.VP(t_min=1e-8) if process is None else process
    return sf.Mixture(process, torch.arange(1.0, 6), means, cov)


def student(field, count=64):
    noise = normal(count, *field.shape, seed=1)
    seen = torch.arange(count) % 2 == 0
    rule = sf.default_plan(field, 4).solver
    return Student(field, noise, teach(field, noise), seen, rule)


def test_the_teacher_follows_the_exact_path_of_a_gaussian():
    """Each coordinate keeps its place in its normal law: y is a multiple of its deviation."""
    values = [4.0, 1.0, 0.01]
    field, noise = spread(values), normal(20, 3, seed=0)
    paths = teach(field, noise)
    first = math.exp(float(-field.process.half_log_snr(torch.tensor(1.0).double())))
    z = paths.at(math.log(first)) / (torch.tensor(values).double() + first**2).sqrt()
    for level in (1.3, -0.2, -3.0):
        deviation = (torch.tensor(values).double() + math.exp(2 * level)).sqrt()
        torch.testing.assert_close(paths.at(level), z * deviation, rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(
        paths.end, z * torch.tensor(values).double().sqrt(), rtol=5e-4, atol=0
    )


@pytest.mark.parametrize("values", [[1.0, 1.0], [2.0, 0.3, 2.0], [4.0, 1.0, 0.05, 1.0]])
def test_steps_of_a_gaussian_with_few_deviations_are_exact(values):
    """As many estimates as there are deviations solve the linear path, whatever the levels."""
    taught = student(spread(values))
    _, errors = taught.learn(LEVELS)
    assert float(errors.max()) < 3e-4


@pytest.mark.parametrize(("nfe", "share"), [(4, 0.5), (8, 0.75)])
def test_a_tuned_plan_is_nearer_the_path_than_the_general_one(nfe, share):
    found = tune(ring(), nfe, noises=128)
    assert found.error < share * found.general
    assert found.teacher < 0.02 * found.error
    fresh = tune(ring(), nfe, noises=64, tries=1, seed=5)
    assert fresh.general == pytest.approx(found.general, rel=0.3), "another draw of the same thing"


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_is_never_worse_than_the_general_one(seed):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(4, 3, generator=g, dtype=torch.float64) * 2 ** (seed % 3)
    root = torch.randn(4, 3, 3, generator=g, dtype=torch.float64) / 2
    cov = root @ root.mT + 1e-3 * torch.eye(3, dtype=torch.float64)
    field = sf.Mixture(sf.VP(t_min=1e-8), torch.rand(4, generator=g) + 0.1, means, cov)
    found = tune(field, 3 + seed, noises=64, tries=5, seed=seed)
    assert found.error <= found.general


@pytest.mark.parametrize("name", PROCESS_IDS)
def test_a_plan_fitted_on_one_process_makes_the_same_samples_on_any(name):
    process, field = PROCESSES[name], ring()
    solver, _ = student(field).learn((0.5, 0.0, -0.7, -1.0))
    here, there = (Plan(solver, solver.times(p), finish=False) for p in (field.process, process))
    x = sf.sample(field, 8, here) / field.process.alpha(here.times[-1])
    y = sf.sample(ring(process), 8, there) / process.alpha(there.times[-1])
    torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-6)
    if name == "EDM":
        z = sf.sample(field.under(process), 8, there)
        torch.testing.assert_close(z, y * process.alpha(there.times[-1]), rtol=1e-4, atol=1e-6)


def test_a_sample_of_a_fitted_plan_does_not_depend_on_its_batch():
    field = ring()
    solver, _ = student(field).learn(LEVELS)
    plan = Plan(solver, solver.times(field.process), finish=False)
    whole = sf.sample(field, 10, plan)
    assert torch.equal(sf.sample(field, [7, 2], plan), whole[[7, 2]])
    with sf.count_calls(field) as calls:
        sf.sample(field, 3, plan)
    assert calls.count == 4


def test_the_same_seed_makes_the_same_plan():
    one, other = (tune(ring(), 4, noises=64, tries=4, seed=2) for _ in range(2))
    assert one.plan.solver == other.plan.solver
    assert one.error == other.error


def test_a_search_that_leaves_the_process_is_sent_back():
    taught = student(ring())
    search = _Search(taught, -math.inf, lambda error: None)
    assert search.loss(torch.tensor([99.0, 1.0, 1.0, 1.0]).numpy()) == 1e9
    assert search.loss(torch.tensor([2.0, 1.0, 1.0, 1.0]).numpy()) < 1


@pytest.mark.parametrize(
    ("levels", "table", "message"),
    [
        ((1.0, 2.0), ((1.0, 0.0, 0.0),), "give falling levels"),
        ((1.0, 0.0), ((1.0, 0.0),), r"rows of \[2\] numbers"),
        ((1.0,), (), r"rows of \[\] numbers"),
    ],
)
def test_a_table_that_is_none_is_refused(levels, table, message):
    with pytest.raises(ValueError, match=message):
        Fitted(levels, table)


def test_a_fitted_solver_refuses_other_times_and_another_turn():
    field = ring()
    solver, _ = student(field).learn(LEVELS)
    with pytest.raises(ValueError, match="use its own times"):
        sf.sample(field, 2, solver, sf.uniform(field.process, 4))
    times = solver.times(field.process)
    at = sf.State(torch.zeros(2, 2).double(), times[1], sf.Noise(0, torch.arange(2)))
    with pytest.raises(ValueError, match="step 0 of a fitted solver"):
        solver.step(field, at, times[2])
    with pytest.raises(ValueError, match=r"the levels go from sigma/alpha = 2.2e\+04"):
        level_times(sf.VP(), (10.0, 0.0))
    with pytest.raises(ValueError, match="give falling ones"):
        level_times(sf.VP(), (0.0, 0.0))


@pytest.mark.parametrize("nfe", [1, 2.5])
def test_a_budget_that_is_none_is_refused(nfe):
    with pytest.raises(ValueError, match="at least 2"):
        tune(ring(), nfe)
