"""Gradients through a solver: exact where the flow is linear, and the same with less memory."""

import math

import pytest
import torch
from cases import ALL_SOLVERS, PROCESS_IDS, PROCESSES, label, mixture, normal

import scorefield as sf

VALUES = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)


def gaussian(process):
    return sf.Gaussian(process, torch.tensor([0.5, -1.0, 0.0]).double(), VALUES.diag())


@pytest.mark.parametrize("name", PROCESS_IDS)
def test_the_gradient_of_a_gaussians_flow_is_its_deviations(name):
    """Each coordinate keeps its place in its normal law, so x is mean + deviation z."""
    field = gaussian(PROCESSES[name])
    z = normal(4, 3, seed=0).requires_grad_()
    plan = sf.round_trip_plan(field, 60)
    x = sf.unroll(field, z, sf.Plan(plan.solver, plan.times))
    weights = normal(4, 3, seed=1)
    (slope,) = torch.autograd.grad((weights * x).sum(), z)
    scale = slope / weights
    start = field.process.prior(field.mean, field.variance, plan.times[0])
    exact = field.process.prior(0.0, VALUES, plan.times[0])
    moved = (start.draw(torch.ones(1, 3).double()) - start.draw(torch.zeros(1, 3).double())) / (
        exact.draw(torch.ones(1, 3).double()) - exact.draw(torch.zeros(1, 3).double())
    )
    torch.testing.assert_close(scale, (VALUES.sqrt() * moved).expand(4, 3), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_computing_steps_anew_changes_no_bit(solver):
    field, z = mixture(sf.VP()), normal(3, 2, seed=2)
    found = []
    for anew in (True, False):
        start = z.clone().requires_grad_()
        x = sf.unroll(field, start, solver, sf.uniform(field.process, 4), checkpoint=anew)
        found.append((x, *torch.autograd.grad(x.square().sum(), start)))
    (x, slope), (other, other_slope) = found
    assert torch.equal(x, other)
    assert torch.equal(slope, other_slope)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("solver", [None, sf.DDPM()])
def test_the_samples_are_those_of_sample(solver):
    field = mixture(sf.VP())
    times = None if solver is None else sf.uniform(field.process, 6)
    x = sf.sample(field, 5, solver, times, seed=3, batch_size=5, dtype=torch.float64)
    z, _ = sf.Noise(3, torch.arange(5)).draw(field.shape, torch.empty(0, dtype=torch.float64))
    torch.testing.assert_close(sf.unroll(field, z, solver, times, seed=3), x, rtol=0, atol=0)


@pytest.mark.parametrize("anew", [True, False])
def test_steps_are_computed_anew_on_the_way_back_instead_of_kept(anew):
    field, z = mixture(sf.VP()), normal(3, 2, seed=4).requires_grad_()
    with sf.count_calls(field) as calls:
        x = sf.unroll(field, z, sf.Heun(), sf.uniform(field.process, 5), checkpoint=anew)
        assert calls.count == 11
        x.sum().backward()
    # the last call of a step is broken off when all is known that is asked for
    assert calls.count == (16 if anew else 11)


def test_a_latent_can_be_optimised():
    field, wanted = gaussian(sf.VP()), torch.tensor([[1.0, 0.0, 0.3]]).double()
    z = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=30)

    def closure():
        optimizer.zero_grad()
        loss = (sf.unroll(field, z, sf.default_plan(field, 8)) - wanted).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert math.sqrt(closure().item()) < 1e-4


def test_what_cannot_be_unrolled_is_refused():
    field = mixture(sf.VP())
    with pytest.raises(ValueError, match=r"shape \(3, 5\)"):
        sf.unroll(field, torch.zeros(3, 5))
    with pytest.raises(ValueError, match="give a grid or a number of steps"):
        sf.unroll(field, torch.zeros(3, 2), sf.Dopri5(), sf.Adaptive(1e-2, 1e-2))
