"""Plans fitted to a field: exact where paths are linear, and never worse than the default plan."""

import itertools
import json
import math
import statistics
from dataclasses import replace

import own_networks
import pytest
import torch
from cases import PROCESS_IDS, PROCESSES
from torch import nn

import scorefield as sf
from scorefield._internal.errors import NumericalError
from scorefield.runs.tune import RunTuner
from scorefield.sampling import Plan
from scorefield.solvers import Fitted, level_times
from scorefield.tuning import Tuner, tune
from scorefield.tuning.insert import insertion_calls, lengthened
from scorefield.tuning.noises import distances, draw, mean_distance
from scorefield.tuning.polish import polished
from scorefield.tuning.search import Search, packed, unpacked
from scorefield.tuning.student import Student
from scorefield.tuning.teacher import ends, teach
from scorefield.tuning.tried import Tried
from scorefield.tuning.walk import Walk

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


def noises(field, count=64, batch_size=64, **conditions):
    return draw(field, count, conditions, 1, batch_size)


def student(field, count=64, batch_size=64, chosen=None):
    chosen = torch.arange(math.prod(field.shape)) if chosen is None else chosen
    seen = torch.arange(count) % 2 == 0
    of = noises(field, count, batch_size)
    return Student(of, teach(of, chosen), chosen, seen)


def test_the_teacher_follows_the_exact_path_of_a_gaussian():
    """Each coordinate keeps its place in its normal law: y is a multiple of its deviation."""
    values = [4.0, 1.0, 0.01]
    field = spread(values)
    of = noises(field, 20, batch_size=7)
    paths, some = teach(of, torch.arange(3)), teach(of, torch.tensor([0, 2]))
    first = math.exp(float(-field.process.half_log_snr(torch.tensor(1.0).double())))
    z = paths.at(math.log(first)) / (torch.tensor(values).double() + first**2).sqrt()
    for level in (1.3, -0.2, -3.0):
        deviation = (torch.tensor(values).double() + math.exp(2 * level)).sqrt()
        torch.testing.assert_close(paths.at(level), z * deviation, rtol=2e-5, atol=1e-7)
        assert torch.equal(some.at(level), paths.at(level)[:, [0, 2]])
    exact = z * torch.tensor(values).double().sqrt()
    torch.testing.assert_close(paths.end, exact, rtol=5e-4, atol=0)
    torch.testing.assert_close(ends(of, 400), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("values", [[1.0, 1.0], [2.0, 0.3, 2.0], [4.0, 1.0, 0.05, 1.0]])
def test_steps_of_a_gaussian_with_few_deviations_are_exact(values):
    """As many estimates as there are deviations solve the linear path, whatever the levels."""
    taught = student(spread(values))
    _, errors = taught.learn(LEVELS)
    assert float(errors.max()) < 3e-4


@pytest.mark.parametrize(("nfe", "share"), [(4, 0.4), (8, 0.7)])
def test_a_tuned_plan_is_nearer_the_path_than_the_default_one(nfe, share):
    found = tune(ring(), nfe, noises=128, tries=40, polish=8).tuning
    assert found.error < share * found.default
    assert found.teacher < 0.02 * found.error
    fresh = tune(ring(), nfe, noises=64, tries=1, polish=0, seed=5).tuning
    assert fresh.default == pytest.approx(found.default, rel=0.3), "another draw of the same thing"


def test_what_a_plan_is_said_to_be_worth_holds_for_other_noises():
    """The mean distance of new samples from the ends of their own exact paths."""
    field = ring()
    plan = tune(field, 6, noises=128, tries=40, polish=4)
    with sf.count_calls(field) as calls:
        x = sf.sample(field, 256, plan, seed=9, batch_size=256)
    assert calls.count == plan.tuning.nfe == 6
    far = sf.prior(field, 256, seed=9, dtype=torch.float64)
    times = sf.balanced(field.process, 400, to_data=True)
    *_, exact = sf.integrate(field, sf.Multistep(4, corrector=True), far, times)
    error = (x - exact.x).norm(dim=1) / math.sqrt(2)
    spread = float(error.std()) / math.sqrt(256)
    assert abs(float(error.mean()) - plan.tuning.error) < 4 * math.sqrt(2) * spread


def test_a_field_that_is_not_finite_is_fitted_no_plan():
    class Overflown(sf.ScoreField):
        def estimate(self, x, at):
            return sf.Estimate.from_x0(x, at, x * torch.inf)

    with pytest.raises(NumericalError, match="field: its paths end in values that are not finite"):
        sf.tune(Overflown(sf.VP(), (2,)), 4, noises=8, tries=1)


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_is_never_worse_than_the_default_one(seed):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(4, 3, generator=g, dtype=torch.float64) * 2 ** (seed % 3)
    root = torch.randn(4, 3, 3, generator=g, dtype=torch.float64) / 2
    cov = root @ root.mT + 1e-3 * torch.eye(3, dtype=torch.float64)
    field = sf.Mixture(sf.VP(t_min=1e-8), torch.rand(4, generator=g) + 0.1, means, cov)
    found = tune(field, 3 + seed, noises=64, tries=5, polish=2, seed=seed)
    fresh = draw(field, 400, {}, seed + 100, 400)
    end = ends(fresh, 384)
    plans = found, sf.default_plan(field, 3 + seed)
    fitted, usual = ((fresh.carried(plan) - end).norm(dim=1) for plan in plans)
    both = float((fitted - usual).std()) / math.sqrt(400)
    assert float((fitted - usual).mean()) < 3 * both, "on noises that nobody has seen"


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
    whole = sf.sample(field, 10, plan, batch_size=8)
    assert torch.equal(sf.sample(field, [7, 2], plan, batch_size=8), whole[[7, 2]])
    with sf.count_calls(field) as calls:
        sf.sample(field, 3, plan)
    assert calls.count == 4


def test_the_same_seed_makes_the_same_plan_whatever_was_tried_before():
    whole, broken = {}, {}
    one = Tuner(ring(), noises=32, seed=2).tune(4, tries=30, tried=whole)
    broken |= dict(list(whole.items())[:17])
    seen = len(broken)
    field = ring()
    with sf.count_calls(field) as calls:
        other = Tuner(field, noises=32, seed=2).tune(4, tries=30, tried=broken)
    assert one.solver == other.solver
    assert one.tuning == other.tuning
    assert broken == whole
    with sf.count_calls(field) as again:
        Tuner(field, noises=32, seed=2).tune(4, tries=30, tried=broken)
    assert calls.count - again.count == 4 * (len(whole) - seen), "a call for each step of each try"


def test_batch_sizes_change_a_plan_by_rounding_alone():
    one, other = (student(ring(), 64, batch_size).learn(LEVELS) for batch_size in (64, 5))
    torch.testing.assert_close(one.error, other.error, rtol=1e-9, atol=1e-12)


def test_steps_can_be_fitted_to_some_of_the_coordinates():
    """Of a law that is the same in every coordinate half of them tell as much."""
    field = spread([1.0, 0.2] * 8)
    some = student(field, 64, chosen=torch.arange(8))
    assert float(some.learn(LEVELS).error.max()) < 3e-4


class Moved(sf.ScoreField):
    """Gaussians of unit deviation about the condition ``to``."""

    def __init__(self):
        super().__init__(sf.VP(t_min=1e-8), (2,), variance=5.0)

    def estimate(self, x, at, *, to):
        assert len(to) == len(x)
        centre = torch.stack([to, -to], 1).to(x)
        weight = at.alpha / (at.alpha**2 + at.sigma**2)
        return sf.Estimate.from_x0(x, at, centre + weight * (x - at.alpha * centre))


def test_a_process_without_data_is_tuned_to_what_its_last_call_tells():
    """Where alpha is not 1 at t_min, it is x and not x / alpha that is to be the data."""

    class Late(sf.Process):
        """Ornstein-Uhlenbeck noise from where half of the signal is left."""

        t_min, t_max = 0.2, 4.0

        def alpha(self, t):
            return torch.exp(-t)

        def sigma(self, t):
            if bool((t <= 0).any()):
                raise RuntimeError("nothing is known of before")
            return (1 - torch.exp(-2 * t)).sqrt()

    process = Late()
    field = spread([1.0, 0.2], process)
    assert process.t_data is None
    assert float(process.alpha(torch.tensor(0.2))) < 0.9
    plan = tune(field, 5, noises=32, tries=12, polish=0)
    assert plan.tuning.error < 0.2 * plan.tuning.default
    plan.check(field)
    plan.check(spread([1.0, 0.2], Late()))
    assert tune(field, 5, noises=32, tries=1, polish=0).tuning.error <= plan.tuning.default
    moved = tune(field, 5, noises=32, tries=12, polish=5)
    assert moved.tuning.error < 2 * plan.tuning.error


def test_a_field_without_a_digest_is_refused_before_it_is_called():
    class Opaque(sf.ScoreField):
        def __init__(self):
            super().__init__(sf.VP(), (2,))
            self.part = (k for k in range(3))

        def estimate(self, x, at):
            raise AssertionError("called")

    with pytest.raises(ValueError, match="no digest can be made"):
        tune(Opaque(), 4)


def test_a_field_that_its_calls_change_is_refused_before_the_search():
    class Counted(sf.ScoreField):
        calls = 0

        def estimate(self, x, at):
            self.calls += 1
            return sf.Estimate.from_x0(x, at, torch.zeros_like(x))

    field = Counted(sf.VP(), (2,))
    with pytest.raises(ValueError, match="field: its digest changes when it is called"):
        tune(field, 4)
    assert field.calls == 1


def test_the_evaluations_are_counted_in_advance():
    field = ring()
    tuner = Tuner(field, noises=32, batch_size=32)
    expected = tuner.cost(5, tries=20, polish=4)
    with sf.count_calls(field) as calls:
        tuner.tune(5, tries=20, polish=4)
    assert 32 * calls.count == pytest.approx(expected.evaluations, rel=0.15)
    assert tuner.cost(5).evaluations > 1.5 * tuner.cost(5, polish=0).evaluations
    assert tuner.cost(5, tries=20, polish=4).evaluations < 0.6 * expected.evaluations
    assert 0 < expected.seconds < 0.01 * expected.evaluations


def test_the_interval_of_an_error_covers_that_of_other_noises():
    """At 8 calls a few forked paths are a fifth of the mean, and most sets have too few of them."""
    field = ring()
    plan = tune(field, 8, noises=32, tries=10, polish=0)
    sets = draw(field, 40 * 256, {}, 7, 640)
    x, truth = sets.carried(plan), ends(sets, 64)
    error = distances(x, truth)
    mean = float(error.mean())
    found = [
        mean_distance(*both, 0.95) for both in zip(x.split(256), truth.split(256), strict=True)
    ]
    assert sum(one.low < mean < one.high for one in found) >= 37
    assert plan.tuning.low < mean < plan.tuning.high
    assert statistics.median(one.high - one.low for one in found) < 4 * mean


def test_a_network_in_training_is_refused():
    net = nn.Sequential(nn.Dropout(0.5))
    field = sf.Denoiser(net, sf.VP(), sf.V(), shape=(2,))
    with pytest.raises(ValueError, match="is in training"):
        tune(field, 4)


def test_noises_are_under_the_conditions_by_turns():
    field, to = Moved(), torch.tensor([-2.0, 0.0, 2.0])
    of = draw(field, 12, {"to": to}, 0, 5)
    middle = ends(of).mean(1)
    assert of.conditions["to"].tolist() == [-2, -2, 0, 0, 2, 2] * 2
    assert float((middle - of.z.mean(1).double()).abs().max()) < 0.02, "to and -to cancel"
    plan = sf.tune(field, 4, noises=24, conditions={"to": to}, tries=10, polish=2, batch_size=20)
    assert plan.tuning.error < 0.1 * plan.tuning.default
    view = field.condition_on(to=torch.full((8,), 1.0))
    assert sf.sample(view, 8, plan, batch_size=8).shape == (8, 2)


def test_polishing_moves_all_steps_to_a_smaller_error():
    field, tried = ring(), {}
    tuner = Tuner(field, noises=64)
    plain = tuner.tune(5, tries=15, polish=0, tried=tried)
    moved = tuner.tune(5, tries=15, tried=tried)
    assert moved.solver.levels != plain.solver.levels
    assert moved.tuning.error < 0.7 * plain.tuning.error


def test_the_derivatives_of_a_path_are_those_of_autograd():
    """On a float64 field, by the level at which it is called and by each coefficient."""
    field = ring()
    solver, _ = student(field, 16).learn((1.0, 0.0, -1.0, -math.inf))
    of, units = noises(field, 16), []
    of = replace(of, z=of.z.double())
    end, columns = Walk(of, solver).derivatives(slice(0, 16), units)

    def ends(levels, *coefficients):
        process, y = field.process, None
        estimates = []
        for i, level in enumerate(levels):
            t = process.time(-level.detach())
            (a, s), (da, ds) = process.coefficients(t), process.rates(t)
            t = t + (level - level.detach()) / (ds / s - da / a)
            alpha, sigma = (c.expand(16, 1) for c in process.coefficients(t))
            if y is None:
                spread = (alpha**2 * field.variance + sigma**2).sqrt()
                y = (alpha * field.mean + spread * of.z) / alpha
            x0 = field(alpha * y, t.expand(16)).x0
            estimates.insert(0, (x0, (y - x0) * alpha / sigma))
            change, row = units[i] @ coefficients[i], solver.table[i]
            y = (row[0] + change[0]) * y
            for j, (x0, eps) in enumerate(estimates):
                y = y + (row[1 + 2 * j] + change[1 + j]) * x0 + row[2 + 2 * j] * eps
        return y

    levels = torch.tensor(solver.levels[:-1], dtype=torch.float64)
    zeros = [torch.zeros(len(unit), dtype=torch.float64) for unit in units]
    torch.testing.assert_close(end, ends(levels, *zeros), rtol=1e-9, atol=1e-9)
    of_levels, *of_steps = torch.autograd.functional.jacobian(ends, (levels, *zeros))
    exact = [torch.cat([of_levels[..., i, None], part], -1) for i, part in enumerate(of_steps)]
    found = torch.stack(columns, -1).double()
    torch.testing.assert_close(found, torch.cat(exact, -1), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("first", [None, 500.0])
def test_inserted_calls_leave_the_end_of_the_steps_as_it_is(first):
    field = ring(sf.Flow(t_min=1e-6))
    tuner = Tuner(field, noises=16, first=first)
    steps = tuner.tune(3, tries=10, polish=2).solver
    taught = Student(tuner.learned, tuner._teacher, torch.arange(2), torch.arange(32) % 2 == 0)
    with sf.count_calls(field) as calls:
        (longer,) = lengthened(taught, steps, 6)
    assert calls.rows <= 32 * insertion_calls(3, 6)
    assert set(steps.levels) < set(longer.levels)
    assert [len(row) for row in longer.table] == [3, 5, 7, 9, 11, 13]
    before, after = (
        taught.noises.carried(Plan(each, each.times(field.process), finish=False))
        for each in (steps, longer)
    )
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5)


def test_a_plan_is_no_worse_than_the_shorter_plan_that_it_begins_at():
    field = ring()
    tuner = Tuner(field, noises=32, batch_size=32)
    shorter = tuner.tune(4, tries=20, polish=8)
    alone = tuner.tune(5, tries=1, polish=0)
    assert alone.tuning.error > 1.2 * shorter.tuning.error, "or the test shows nothing"
    expected = tuner.cost(5, tries=1, polish=0, shorter=shorter)
    with sf.count_calls(field) as calls:
        plan = tuner.tune(5, tries=1, polish=0, shorter=shorter)
    assert 32 * calls.count == pytest.approx(expected.evaluations, rel=0.15)
    assert plan.tuning.nfe == 5
    assert plan.tuning.error <= shorter.tuning.error * (1 + 1e-5)
    moved = tuner.tune(5, tries=1, polish=8, shorter=shorter)
    assert moved.tuning.error < 0.8 * shorter.tuning.error


def test_a_shorter_plan_without_fitted_steps_is_ignored():
    field = ring()
    alone = Tuner(field, noises=16).tune(5, tries=3, polish=0)
    tuner = Tuner(field, noises=16)
    for other in (sf.default_plan(field, 4), alone, tuner.tune(4, rounds=2, tries=2, polish=1)):
        assert tuner.tune(5, tries=3, polish=0, shorter=other).solver == alone.solver


def test_a_polish_that_noises_unseen_do_not_bear_out_is_left():
    taught = student(ring(), 64)
    solver, _ = taught.learn(LEVELS)
    backwards = replace(taught, fitted=~taught.fitted)
    unseen = taught.teacher.end.clone()
    unseen[~taught.fitted] = taught.noises.carried(
        Plan(solver, solver.times(taught.noises.field.process), finish=False)
    )[~taught.fitted]  # of which the solver meets the ends as it is
    exact = replace(taught, teacher=replace(taught.teacher, end=unseen))
    assert polished(exact, [solver], 5) == solver
    assert polished(backwards, [solver], 5) != solver


def test_conditions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\{'a': 2, 'b': 3\} rows"):
        sf.tune(ring(), 4, conditions={"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(ValueError, match="they must have the same number"):
        sf.tune(ring(), 4, conditions={"a": torch.tensor(1)})


def test_levels_are_packed_and_unpacked():
    levels = (3.0, 1.5, 0.25, -1.0, -4.0, -math.inf)
    back = unpacked(packed(levels), -math.inf)
    assert back == pytest.approx(levels, rel=1e-12)
    wide = packed(levels)
    wide[1] += 1.0  # of the first wave, which is flat
    falls = [a - b for a, b in itertools.pairwise(unpacked(wide, -math.inf)[:-1])]
    assert all(f > a - b for f, (a, b) in zip(falls, itertools.pairwise(levels), strict=False))


def test_a_search_that_leaves_the_process_is_sent_back():
    search = Search(student(ring()), -math.inf, {}, lambda error: None)
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
    with pytest.raises(ValueError, match="use the solver's own times"):
        sf.sample(field, 2, solver, sf.uniform(field.process, 4))
    times = solver.times(field.process)
    at = sf.State(torch.zeros(2, 2).double(), times[1], sf.Noise(0, torch.arange(2)))
    with pytest.raises(ValueError, match="step 0 of a fitted solver"):
        solver.advance(field, at, times[2])
    with pytest.raises(ValueError, match=r"levels: go from sigma/alpha = 2.2e\+04"):
        level_times(sf.VP(), (10.0, 0.0))
    with pytest.raises(ValueError, match="give falling ones"):
        level_times(sf.VP(), (0.0, 0.0))


@pytest.mark.parametrize("nfe", [1, 2.5])
def test_a_budget_that_is_none_is_refused(nfe):
    with pytest.raises(ValueError, match="at least 2"):
        tune(ring(), nfe)


@pytest.mark.parametrize("given", [{"noises": 4}, {"batch_size": 0}, {"tries": 0}, {"polish": -1}])
def test_settings_that_make_no_sense_are_refused(given):
    with pytest.raises(ValueError, match="at least"):
        tune(ring(), 4, **given)


@pytest.mark.parametrize("first", [-5.0, 0.0, math.inf])
def test_a_first_level_is_positive(first):
    with pytest.raises(ValueError, match=r"first=.*must be a positive number"):
        Tuner(ring(), noises=8, first=first)


def test_a_first_level_below_the_others_is_refused_before_a_call():
    field = ring()
    with sf.count_calls(field) as calls, pytest.raises(ValueError, match=r"first=0\.01: .* above"):
        Tuner(field, noises=8, first=0.01).tune(4, tries=1, polish=0)
    assert calls.count == 0


def test_two_steps_with_a_first_level_are_tuned():
    field = ring(sf.Flow(t_min=1e-4, t_max=1.0))
    plan = Tuner(field, noises=16, first=1e4).tune(2, tries=12, polish=2)
    assert plan.nfe == 2
    assert plan.tuning.levels[0] == pytest.approx(math.log(1e4))
    assert plan.tuning.error < 0.8 * plan.tuning.default


def test_the_cost_of_no_calls_is_refused():
    with pytest.raises(ValueError, match="nfe=0: must be a whole number, at least 2"):
        Tuner(ring(), noises=8).cost(0)


def test_a_search_is_recorded_in_a_new_folder(tmp_path):
    tried = Tried(path := tmp_path / "a" / "b" / "tried", {"nfe": 4})
    tried[(1.0, -math.inf)] = 0.5
    assert dict(Tried(path, {"nfe": 4})) == {(1.0, -math.inf): 0.5}


def test_the_record_of_a_run_depends_on_all_conditions():
    def facts(run, **conditions):
        return RunTuner(run, noises=8, conditions=conditions or None).facts

    run = sf.Run.of(own_networks.denoiser())
    bound = [run.condition_on(z=torch.tensor([value])) for value in (1.0, 2.0)]
    given = [{"y": torch.tensor([value])} for value in (1, 2)]
    every = [facts(run), *map(facts, bound), *(facts(run, **one) for one in given)]
    assert len({json.dumps(one) for one in every}) == 5
    assert facts(run) == every[0]
