"""Noise between two data sets: exact Gaussians and trained networks, for several eta."""

import numpy as np
import pytest
import torch
from cases import normal
from shell import finishes

import scorefield as sf
from scorefield import theory
from scorefield._internal.assignment import entropic
from scorefield.field import Bridge, Instant, bridge_std
from scorefield.networks import MLP
from scorefield.runs.trainer import FLOW

C = 0.8
A = (torch.tensor([-1.0, 0.5]), torch.tensor([[1.0, 0.4], [0.4, 0.5]]))
B = (torch.tensor([0.5, 0.0]), torch.tensor([[0.6, -0.2], [-0.2, 0.8]]))
SMALL = {"network": {"kind": "mlp", "width": 48, "depth": 2}, "held_out": 0.0, "warmup": 10}


def draws(n, moments, seed=0):
    """Return normal samples, of exactly these moments."""
    z = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = torch.linalg.solve(torch.linalg.cholesky(z.T.cov()), (z - z.mean(0)).T).T
    return moments[0] + z @ torch.linalg.cholesky(moments[1].double()).T


class Exact(sf.ScoreField):
    """The field between two Gaussians; the clock of `theory` runs the other way."""

    between_data, coupled, bridge = True, True, C

    def __init__(self, coupling="entropic"):
        super().__init__(sf.Flow(), (2,))
        self.pairs = theory.GaussianInterpolant(A, B, C, coupling)

    def estimate(self, x, at, **condition):
        place = 1 - at.t.flatten()[0]
        velocity, score = -self.pairs.velocity(x, place), self.pairs.score(x, place)
        return sf.Estimate.from_velocity(x, at, velocity)._replace(own_score=score)


def away(x, moments):
    """Return the errors of mean and covariance, relative to the largest variance."""
    mean, covariance = moments
    scale = float(covariance.diagonal().max())
    one = float((x.mean(0) - mean).abs().max()) / scale**0.5
    return one, float((x.T.cov() - covariance).abs().max()) / scale


def carry(field, x, *arguments, **settings):
    return sf.translate(field, x, *arguments, check=False, batch_size=len(x), **settings).x


@pytest.mark.parametrize(
    ("coupling", "eta", "back"),
    [
        *[("entropic", eta, back) for eta in (0.0, 1.0, 2.0) for back in (False, True)],
        *[("independent", eta, False) for eta in (0.0, 1.0, 2.0)],
    ],
)
def test_every_eta_has_the_distributions_of_both_ends(coupling, eta, back):
    ends = (B, A) if back else (A, B)
    y = carry(Exact(coupling), draws(8000, ends[0]), times=32, eta=eta, back=back, seed=1)
    assert max(away(y, ends[1])) < 0.03  # of which 0.02 are the error of 8,000 draws of noise


def test_the_entropic_coupling_with_eta_one_joins_its_pairs():
    x, field = draws(8000, A), Exact()
    y = carry(field, x, times=32, eta=1.0)
    cross = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    assert (cross - field.pairs._cross).abs().max() < 0.03
    ode = carry(field, x, times=16)
    assert ((x - x.mean(0)).T @ (ode - ode.mean(0)) / len(x) - field.pairs._cross).abs().max() > 0.1


@pytest.mark.parametrize("solver", [sf.DDIM(1.0), sf.EulerMaruyama(1.0)])
def test_any_solver_of_the_noise_serves(solver):
    y = carry(Exact(), draws(8000, A), solver, 64, eta=1.0, seed=2)
    assert max(away(y, B)) < 0.05


def test_with_eta_one_its_mean_of_the_data_is_the_end():
    """For points (1) is explicit: E[x_0 | x_t] from the exact means of the ends."""
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 1.0]])
    pairs = theory.PairInterpolant(a, b, torch.ones(1, 1), C)

    class Points(Exact):
        def __init__(self):
            super().__init__()
            self.pairs = pairs

    x = normal(5, 2)
    assert torch.allclose(Bridge(Points())(x, 0.4).x0, b.expand(5, 2).double(), atol=1e-6)
    assert torch.allclose(
        Bridge(Points(), back=True)(x, 0.4).x0, a.expand(5, 2).double(), atol=1e-6
    )


def test_the_coupling_of_a_batch_is_that_of_sinkhorn():
    x, z = normal(4, 2), normal(4, 2) + 1
    plan = theory.sinkhorn(x, z, C)
    u = (torch.arange(100).double() + 0.5) / 100
    rows = torch.stack([entropic(x, z, torch.zeros(4), C, v.expand(4)) for v in u])
    shares = torch.stack([(rows == k).double().mean(0) for k in range(4)], 1)
    assert torch.allclose(shares, 4 * plan, atol=0.02)
    order = entropic(x, z, torch.tensor([0, 0, 1, 1]), C, u[:4])
    assert torch.equal(order // 2, torch.arange(4) // 2)


def test_a_network_is_taught_both_heads():
    """With a network that is right for one pair of points the loss is zero."""
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, -1.0]])

    class Right(torch.nn.Module):
        def forward(self, x, label):
            t = torch.sigmoid(4 * label)[:, None]
            z = (x - (1 - t) * b - t * a) / (C * (t * (1 - t)).sqrt())
            return torch.cat([(a - b).expand_as(x), z], 1)

    field = sf.Denoiser(Right(), sf.Flow(), sf.Velocity(), (2,), bridge=C)
    objective = sf.Objective(sf.FlowMatching(), sf.UniformTimes())
    t, z = torch.tensor([0.1, 0.5, 0.9]), normal(3, 2).float()
    loss = objective.loss(field, b.expand(3, 2), t, a.expand(3, 2), z)
    assert loss.max() < 1e-8
    x, at = normal(3, 2).float(), Instant.of(sf.Flow(), 0.3, normal(3, 2).float())
    pairs = theory.PairInterpolant(a, b, torch.ones(1, 1), C)
    estimate = field(x, 0.3)
    assert torch.allclose(estimate.velocity, -pairs.velocity(x, 0.7), atol=1e-4)
    assert torch.allclose(estimate.score, pairs.score(x, 0.7), atol=1e-4)
    assert float(bridge_std(at, C)) == pytest.approx(C * 0.21**0.5)


def test_a_condition_may_have_the_name_of_the_noise():
    class Own(torch.nn.Module):
        def forward(self, x, label, z):
            return x + z[:, None]

    field, x = sf.Denoiser(Own(), sf.VP(), sf.X0(), (2,)), normal(3, 2).float()
    objective = sf.Objective(sf.Simple(), sf.UniformTimes())
    with_zero, with_one = (
        objective.loss(field, x, 0.5, x, z=torch.full((3,), value)) for value in (0.0, 1.0)
    )
    assert not torch.allclose(with_zero, with_one)


@pytest.fixture(scope="module")
def run():
    a, b = draws(2048, A).float(), draws(2048, B, 1).float()
    options = {"steps": 500, "lr": 5e-3, "batch_size": 256, **SMALL}
    return sf.train(a, to=b, coupling="entropic", bridge=C, **options)


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_a_trained_run_has_the_distribution_of_the_other_set(run, eta):
    result = run.translate(draws(4096, A, 2).float(), times=16, eta=eta, batch_size=4096)
    assert max(away(result.x.double(), B)) < 0.15
    y = draws(4096, B, 3).float()
    back = run.translate(y, times=16, eta=eta, back=True, batch_size=4096).x
    assert max(away(back.double(), A)) < 0.15
    assert bool(result.error.isnan().all()) == (eta > 0)


def test_a_run_with_noise_is_saved_and_its_bits_depend_on_the_seed(run, tmp_path):
    run.save(tmp_path / "run")
    again, x = sf.load(tmp_path / "run"), draws(8, A).float()
    assert again.field.bridge == C
    one = again.translate(x, times=6, eta=1.0, seed=3)
    assert torch.equal(one.x, run.translate(x, times=6, eta=1.0, seed=3).x)
    assert not torch.equal(one.x, again.translate(x, times=6, eta=1.0, seed=4).x)
    part = again.translate(x[4:], times=6, eta=1.0, seed=3, ids=range(4, 8), batch_size=8)
    assert torch.allclose(part.x, one.x[4:], atol=1e-5)


def test_a_resumed_training_with_noise_has_the_same_bits():
    config = sf.TrainConfig.model_validate(
        {
            **{name: {"kind": kind} for name, kind in FLOW.items()},
            **{"coupling": "entropic", "bridge": C, "network": SMALL["network"], "held_out": 0.2},
            "optim": {"steps": 6, "batch_size": 16, "accumulate": 2},
        }
    )
    a, b = sf.Data(draws(64, A).float()), sf.Data(draws(64, B, 1).float())
    straight = sf.Training(b, config, source=a)
    steps = iter(straight)
    next(steps), next(steps)
    state = {name: value.clone() for name, value in straight.fit.state().items()}
    losses = [next(steps).loss for _ in range(3)]
    resumed = sf.Training(b, config, source=a)
    resumed.fit.restore(state)
    assert [next(resumed.fit).loss for _ in range(3)] == losses


def test_the_commands_train_and_translate_with_noise(tmp_path, capsys):
    for name, moments in (("a", A), ("b", B)):
        np.save(tmp_path / f"{name}.npy", draws(128, moments).float().numpy())
    a, b, out = str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), str(tmp_path / "run")
    small = ["--network", "mlp", "--network.width", "16", "--steps", "20", "--held-out", "0.2"]
    finishes(
        "train", a, "--to", b, "--coupling", "entropic", "--bridge", "0.5", "--out", out, *small
    )
    assert "relative to no translation" in capsys.readouterr().out
    there = str(tmp_path / "t.npy")
    finishes("translate", out, a, "--out", there, "--steps", "8", "--eta", "1", "--seed", "4")
    assert "round trip" not in capsys.readouterr().out
    x = torch.from_numpy(np.load(a))
    again = sf.load(out).translate(x, times=8, eta=1.0, seed=4)
    assert np.allclose(np.load(there), again.x.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bridge": 1.0}, "bridge=1: is for two data sets"),
        ({"coupling": "entropic"}, "coupling=entropic: is for two data sets"),
        ({"to": normal(8, 2).float(), "coupling": "entropic"}, "needs noise between the sets"),
        ({"to": normal(8, 2).float(), "bridge": 1.0, "process": "vp"}, "needs process=flow"),
    ],
)
def test_noise_that_does_not_fit_is_refused_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        sf.train(normal(8, 2).float(), steps=2, **SMALL, **settings)


def test_noise_of_another_eta_is_refused():
    x = draws(4, A)
    for call, message in (
        (lambda: sf.translate(Exact(), x, sf.EulerMaruyama(0.5), 4, eta=1.0), "the noise of eta=1"),
        (lambda: sf.translate(Exact(), x, sf.Heun(), 4, eta=1.0), "the noise of eta=1"),
        (lambda: sf.translate(Exact(), x, eta=-1.0), "eta=-1"),
        (lambda: sf.sample(Bridge(Exact()), 4), "goes between two data sets"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    plain = sf.Denoiser(MLP(2, 8, 1), sf.Flow(), sf.Velocity(), (2,), between_data=True)
    with pytest.raises(ValueError, match="no noise between its two sets"):
        sf.translate(plain.eval(), x.float(), eta=1.0)
