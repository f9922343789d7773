"""Tests on a device without float64, in a process of their own: `test_devices` runs them.

PyTorch's autograd asks for the devices once, at the first pass backwards.
"""

import copy

import pytest
import stand_in
import torch
from shell import end

import scorefield as sf

NFE = 12


@pytest.fixture(scope="module")
def device():
    """Return the name of the stand-in, on which modules make new parameters."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    return stand_in.start()


@pytest.fixture(scope="module")
def fields(device):
    """Return one field on the CPU and one on the device."""
    torch.manual_seed(0)
    here = sf.Denoiser(sf.MLP(2), sf.VP(), sf.V(), (2,)).eval()
    there = sf.Denoiser(copy.deepcopy(here.network).to(device), sf.VP(), sf.V(), (2,)).eval()
    return here, there


X = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
MISSING = torch.tensor([1.0, torch.nan]).repeat(4, 1)
SOLVERS = [
    sf.Heun(),
    sf.Multistep(),
    sf.unipc(),
    sf.DDPM(),
    sf.EulerMaruyama(),
    sf.StochasticHeun(),
    sf.Multistep(eta=1.0),
    sf.Churn(sf.Heun(), 5, 6),
    sf.PredictorCorrector(sf.ReverseDiffusion(), sf.Langevin()),
]
SETTINGS = {"nfe": NFE, "batch_size": 8}
ADAPTIVE = {"times": sf.Adaptive(0.3, 0.3, longest=1.0), "batch_size": 8}
COMPUTED = {
    "adaptive": lambda field, x: sf.sample(field, 8, sf.Heun(), **ADAPTIVE),
    "encode": lambda field, x: sf.encode(field, x, **SETTINGS).z,
    "decode": lambda field, x: sf.decode(field, x, **SETTINGS).x,
    "interpolate": lambda field, x: sf.interpolate(field, x[:4], x[4:], **SETTINGS).x,
    "log_prob": lambda field, x: sf.log_prob(field, x, **SETTINGS).value,
    "probes": lambda field, x: sf.log_prob(field, x, probes=2, **SETTINGS).value,
    "log_prob by steps": lambda field, x: sf.log_prob(field, x, **ADAPTIVE).value,
    "elbo": lambda field, x: sf.elbo(field, x, **SETTINGS).value,
    "unroll": lambda field, x: sf.unroll(field, x, nfe=NFE),
    "times of each": lambda field, x: field(x, torch.linspace(0.1, 0.9, 8).to(x)).x0,
    **{
        method: lambda field, x, method=method: sf.restore(
            field, MISSING.to(x), n=2, method=method, nfe=4, batch_size=8
        )
        for method in ("pigdm", "dps", "mmps", "replacement")
    },
}


@pytest.mark.parametrize("name", COMPUTED)
def test_results_on_a_device_without_float64_are_those_on_the_cpu(fields, device, name):
    here, there = (COMPUTED[name](f, x) for f, x in zip(fields, (X, X.to(device)), strict=True))
    assert there.device.type == device
    torch.testing.assert_close(there.cpu().float(), here.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_steps_on_a_grid_do_not_wait_for_the_device(fields, device, solver):
    waits = []
    for steps in (4, 8):
        with stand_in.waits() as counted:
            there = sf.sample(fields[1], 8, solver, steps, batch_size=8)
        waits.append(len(counted))
    torch.testing.assert_close(
        there.cpu(), sf.sample(fields[0], 8, solver, steps, batch_size=8), rtol=1e-4, atol=1e-5
    )
    assert waits[0] == waits[1]  # those of the start and of the end


def test_a_plan_can_be_tuned_on_the_device(fields, monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.setattr("scorefield.tuning.teacher.NODES", 24)
    here, there = (sf.tune(f, nfe=4, tries=1, noises=16, polish=1) for f in fields)
    assert there.tuning.error == pytest.approx(here.tuning.error, rel=0.01)
    assert there.tuning.default == pytest.approx(here.tuning.default, rel=0.01)


def fit(field):
    optim = sf.OptimConfig(steps=3, batch_size=8, warmup=1)
    objective = sf.Objective(sf.Simple(), sf.UniformTimes())
    return iter(sf.fit(copy.deepcopy(field), objective, X, optim=optim))


def test_a_step_of_training_waits_for_the_step_before_alone(fields):
    here, there = [step.loss for step in fit(fields[0])], fit(fields[1])
    with stand_in.waits() as counted:
        first = next(there)
    assert not counted
    with stand_in.waits() as counted:
        second = next(there)
    assert len(counted) == 1
    with stand_in.waits() as counted:
        assert first.loss == pytest.approx(here[0], rel=1e-4)
    assert not counted, "the second step has read it"
    assert [second.loss, next(there).loss] == pytest.approx(here[1:], rel=1e-4)


COMMANDS = {
    "sample": ["--n", "4", "--nfe", "4"],
    "likelihood": ["moons", "--ids", "0:4", "--nfe", "12"],
    "encode": ["moons", "--ids", "0:4", "--nfe", "12"],
    "interpolate": ["moons", "--pairs", "0:1", "--nfe", "12"],
    "check": ["--n", "2"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices") / "run"
    sf.train("moons", steps=2, network={"kind": "mlp", "width": 8, "depth": 1}).save(folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_evaluates_the_network_on_the_device(run, tmp_path, device, command):
    out = [] if command == "check" else ["--out", tmp_path / "out.npy", "--batch-size", "4"]
    if command == "likelihood":
        out[1] = tmp_path / "out.csv"
    code = end(command, run, *COMMANDS[command], *out, "--device", device)
    assert code == (4 if command == "check" else 0)  # the network learned nothing
