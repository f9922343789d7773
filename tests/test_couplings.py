"""Training with coupled data and noise: pairs, paths, and the declaration that a run carries."""

import itertools

import pytest
import torch
from cases import tensor
from shell import failing, finishes

import scorefield as sf
from scorefield._internal.assignment import assignment
from scorefield._internal.errors import UsageError
from scorefield.field import Instant
from scorefield.process import align
from scorefield.runs.comparison import usual_plans
from scorefield.training.couplings import groups_of

FLOW = {
    "process": "flow",
    "parametrization": "velocity",
    "weighting": "flow-matching",
    "times": "uniform",
}
SMALL = {"network": {"kind": "mlp", "width": 32, "depth": 2}, "held_out": 0.0, "warmup": 10}


@pytest.fixture
def fails(tmp_path, capsys, monkeypatch):
    return failing(tmp_path, capsys, monkeypatch)


def circle(n=512):
    """Return points near eight places on a circle."""
    g = torch.Generator().manual_seed(0)
    angle = torch.randint(8, (n,), generator=g) * torch.pi / 4
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2, generator=g)


def trained(coupling, steps=300, **settings):
    options = {"steps": steps, "lr": 3e-3, "batch_size": 64, **FLOW, **SMALL, **settings}
    return sf.train(circle(), coupling=coupling, **options)


def test_the_assignment_is_the_best_of_all_orders():
    x, z = torch.randn(2, 6, 3)
    best = min(itertools.permutations(range(6)), key=lambda o: float(((x - z[list(o)]) ** 2).sum()))
    assert assignment(x, z, torch.zeros(6)).tolist() == list(best)


def test_the_assignment_on_a_line_is_the_monotone_map():
    x, z = torch.randn(1200, 1), torch.randn(1200, 1)
    order = assignment(x[:500], z[:500], torch.zeros(500))
    assert torch.equal(z[order][x[:500, 0].argsort(), 0], z[:500, 0].sort().values)
    order = assignment(x, z, torch.zeros(1200))  # in blocks
    assert sorted(order.tolist()) == list(range(1200))
    assert float(torch.corrcoef(torch.stack([x[:, 0], z[order, 0]]))[0, 1]) > 0.98


def test_pairs_are_made_within_equal_conditions():
    x, z = torch.randn(40, 2), torch.randn(40, 2)
    conditions = {"a": torch.arange(40) % 2, "b": (torch.arange(40) // 20).float()}
    groups = groups_of(conditions, 40)
    assert len(groups.unique()) == 4
    order = assignment(x, z, groups)
    assert torch.equal(groups[order], groups)
    assert not torch.equal(order, torch.arange(40))


def test_conditions_that_never_match_are_refused_before_training():
    with pytest.raises(UsageError, match="no two samples have the same"):
        sf.train(circle(), {"dose": torch.arange(512).float()}, coupling="ot", steps=3, **SMALL)


def test_the_weighting_of_flow_matching_is_the_error_of_the_velocity():
    for process in (sf.Flow(), sf.VP(t_max=0.9)):
        x0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
        t = tensor(0.1, 0.3, 0.5, 0.7, 0.85)
        for parametrization in (sf.Velocity(), sf.V(), sf.Preconditioned(0.7)):
            network = sf.MLP(3, width=8, depth=1).double()
            torch.nn.init.normal_(list(network.parameters())[-2])  # it starts at zero
            field = sf.Denoiser(network, process, parametrization, (3,))
            x = process.perturb(x0, t, eps)
            learned = field(x, t).velocity
            alpha_rate, sigma_rate = process.rates(align(t, x))
            truth = alpha_rate * x0 + sigma_rate * eps
            objective = sf.Objective(sf.FlowMatching(), sf.UniformTimes())
            loss = objective.loss(field, x0, t, eps)
            assert torch.allclose(loss, ((learned - truth) ** 2).mean(1), rtol=1e-5)


def test_logit_normal_times_have_a_normal_logit():
    process, u = sf.Flow(), torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    t = sf.LogitNormalTimes(0.5, 2.0)(process, u)
    place = (t - process.t_min) / (process.t_max - process.t_min)
    expected = torch.distributions.Normal(0.5, 2.0).icdf(u)
    assert torch.allclose(torch.logit(place), expected, atol=1e-6)


def straightness(run):
    """Return the error of four calls of Euler against the flow's exact ends."""
    field = run.field
    times = sf.uniform(field.process, 4)
    x = sf.sample(field, 256, sf.Euler(), times, finish=False, seed=5)
    exact = sf.sample(field, 256, sf.RK4(), sf.uniform(field.process, 40), finish=False, seed=5)
    return float((x - exact).square().mean().sqrt())


@pytest.fixture(scope="module")
def runs():
    return {kind: trained(kind) for kind in ("independent", "ot")}


def test_optimal_transport_makes_paths_straighter_for_the_same_data(runs):
    """E-39: paths of independent pairs bend, and those of optimal pairs hardly do."""
    bent, straight = straightness(runs["independent"]), straightness(runs["ot"])
    assert straight < bent / 1.8, (straight, bent)
    samples = runs["ot"].sample(1024, nfe=12)
    assert float((samples.norm(dim=1) - 1).abs().mean()) < 0.2
    assert samples.mean(0).abs().max() < 0.15


def test_reflow_makes_the_paths_of_a_run_straighter(runs):
    teacher = runs["independent"]
    plan = sf.Plan(sf.RK4(), sf.uniform(teacher.field.process, 20), finish=False)
    x = teacher.sample(512, plan, seed=3)
    options = {"steps": 300, "lr": 3e-3, "batch_size": 64, **FLOW, **SMALL}
    run = sf.train(x, coupling="reflow", coupling_seed=3, **options)
    assert straightness(run) < straightness(teacher) / 1.8
    # the noise of sample k is that which the run made it of
    empty, items = torch.empty(0), torch.arange(4, 8)
    z = sf.Reflow(3).noise(torch.empty(4, 2), empty, items, empty, sf.Noise(0, items))
    again = sf.unroll(teacher.field, z, plan)
    assert torch.allclose(teacher.to_data(again), x[4:8], atol=1e-5)


def test_a_coupled_run_has_no_score_and_stays_so_on_disk(runs, tmp_path):
    run = runs["ot"]
    assert not run.field.has_score
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    assert again.config.train.coupling == "ot"
    assert not again.field.has_score
    assert torch.equal(again.sample(4, nfe=6, seed=1), run.sample(4, nfe=6, seed=1))
    with pytest.raises(ValueError, match="has no score"):
        again.sample(4, sf.DDPM(), 10)
    assert not sf.Run.of(again.field).field.has_score
    assert {"default", "heun"} < set(usual_plans(again, [6]))
    assert not {"ddpm", "euler-maruyama"} & set(usual_plans(again, [6]))


def test_a_command_names_the_coupling_of_a_run(runs, tmp_path, fails, capsys):
    runs["ot"].save(tmp_path / "run")
    finishes("info", str(tmp_path / "run"))
    assert "no score" in capsys.readouterr().out
    message = fails(
        2, "sample", str(tmp_path / "run"), "--n", "4", "--solver", "ddpm", "--out", "s"
    )
    assert "has no score" in message


def test_a_check_names_coupled_pairs(runs):
    x = runs["ot"].to_field(circle(64))
    assert "as declared" in str(sf.check(runs["ot"].field, x))
    undeclared = runs["ot"].field.around(runs["ot"].field.network, coupled=False).eval()
    assert "with coupled pairs of data and noise" in str(sf.check(undeclared, x))
    assert "as declared" in str(sf.check(runs["independent"].field, x))
    declared = runs["independent"].field
    declared = declared.around(declared.network, coupled=True).eval()
    assert not sf.check(declared, x).right


def weights(**settings):
    run = trained("ot", steps=12, **settings)
    return torch.cat([p.flatten() for p in run.field.network.parameters()])


def test_pieces_of_a_batch_and_workers_share_its_pairs():
    whole = weights()
    assert (weights(accumulate=4) - whole).abs().max() < 1e-5
    assert (weights(seed=1) - whole).abs().max() > 1e-2


def test_a_resumed_training_has_the_same_bits():
    config = sf.TrainConfig.model_validate(
        {
            "coupling": "ot",
            "network": SMALL["network"],
            "held_out": 0.2,
            "optim": {"steps": 8, "batch_size": 32},
        }
    )
    data = sf.Data(circle())
    straight = sf.Training(data, config)
    steps = iter(straight)
    for _ in range(4):
        next(steps)
    state = {name: value.clone() for name, value in straight.fit.state().items()}
    losses = [next(steps).loss for _ in range(4)]
    resumed = sf.Training(data, config)
    resumed.fit.restore(state)
    assert [next(resumed.fit).loss for _ in range(4)] == losses


def test_a_coupling_of_imported_networks_cannot_be_trained():
    with pytest.raises(UsageError, match="coupling='other'"):
        sf.train(circle(), coupling="other", steps=2, **SMALL)
    with pytest.raises(UsageError, match="coupling"):
        sf.train(circle(), coupling="best", steps=2, **SMALL)


def test_an_instant_of_the_weighting_at_one_time():
    x = torch.zeros(1, 2)
    at = Instant.of(sf.Flow(), 0.5, x)
    assert float(sf.FlowMatching()(at)) == pytest.approx(0.25 * (1 + 1) ** 2)
