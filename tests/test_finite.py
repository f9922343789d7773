"""Robustness: whatever the solver, grid, process and precision, samples are numbers.

``pytest tests/test_finite.py --fuzz 10000`` tries more configurations than a run of all tests does.
"""

import random

import pytest
import torch
from cases import linear_alpha_bar, mixture

import scorefield as sf
from scorefield.evaluate.certify import ODE_SOLVERS, SDE_SOLVERS

SOLVERS = {
    **ODE_SOLVERS,
    **SDE_SOLVERS,
    "Restart(DDIM)": lambda steps: sf.Restart(sf.DDIM(), low=0.05, high=2.0, steps=3),
    "Churn(Singlestep(3))": lambda steps: sf.Churn(sf.Singlestep(3), 40.0, steps, (0.05, 50.0)),
    "Churn(DDIM), everywhere": lambda steps: sf.Churn(sf.DDIM(), 80.0, steps, scale=1.003),
    "Ancestral(Dopri5)": lambda steps: sf.Ancestral(sf.Dopri5()),
    "DPM-Solver(3)": lambda steps: sf.dpm_solver(3),
    "Program(DDIM(1), UniPC(3))": lambda steps: sf.Program((sf.DDIM(1.0), sf.unipc(3)), (1.0,)),
}


def zero_terminal_table():
    """Return DDPM's table stretched so that its last entry is 0 (Lin et al., 2024)."""
    root = linear_alpha_bar().sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


PROCESSES = {
    "VP": sf.VP(beta_max=40.0, t_min=1e-5),
    "SubVP": sf.SubVP(),
    "VE": sf.VE(sigma_max=1e3),
    "EDM": sf.EDM(t_max=1e3),
    "Cosine": sf.Cosine(),
    "Flow": sf.Flow(t_max=0.999),
    "Tabulated, alpha = 0": sf.Tabulated(zero_terminal_table()),
    "Flow, alpha = 0": sf.Flow(t_max=1.0),
}
FIELDS = {name: mixture(process) for name, process in PROCESSES.items()}
REFUSALS = ["alpha = 0", "has an infinite diffusion"]  # what is undefined where there is no signal
GRIDS = [sf.uniform, sf.quadratic, sf.even_log_snr, sf.karras, sf.balanced]
PLAN = "the default plan"


def configuration(seed):
    """Return the names and numbers of one configuration, drawn with a seed of its own."""
    draw = random.Random(seed)
    process = draw.choice(list(PROCESSES))
    grid = draw.choice(GRIDS[:2] if process.endswith("alpha = 0") else GRIDS)
    # small numbers of steps as often as large ones: there steps are longest
    steps = round(200 ** draw.random())
    dtype = draw.choice([torch.float32, torch.float64])
    return draw.choice([*SOLVERS, PLAN]), steps, grid, dtype, process


def complaint(seed):
    """Return what is wrong with the samples of a configuration, or None."""
    name, steps, grid, dtype, process = configuration(seed)
    where = f"{seed}: {name}, {steps} steps of {grid.__name__} on {process}, {dtype}"
    field = FIELDS[process]
    try:
        if name == PLAN:
            plan = sf.default_plan(field, steps + 1)
        else:
            plan = sf.Plan(SOLVERS[name](steps), grid(field.process, steps))
        run = sf.prepare(field, plan.solver, plan.times)
        with torch.no_grad():
            at = run(sf.prior(field, 3, run.first, dtype=dtype))
            x0 = field(at.x, at.t).x0 if plan.finish else at.x
    except ValueError as error:
        refused = process.endswith("alpha = 0") and any(text in str(error) for text in REFUSALS)
        return None if refused else f"{where}: {error}"
    if at.x.dtype != dtype or not bool(at.x.isfinite().all() & x0.isfinite().all()):
        return f"{where}: {at.x.tolist()}"
    return None


def pytest_generate_tests(metafunc):
    if "chunk" in metafunc.fixturenames:
        count, rest = divmod(metafunc.config.getoption("fuzz"), 100)
        assert count, "--fuzz needs at least 100"
        assert not rest, "--fuzz needs a multiple of 100"
        more = pytest.mark.exhaustive
        chunks = [k if k < 4 else pytest.param(k, marks=more) for k in range(count)]
        metafunc.parametrize("chunk", chunks)


def test_samples_are_finite_whatever_the_configuration(chunk):
    complaints = [complaint(seed) for seed in range(100 * chunk, 100 * (chunk + 1))]
    assert not any(complaints), "\n".join(filter(None, complaints))


@pytest.mark.parametrize("process", ["Tabulated, alpha = 0", "Flow, alpha = 0"])
def test_only_methods_that_need_the_signal_refuse_a_start_without_any(process):
    """The SDE has no finite diffusion there, and the log-SNR is infinite; the ODE is neither."""
    field = FIELDS[process]
    times = sf.uniform(field.process, 4)
    refused = {}
    for name, make in SOLVERS.items():
        try:
            sf.prepare(field, make(4), times)
        except ValueError as error:
            refused[name] = str(error)
    for message in refused.values():
        assert any(text in message for text in REFUSALS)
    accepted = {"Euler", "Midpoint", "Heun", "RK4", "Dopri5", "DDIM", "DDIM(1)"}
    assert not accepted & refused.keys()
    assert {"Singlestep(2, data)", "EulerMaruyama"} <= refused.keys()
