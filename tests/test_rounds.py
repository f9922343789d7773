"""Plans with rounds of calls at once: one larger call of any field, and the same samples."""

import json
import math
from dataclasses import replace

import pytest
import torch
from shell import TINY, failing, finishes
from torch import nn

import scorefield as sf
from scorefield.sampling import Plan
from scorefield.solvers import Fitted
from scorefield.tuning import Tuner, polish, walk
from scorefield.tuning.noises import distances, draw
from scorefield.tuning.polish import iteration_calls
from scorefield.tuning.student import Student
from scorefield.tuning.teacher import ends, teach
from scorefield.tuning.widen import widened

LEVELS = (1.5, 0.8, 0.0, -0.4, -1.0, -1.4, -math.inf)  # of three rounds of two calls


class Net(nn.Module):
    """A smooth network of all of its inputs, with a row of each condition for each sample."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 2, generator=generator) / 2)

    def forward(self, x, label, y=None):
        assert label.shape == (len(x),)
        assert y is None or y.ndim == 0 or len(y) == len(x)
        shift = 0.0 if y is None else torch.sin(y.reshape(-1, 1).float())
        return torch.tanh(x @ self.weight + label[:, None] + shift)


def denoiser(process=None):
    return sf.Denoiser(Net(), sf.VP() if process is None else process, sf.V(), shape=(2,)).eval()


def ring(process=None):
    angle = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    means = torch.stack([angle.cos(), angle.sin()], 1)
    cov = 0.02 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2)
    process = sf.VP(t_min=1e-8) if process is None else process
    return sf.Mixture(process, torch.arange(1.0, 6), means, cov)


def student(field, count=64, parallel=2):
    of = draw(field, count, {}, 1, count)
    chosen = torch.arange(math.prod(field.shape))
    return Student(of, teach(of, chosen), chosen, torch.arange(count) % 2 == 0, parallel)


def two_at_once():
    solver = Fitted(
        (1.0, 0.0, -1.0),
        ((0.9, 0.05, 0.1, 0.02, -0.03), (0.8, 0.1, 0.1, 0.05, 0.0, 0.1, 0.0, 0.0, 0.02)),
        (((0.4, 0.7),), ((-0.5, 0.6, 0.1, 0.05, 0.2, 0.0),)),
    )
    assert (solver.parallel, solver.calls, solver.history_length) == (2, 2, 1)
    return solver


def by_hand(field, solver, z):
    """The samples of `Fitted`, from its definition, with one call after another."""
    process = field.process

    def called(y, level):
        t = process.time(torch.tensor(-level, dtype=torch.float64))
        estimate = field(process.alpha(t) * y, t)
        return estimate.x0, estimate.eps

    def combined(row, y, pairs):
        of_y, *rest = row
        total = of_y * y
        for b, c, (x0, eps) in zip(rest[::2], rest[1::2], pairs, strict=True):
            total = total + b * x0 + c * eps
        return total

    first = solver.times(process)[0]
    y = process.prior(field.mean, field.variance, first).draw(z) / process.alpha(first)
    pairs = []
    for level, row, nodes in zip(solver.levels, solver.table, solver.nodes, strict=False):
        fresh = [called(y, level), *(called(combined(n, y, pairs), at) for at, *n in nodes)]
        pairs = [*fresh, *pairs]
        y = combined(row, y, pairs)
    return y * process.alpha(solver.times(process)[-1])


class Bound(sf.ScoreField):
    """Of one batch only: each row has a centre of its own."""

    stackable = False

    def __init__(self):
        super().__init__(sf.VP(), (2,))
        self.centre = torch.arange(12.0).reshape(6, 2) / 12

    def estimate(self, x, at):
        return sf.Estimate.from_x0(x, at, self.centre.to(x) + 0.2 * torch.tanh(x))


def fields():
    y, no = torch.arange(6), {"y": torch.tensor(7)}
    base = denoiser()
    guided = sf.ClassifierFree(base, 2.0, negative={"y": torch.arange(6, 12)})
    away = sf.ClassifierFree(base, 2.0, negative=no)
    interval = sf.ClassifierFree(base, 2.0, negative=no, interval=(0.5, 2.0))
    one = sf.PiGDM(base, sf.Matrix(torch.eye(2)[:1]), torch.tensor([0.3]), 0.1)
    several = sf.PiGDM(base, sf.Matrix(torch.eye(2)[:1]), torch.arange(6.0)[:, None] / 6, 0.1)
    classifier = sf.Tilted(base, lambda x, t: -(x**2).sum(1) * t)
    return {
        "exact": (ring(), True),
        "alone": (base, True),
        "a class": (base.condition_on(y=3), True),
        "classes": (base.condition_on(y=y), True),
        "a view": (base.condition_on(y=y).under(sf.Flow(t_min=0.01, t_max=0.99)), True),
        "guided": (away.condition_on(y=y), True),
        "guided away from each": (guided.condition_on(y=y), False),
        "guided between": (interval.condition_on(y=y), True),
        "two networks": (sf.ClassifierFree(base, 1.5).condition_on(y=y), True),
        "product": (sf.Product([base.condition_on(y=y), denoiser()], (1.5, -0.5)), True),
        "clipped": (sf.Clipped(base.condition_on(y=y), 0.5), True),
        "a classifier": (classifier, True),
        "a measurement": (one, True),
        "measurements": (several, False),
        "of one batch": (Bound(), False),
        "clipped, of one batch": (sf.Clipped(Bound(), 0.5), False),
    }


@pytest.mark.parametrize("name", fields())
def test_calls_at_once_are_those_made_one_after_another(name):
    """In one call of all rows where the field allows that."""
    field, stacks = fields()[name]
    solver = two_at_once()
    plan = Plan(solver, solver.times(field.process), finish=False)
    with sf.count_calls(field) as calls:
        x = sf.sample(field, 6, plan, batch_size=6, seed=3, dtype=torch.float64)
    assert field.stackable is stacks
    assert (calls.count, calls.rows) == ((2, 24) if stacks else (4, 24))
    like = torch.empty(0, dtype=torch.float64)
    z = sf.Noise(3, torch.arange(6)).draw((2,), like)[0]
    with torch.no_grad():
        torch.testing.assert_close(x, by_hand(field, solver, z), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("process", [sf.VP(), sf.Flow(t_min=1e-3, t_max=0.99), sf.EDM()])
def test_the_samples_are_the_same_on_any_process(process):
    solver = two_at_once()
    x, y = (
        sf.sample(field, 4, Plan(solver, solver.times(field.process), finish=False))
        / field.process.alpha(solver.times(field.process)[-1])
        for field in (ring(), ring().under(process))
    )
    torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch():
    solver, field = two_at_once(), denoiser()
    plan = Plan(solver, solver.times(field.process), finish=False)
    whole = sf.sample(field, 10, plan)
    assert torch.equal(sf.sample(field, [7, 2], plan), whole[[7, 2]])
    torch.testing.assert_close(sf.sample(field, 10, plan, batch_size=3), whole, rtol=0, atol=1e-5)


def test_a_gradient_goes_through_calls_at_once():
    solver, field = two_at_once(), ring()
    plan = Plan(solver, solver.times(field.process), finish=False)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z.requires_grad_(True)
    (exact,) = torch.autograd.grad(by_hand(field, solver, z).square().sum(), z)
    (found,) = torch.autograd.grad(sf.unroll(field, z, plan).square().sum(), z)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8)


def test_a_plan_comes_back_from_its_file_with_its_rounds(tmp_path):
    solver = two_at_once()
    plan = Plan(solver, solver.times(sf.VP()), finish=False)
    plan.save(tmp_path / "plan.json")
    back = Plan.load(tmp_path / "plan.json")
    assert back == plan
    assert back.solver.nodes == solver.nodes
    heun = Plan(sf.Heun(), sf.balanced(sf.VP(), 3))
    assert (heun.nfe, heun.rounds) == (7, 7)


def test_a_file_of_one_call_a_step_still_loads(tmp_path):
    """Written before there were calls at once."""
    solver = Fitted((1.0, 0.0), ((0.9, 0.05, 0.1),))
    plan = Plan(solver, solver.times(sf.VP()), finish=False)
    plan.save(path := tmp_path / "plan.json")
    values = json.loads(path.read_text())
    assert values["solver"].pop("nodes") == []
    path.write_text(json.dumps(values))
    assert Plan.load(path) == plan


@pytest.mark.parametrize(
    "nodes",
    [
        (((0.4, 0.7),),),
        (((0.4, 0.7),), ((-0.5, 0.6),)),
        (((0.4, 0.7),), ((-0.5, 0.6, 0.1, 0.05, 0.2, 0.0), (-0.5, 0.6, 0.1, 0.05, 0.2, 0.0))),
    ],
)
def test_nodes_of_another_form_are_rejected(nodes):
    with pytest.raises(ValueError, match="nodes: has rows of"):
        replace(two_at_once(), nodes=nodes)
    with pytest.raises(ValueError, match=r"table: has rows of \[3\]"):
        Fitted((1.0, 0.0), ((0.9, 0.05, 0.1),), (((0.4, 0.7),),))


def test_a_level_that_the_process_does_not_reach_is_rejected():
    solver = replace(two_at_once(), nodes=(((99.0, 0.7),), ((-0.5, 0.6, 0.1, 0.05, 0.2, 0.0),)))
    with pytest.raises(ValueError, match="outside"):
        sf.sample(ring(), 2, solver, solver.times(ring().process), finish=False)


def test_samples_are_not_encoded_by_a_fitted_plan():
    solver, field = two_at_once(), denoiser()
    with pytest.raises(ValueError, match="fitted solver"):
        sf.encode(field, torch.zeros(2, 2), solver, solver.times(field.process))


# Fits


def test_steps_of_one_call_are_where_the_fit_of_several_begins():
    field, one = ring(), student(ring(), parallel=1)
    solver = one.learn((2.0, 0.5, -0.5, -1.5, -math.inf)).solver
    several = student(field)
    same, anew = widened(several, solver)
    x, y = (
        several.noises.carried(Plan(s, s.times(field.process), finish=False))
        for s in (solver, same)
    )
    torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-6)
    assert same.levels == solver.levels == anew.levels
    assert [len(step) for step in anew.nodes] == [1] * 4
    assert 0.5 < anew.nodes[0][0][0] < 2.0
    assert anew.nodes[-1][0][0] < -1.5


def test_there_is_room_for_the_calls_of_the_last_step():
    field = ring(sf.VP(t_min=1e-2))
    lowest = -field.process.half_log_snr_range[1]
    solver = student(field, parallel=1).learn((1.0, -1.0, lowest, -math.inf)).solver
    assert lowest < widened(student(field), solver)[1].nodes[-1][0][0] < -1.0


@pytest.mark.parametrize("rounds", [2, 3])
def test_the_derivatives_are_those_of_differences(rounds, monkeypatch):
    """Of the whole solver, by each level and coefficient in the order of the changes."""
    monkeypatch.setattr(walk, "_H", 1e-5)
    field = ring()
    solver = student(field, 16).learn((*LEVELS[: 2 * rounds], -math.inf)).solver
    of, units = draw(field, 16, {}, 1, 16), []
    of = replace(of, z=of.z.double())
    end, columns = walk.Walk(of, solver).derivatives(slice(0, 16), units)

    def carried(solver):
        return of.carried(Plan(solver, solver.times(field.process), finish=False))

    torch.testing.assert_close(end, carried(solver), rtol=1e-9, atol=1e-9)
    count = 2 * rounds + sum(len(unit) for unit in units)
    assert len(columns) == count
    h, changes = 1e-5, torch.eye(count)
    for change, found in zip(changes, columns, strict=True):
        up, down = (polish._moved(solver, (s * change).tolist(), units, None) for s in (h, -h))
        exact = (carried(up) - carried(down)) / (2 * h)
        torch.testing.assert_close(found.double(), exact, rtol=0.01, atol=1e-3)


def test_rounds_of_two_calls_are_better_than_as_many_calls():
    tuner = Tuner(ring(), noises=64)
    one = tuner.tune(4, tries=20, polish=8)
    both = tuner.tune(8, rounds=4, tries=20, polish=8)
    assert (both.nfe, both.rounds, one.nfe, one.rounds) == (8, 4, 4, 4)
    assert both.tuning.error < one.tuning.error
    end = ends(tuner.fresh)
    first, second = (distances(tuner.fresh.carried(plan), end).median() for plan in (one, both))
    assert second < 0.5 * first, "where few paths fork"
    assert both.tuning.default == one.tuning.default
    x = sf.sample(ring(), 4, both)
    assert x.isfinite().all()


def test_conditions_are_tuned_in_rounds():
    field, y = denoiser(), torch.arange(3)
    plan = sf.tune(
        field, 6, rounds=3, noises=8, conditions={"y": y}, tries=3, polish=2, batch_size=6
    )
    view = field.condition_on(y=torch.arange(8))
    assert (plan.nfe, plan.rounds) == (6, 3)
    assert sf.sample(view, 8, plan, batch_size=8).shape == (8, 2)


def test_a_run_is_tuned_in_rounds_and_keeps_the_plan_in_its_folder(tmp_path):
    settings = {"noises": 8, "tries": 2, "polish": 1}
    run = sf.train(torch.randn(40, 2), steps=2, batch_size=8)
    with pytest.raises(ValueError, match="multiple"):
        run.tune([6, 8], rounds=3)
    run.save(tmp_path / "run")
    run = sf.load(tmp_path / "run")
    plan = run.tune(6, rounds=3, **settings)[6]
    assert (plan.nfe, plan.rounds) == (6, 3)
    assert run.plans == {}
    with sf.count_calls(run.field) as calls:
        again = run.tune(6, rounds=3)
    assert (again, calls.count) == ({6: plan}, 0)
    other = run.tune(6, rounds=3, overwrite=True, seed=1, **settings)[6]
    assert other != plan
    assert sf.load(tmp_path / "run").tune(6, rounds=3) == {6: other}


@pytest.mark.parametrize(("nfe", "rounds"), [(10, 4), (10, 1), (4, 8), (4, 2.0)])
def test_rounds_that_do_not_divide_the_calls_are_rejected(nfe, rounds):
    field = ring()
    with sf.count_calls(field) as calls, pytest.raises(ValueError, match="rounds=") as error:
        sf.tune(field, nfe, rounds=rounds, noises=8)
    assert calls.count == 0
    assert "multiple" in str(error.value) or "at least 2" in str(error.value)


def test_the_evaluations_of_rounds_are_counted_in_advance():
    field = ring()
    tuner = Tuner(field, noises=32, batch_size=32)
    expected = tuner.cost(6, rounds=3, tries=10, polish=3)
    with sf.count_calls(field) as calls:
        tuner.tune(6, rounds=3, tries=10, polish=3)
    assert calls.rows == pytest.approx(expected.evaluations, rel=0.15)
    assert iteration_calls(6, 3) > 2 * iteration_calls(3, 3)


def test_a_frontier_has_rounds_apart_from_calls():
    solver, field = two_at_once(), ring()
    plans = {
        "at once": Plan(solver, solver.times(field.process), finish=False),
        "heun": Plan(sf.Heun(), sf.balanced(field.process, 2)),
    }
    result = sf.frontier(field, plans, n=8, batch_size=4)
    one, other = result.points
    assert (one.nfe, one.rounds, other.nfe, other.rounds) == (4, 2, 5, 5)
    head, row = str(result).splitlines()[:2]
    assert head.split()[:3] == ["plan", "NFE", "rounds"]
    assert row.split()[2:4] == ["4", "2"]
    assert "rounds" not in str(sf.frontier(field, {"heun": plans["heun"]}, n=8))


# The command


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    finishes("train", "moons", "--out", folder / "run", *TINY)
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


def test_a_run_is_tuned_in_rounds(files, capsys):
    few = ["--noises", "8", "--tries", "3", "--polish", "1"]
    finishes("tune", files / "run", "--nfe", "6", "--rounds", "3", *few)
    path = files / "run" / "plans" / "nfe-6-rounds-3.json"
    printed = capsys.readouterr().out
    assert "nfe-6-rounds-3.json" in printed
    assert Plan.load(path).tuning is not None
    finishes("tune", files / "run", "--nfe", "6", "--rounds", "3", *few)
    assert "exists already" in capsys.readouterr().out
    run = sf.load(files / "run")
    assert list(run.plans) == []
    assert list(run.folder.parallel_plans(run.conditional)) == [(6, 3)]
    out = files / "x.npy"
    finishes("sample", files / "run", "--n", 4, "--plan", path, "--out", out)
    assert f"NFE {Plan.load(path).nfe} per sample" in capsys.readouterr().out


def test_rounds_that_make_no_sense_are_one_line(fails):
    assert "--nfe 6, --rounds 4: each round" in fails(
        2, "tune", "run", "--nfe", "6", "--rounds", "4"
    )
