"""Compilation and low precision: a compiled run and a half-precision network are the same model."""

import pytest
import torch
from cases import normal
from test_sample import Network, network_field
from torch import nn

import scorefield as sf
from scorefield.networks.conditions import Classes, Numbers

PROCESS = sf.VP(t_min=1e-3)
SOLVERS = {
    "DDIM": sf.DDIM(),
    "Heun": sf.Heun(),
    "Multistep(3)": sf.Multistep(3),
    "UniPC(2)": sf.unipc(2),
    "DDIM(1)": sf.DDIM(1.0),
    "StochasticHeun": sf.StochasticHeun(),
    "Churn": sf.Churn(sf.Heun(), churn=5.0, steps=5),
}
some_slow = pytest.mark.parametrize(  # each takes seconds to compile
    "name",
    [
        name if name in ("DDIM(1)", "Multistep(3)") else pytest.param(name, marks=pytest.mark.slow)
        for name in SOLVERS
    ],
)
quiet = pytest.mark.filterwarnings(  # what PyTorch says of itself
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch"
)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@quiet
@some_slow
def test_a_prepared_run_compiles_as_one_graph_and_gives_the_same_samples(name):
    """One graph: nothing on the way looks at a value, which would wait for a device."""
    field = network_field(PROCESS)
    times = sf.even_log_snr(PROCESS, 3)
    run = sf.prepare(field, SOLVERS[name], times)
    at = sf.prior(field, 6)
    with torch.no_grad():
        expected = run(at).x
        compiled = torch.compile(run, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(at).x, expected, rtol=1e-5, atol=1e-5)
        # the same graph for other samples, not their values written into it
        other = sf.State(2 * at.x, times[0], sf.Noise(0, torch.arange(6) + 7))
        torch.testing.assert_close(compiled(other).x, run(other).x, rtol=1e-5, atol=1e-5)


@quiet
@pytest.mark.parametrize(
    "t",
    [0.5, torch.tensor(0.5, dtype=torch.float64), torch.linspace(0.1, 0.9, 6)],
    ids=["a number", "a tensor", "one for each"],
)
def test_a_field_compiles_as_one_graph_for_every_form_of_the_time(t):
    field, x = network_field(PROCESS), normal(6, 2, dtype=torch.float32)
    compiled = torch.compile(field, fullgraph=True, backend="eager")
    with torch.no_grad():
        found, expected = compiled(x, t), field(x, t)
    for view in ("x0", "eps", "score", "v", "velocity"):
        got = getattr(found, view)
        torch.testing.assert_close(got, getattr(expected, view), rtol=1e-5, atol=1e-5)


GUIDED = {
    "bound": lambda field: field,
    "a scale for each": lambda field: sf.ClassifierFree(field, {"y": 2.0, "dose": 1.5}),
    "negative": lambda field: sf.ClassifierFree(
        field, 3.0, negative={"y": 0, "dose": torch.zeros(1)}, interval=(0.1, 50.0), rescale=0.3
    ),
}


@quiet
@pytest.mark.parametrize("name", GUIDED)
def test_conditional_and_guided_runs_compile_as_one_graph(name):
    """Bound rows, for each sample its own, are part of the run; other states use the same graph."""
    torch.manual_seed(0)
    conditions = {"y": Classes(3), "dose": Numbers(1)}
    network = sf.networks.MLP(2, width=8, depth=1, conditions=conditions)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    base = GUIDED[name](sf.Denoiser(network, PROCESS, sf.Preconditioned(), (2,)))
    field = base.condition_on(y=torch.arange(6) % 3, dose=normal(6, 1, dtype=torch.float32))
    run, at = sf.prepare(field, sf.Euler(), 1), sf.prior(field, 6)
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    with torch.no_grad():
        for state in (at, at._replace(x=2 * at.x)):
            torch.testing.assert_close(compiled(state).x, run(state).x, rtol=1e-5, atol=1e-5)


@quiet
@pytest.mark.slow
def test_the_brownian_path_is_the_same_when_compiled_to_machine_code():
    """Integers must not overflow under an optimiser's assumptions, nor powers of two round."""
    noise = sf.Noise(2**63 + 11, torch.tensor([0, 5, 2**40 + 3]))
    like = torch.empty(3, 5, dtype=torch.float64)
    compiled = torch.compile(lambda u: noise.path(u, like), fullgraph=True)
    for u in (0.437, 0.5, 1 / 3):
        u = torch.tensor(u, dtype=torch.float64)
        torch.testing.assert_close(compiled(u), noise.path(u, like), rtol=1e-9, atol=1e-9)


class Half(nn.Module):
    """A network that refuses inputs of any type but its own."""

    def __init__(self, dtype):
        super().__init__()
        self.inner = Network().to(dtype)

    def forward(self, x, label):
        assert x.dtype == label.dtype == self.inner.layers[0].weight.dtype
        return self.inner(x, label)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_a_half_precision_network_moves_a_float32_state_as_a_float32_network_does(
    name, dtype, size
):
    """The state is rounded nowhere on the way: what differs is the network's own rounding."""
    field = sf.Denoiser(Half(dtype), PROCESS, sf.Preconditioned(), (2,))
    times = sf.even_log_snr(PROCESS, 10)
    x = sf.sample(field, 64, SOLVERS[name], times, dtype=torch.float32)
    expected = sf.sample(network_field(PROCESS), 64, SOLVERS[name], times)
    assert x.dtype == expected.dtype == torch.float32
    assert x.isfinite().all()
    assert float((x - expected).norm() / expected.norm()) < size
    assert not torch.equal(x, x.to(dtype).float()), "the state has more digits than the network"
