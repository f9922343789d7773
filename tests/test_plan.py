"""Plans on disk, bit for bit, and what they refuse: other fields, other processes."""

import enum
import functools
import json
import math

import pytest
import torch
from cases import ALL_SOLVERS, label
from torch import nn

import scorefield as sf
from scorefield._internal.errors import CheckpointError
from scorefield._internal.json_values import decode, encode
from scorefield.field import digest
from scorefield.networks import MLP
from scorefield.sampling import Plan, Tuning
from scorefield.tuning.frontier import Frontier


def denoiser(seed=0, process=None, **settings):
    torch.manual_seed(seed)
    process = sf.VP() if process is None else process
    return sf.Denoiser(MLP(2, width=8, depth=1, **settings), process, sf.V(), shape=(2,)).eval()


def fitted(field, levels=(1.0, -0.5, -1.5)):
    table = ((1.1, 0.1 / 3, -0.2), (0.9, math.pi, 1e-300, -0.0, 5e-324))
    solver = sf.solvers.Fitted(levels, table)
    tuning = Tuning(
        digest(field), digest(field.process), levels, 2, 0.01, 0.009, 0.012, 0.02, 1e-4, 64, 0
    )
    return Plan(solver, solver.times(field.process), finish=False, tuning=tuning)


# Digests


def test_a_field_has_the_digest_of_its_values_whoever_built_it():
    one, other = denoiser(0), denoiser(0)
    assert digest(one) == digest(other)
    assert digest(denoiser(1)) != digest(one), "other weights"
    assert digest(denoiser(0, sf.VP(beta_max=19.0))) != digest(one), "another process"
    assert digest(sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2))) != digest(one)


def test_a_changed_weight_changes_a_digest_that_was_told_before():
    field = denoiser()
    before = digest(field)
    assert digest(field) == before
    with torch.no_grad():
        next(field.parameters())[0] += 1
    changed = digest(field)
    assert changed != before
    next(field.parameters()).data = torch.zeros_like(next(field.parameters()))
    assert digest(field) not in (before, changed)


def test_views_of_a_field_have_its_digest():
    field = denoiser()
    views = field.under(sf.Flow(t_min=0.01, t_max=0.99)), field.condition_on(y=torch.tensor(3))
    assert {digest(view) for view in views} == {digest(field)}
    assert digest(views[0].condition_on(y=1).under(sf.VP(t_min=0.1, t_max=0.5))) == digest(field)


class Scaled(sf.ScoreField):
    def __init__(self, base, scale):
        super().__init__(base.process, base.shape)
        self.base, self.scale = base, scale

    def estimate(self, x, at, **condition):
        found = self.base(x, at.t, **condition)
        return sf.Estimate.from_score(x, at, self.scale * found.score)


def test_an_attribute_of_a_field_is_part_of_its_digest():
    """As the scale of a guidance is."""
    field = denoiser()
    assert digest(Scaled(field, 2.0)) == digest(Scaled(denoiser(), 2.0))
    assert digest(Scaled(field, 2.0)) != digest(Scaled(field, 3.0))


def linear(slope):
    return sf.LinearSDE(lambda t: -slope * t / 2, lambda t: (slope * t).sqrt(), t_min=1e-2)


def test_functions_are_told_by_their_code_and_what_they_close_over():
    assert digest(linear(9.0)) == digest(linear(9.0))
    assert digest(linear(9.0)) != digest(linear(8.0))
    assert digest(lambda t: t + 1) != digest(lambda t: t + 2)
    assert digest(functools.partial(max, 1)) != digest(functools.partial(max, 2))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        ((1, 2), (12,)),
        ("ab", ("a", "b")),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(1).expand(2).double()),
        ({"a": 1}, {"a": 2}),
        (nn.Linear(1, 1), nn.Bilinear(1, 1, 1)),
        (None, False),
    ],
)
def test_values_that_differ_have_different_digests(one, other):
    assert digest(one) != digest(other)


class Scheme(enum.Enum):
    ONE, OTHER = 1, 2


class Holder:
    def __init__(self, value):
        self._value, self.public = value, value

    def told(self):
        return self.public


def test_methods_and_members_are_told_apart():
    assert digest(Scheme.ONE) != digest(Scheme.OTHER)
    assert digest(Holder(1).told) == digest(Holder(1).told)
    assert digest(Holder(1).told) != digest(Holder(2).told)


def test_the_packages_functions_are_told_by_name_and_docstrings_are_not():
    """So that another Python, or other words, leave plans where they belong."""
    label = sf.noise_label
    before, code = digest(label), label.__code__
    label.__code__ = sf.time_label.__code__
    try:
        assert digest(label) == before
    finally:
        label.__code__ = code

    def one(t):
        """One."""
        return t + 1

    def other(t):
        """Other."""
        return t + 1

    other.__qualname__ = one.__qualname__
    assert digest(one) == digest(other)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="no digest can be made of"):
        digest(iter([1]))


# On disk


def test_a_plan_comes_back_bit_for_bit(tmp_path):
    field = denoiser()
    plan = fitted(field)
    plan.save(tmp_path / "plan.json")
    back = Plan.load(tmp_path / "plan.json")
    assert back.solver == plan.solver
    assert [x.hex() for x in back.solver.table[1]] == [x.hex() for x in plan.solver.table[1]]
    assert torch.equal(back.times, plan.times)
    assert (back.finish, back.tuning) == (plan.finish, plan.tuning)
    assert torch.equal(sf.sample(field, 5, back), sf.sample(field, 5, plan))
    back.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_every_solver_can_be_written_and_read(solver, tmp_path):
    plan = Plan(solver, sf.uniform(sf.VP(), 7), finish=True)
    plan.save(tmp_path / "plan.json")
    back = Plan.load(tmp_path / "plan.json")
    assert back.solver == solver
    assert torch.equal(back.times, plan.times)


def test_an_adaptive_plan_comes_back(tmp_path):
    Plan(sf.Dopri5(), sf.Adaptive(1e-3, 1e-4)).save(tmp_path / "plan.json")
    back = Plan.load(tmp_path / "plan.json")
    assert back.times == sf.Adaptive(1e-3, 1e-4)


class Mine(sf.Heun):
    pass


def test_a_solver_of_ones_own_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="Mine is not one of the kinds that can be read"):
        Plan(Mine(), sf.uniform(sf.VP(), 3)).save(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.1, -0.0, 3, True, None, "x", (1, (2.5,))])
def test_values_come_back_as_they_were(value):
    back = decode(json.loads(json.dumps(encode(value, ()), allow_nan=False)), ())
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"scorefield-plan": 2}',
        '{"scorefield-plan": 1, "kind": "Plan"}',
        '{"scorefield-plan": 1, "kind": "os.system", "solver": "ls"}',
        '{"scorefield-plan": 1, "kind": "Heun"}',
        '{"scorefield-plan": 1, "kind": "Plan", "solver": {"kind": "Heun"}, "times": [1, 0.1]}',
        '{"scorefield-plan": 1, "kind": "Plan", "solver": 1, "times": null}',
        '{"scorefield-plan": 1, "kind": "Plan", "solver": {"kind": "Multistep", "order": 99},'
        ' "times": {"kind": "times", "values": [1.0, 0.1]}}',
        '{"scorefield-plan": 1, "kind": "Plan", "solver": {"kind": "Heun"},'
        ' "times": {"kind": "times", "values": ["a"]}}',
        "[" * 100_000,
        json.dumps(
            {
                "scorefield-plan": 1,
                "kind": "Plan",
                "solver": {"kind": "Heun"},
                "times": {"kind": "times", "values": [1.0, 0.1]},
                "finish": True,
                "tuning": {
                    "kind": "Tuning",
                    "field": 3,
                    "process": "a",
                    "levels": [1.0],
                    "nfe": 1,
                    "error": 1.0,
                    "low": 1.0,
                    "high": 1.0,
                    "default": 1.0,
                    "teacher": 1.0,
                    "noises": 8,
                    "seed": 0,
                },
            }
        ),
    ],
)
def test_a_file_that_holds_no_plan_is_refused(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json holds no plan"):
        Plan.load(tmp_path / "plan.json")


# Where it may be used


def test_a_plan_of_another_field_is_refused_with_both_digests():
    field, other = denoiser(0), denoiser(1)
    with pytest.raises(ValueError, match=f"{digest(field)[:12]}.*{digest(other)[:12]}"):
        sf.sample(other, 2, fitted(field))
    with pytest.raises(ValueError, match="tuned for the field"):
        sf.sample(Scaled(field, 2.0), 2, fitted(field))


def test_a_plan_goes_to_another_process_when_asked():
    field = denoiser()
    flow = sf.Flow(t_min=1e-2, t_max=0.99)
    plan, view = fitted(field), field.under(flow)
    both = f"{digest(field.process)[:12]}.*{digest(flow)[:12]}"
    with pytest.raises(ValueError, match=both):
        sf.sample(view, 2, plan)
    moved = plan.under(flow)
    x, y = sf.sample(field, 4, plan), sf.sample(view, 4, moved)
    y = y / flow.alpha(moved.times[-1]) * field.process.alpha(plan.times[-1])
    torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="not tuned"):
        sf.default_plan(field, 4).under(flow)


def test_a_file_that_is_missing_is_named(tmp_path):
    for kind in (Plan, Frontier):
        with pytest.raises(CheckpointError, match=r"nix\.json cannot be read: .*; give a file"):
            kind.load(tmp_path / "nix.json")
