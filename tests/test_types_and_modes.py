"""Types of numbers, gradient modes and empty batches at the public calls."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import scorefield as sf

MEAN, COVARIANCE = torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.8]])
EXACT = sf.Gaussian(sf.VP(), MEAN, COVARIANCE)
X = torch.tensor([[0.3, -0.4], [1.0, 0.2], [-0.5, -1.5]])


class Rounded(sf.ScoreField):
    """An exact field whose values, and one parameter, are in a type of fewer digits."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(EXACT.process, (2,), MEAN, COVARIANCE.diag())
        self.weight = nn.Parameter(torch.zeros((), dtype=dtype))

    def estimate(self, x: torch.Tensor, at: sf.Instant, **condition: object) -> sf.Estimate:
        eps = EXACT(x.double(), at.t).eps
        return sf.Estimate.from_eps(x, at, eps.to(self.weight.dtype).to(x))


def test_many_steps_of_a_half_precision_network_keep_the_variance() -> None:
    """A state of 8 bits loses the small steps: variance 0.81 for 1.0 by 1,000 steps of DDIM."""
    field = Rounded(torch.bfloat16)
    x = sf.sample(field, 512, sf.DDIM(), 1000, batch_size=512)
    exact = sf.sample(EXACT, 512, sf.DDIM(), 1000, batch_size=512)
    assert x.dtype == torch.float32
    assert (x.var(0) / exact.var(0) - 1).abs().max() < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_samples_in_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    field = Rounded(dtype)
    x = sf.sample(field, 8, sf.DDIM(), 300, dtype=dtype)
    assert torch.equal(x, sf.sample(field, 8, sf.DDIM(), 300).to(dtype))


CALLS = {
    "encode": lambda x: sf.encode(EXACT, x, nfe=4),
    "decode": lambda x: sf.decode(EXACT, x, nfe=4),
    "interpolate": lambda x: sf.interpolate(EXACT, x, x, nfe=4, points=3),
    "log_prob": lambda x: sf.log_prob(EXACT, x, nfe=8),
    "elbo": lambda x: sf.elbo(EXACT, x, nfe=4),
    "restore": lambda x: (sf.restore(EXACT, x, noise_std=0.1, nfe=3),),
}


def first(result: object) -> torch.Tensor:
    return result.value if hasattr(result, "value") else result[0]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CALLS)
def test_results_are_the_same_without_gradients(name: str, mode: type) -> None:
    expected = first(CALLS[name](X))
    with mode():
        assert torch.equal(first(CALLS[name](X)), expected)
        assert torch.equal(first(CALLS[name](X.clone())), expected)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_lists_and_half_precision_are_taken_as_numbers(name: str) -> None:
    expected = first(CALLS[name](X))
    assert torch.equal(first(CALLS[name](X.numpy())), expected)
    assert torch.equal(first(CALLS[name](X.tolist())), expected)
    wide = first(CALLS[name](X.double().numpy()))
    assert torch.equal(wide, first(CALLS[name](X.double())))
    for dtype in (np.float16, torch.bfloat16):
        half = X.numpy().astype(dtype) if dtype is np.float16 else X.to(dtype)
        exact = torch.as_tensor(half).float()
        assert torch.equal(first(CALLS[name](half)), first(CALLS[name](exact)))


@pytest.mark.parametrize("name", CALLS)
def test_no_samples_have_no_results(name: str) -> None:
    empty, some = first(CALLS[name](X[:0])), first(CALLS[name](X))
    assert empty.shape == (0, *some.shape[1:])
    assert empty.dtype == some.dtype


@pytest.mark.parametrize("name", ["log_prob", "elbo"])
def test_a_likelihood_rejects_samples_that_ask_for_a_gradient(name: str) -> None:
    x = X.clone().requires_grad_()
    with pytest.raises(ValueError, match="x requires a gradient"):
        CALLS[name](x)
    with torch.no_grad():
        assert torch.equal(CALLS[name](x).value, CALLS[name](X).value)


def test_the_gradient_that_the_rejection_names_is_that_of_the_log_density() -> None:
    x, process, h = X.double(), EXACT.process, 1e-3
    alpha = float(process.alpha(torch.tensor(process.t_min, dtype=torch.float64)))
    step = h * torch.eye(2, dtype=torch.float64)
    found = [
        (sf.log_prob(EXACT, x + d).value - sf.log_prob(EXACT, x - d).value) / (2 * h) for d in step
    ]
    named = alpha * EXACT(alpha * x, process.t_min).score
    torch.testing.assert_close(torch.stack(found, 1), named, rtol=1e-3, atol=1e-3)


def test_calls_of_another_thread_are_not_counted() -> None:
    with sf.count_calls(EXACT) as calls:
        other = threading.Thread(target=EXACT, args=(X, 0.5))
        other.start()
        other.join()
        EXACT(X, 0.5)
    assert (calls.count, calls.rows) == (1, 3)


def test_plans_of_the_same_steps_are_equal() -> None:
    plan, again = (sf.default_plan(EXACT, 8) for _ in range(2))
    assert plan == again
    assert hash(plan) == hash(again)
    moved = plan.times.clone()
    moved[1] *= 0.99
    for other in (replace(plan, times=moved), replace(plan, solver=sf.Heun()), sf.Adaptive(), 1):
        assert plan != other
    adaptive = sf.Plan(sf.Dopri5(), sf.Adaptive())
    assert adaptive == sf.Plan(sf.Dopri5(), sf.Adaptive())
    assert adaptive != replace(adaptive, times=sf.Adaptive(1e-4))
    assert plan != adaptive


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_needs_no_gradients_around_it(mode: type) -> None:
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    with mode():
        inside = sf.train(x.clone(), steps=3)
    assert torch.equal(inside.sample(4), sf.train(x, steps=3).sample(4))
