"""Solvers and plans in tiny pipelines of diffusers end where integration does.

A pipeline's calls of `step` are recorded. Our own integration starts with the pipeline's own noise
and asks a field that has the recorded predictions; its states must be those of the pipeline. The
networks have random weights, built from configurations.
"""

import dataclasses
import functools
import inspect

import pytest
import torch
from cases import tensor

import scorefield as sf

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import more_pipelines  # noqa: F401
from tiny_pipelines import BUILDERS, build

from scorefield.evaluate.certify import ODE_SOLVERS, SDE_SOLVERS
from scorefield.interop import scheduler as scheduler_module
from scorefield.interop.scheduler import SolverScheduler

pytestmark = pytest.mark.filterwarnings("ignore")

REFUSED = {
    "lcm": "original_inference_steps=50: a distilled network",
    "consistency": "not a scheduler of EDM",
    "cosmos": "has no attribute '_step_index'",  # it guides x0, and calls step twice for it
}
NAMES = [name for name in BUILDERS if name not in REFUSED]
CALLS = 3


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def run(tiny, **options):
    out = tiny(**{"num_inference_steps": CALLS, "generator": seeded(), **options})
    return torch.as_tensor(out).double()


@functools.cache
def pipeline(name):
    """Return a tiny pipeline and the config of its own scheduler."""
    tiny = build(name)
    return tiny, tiny.pipeline.scheduler.config


def listen(scheduler):
    """Return the list of calls that a scheduler's `step` will have."""
    calls, own = [], scheduler.step

    def step(output, timestep, sample, *args, **options):
        result = own(output, timestep, sample, *args, **options)
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        calls.append((float(timestep), sample.clone(), output.clone(), after.clone()))
        return result

    step.__signature__ = inspect.signature(own)
    scheduler.step = step
    return calls


def recorded(name, solver, **options):
    """Return the calls of `step` in a pipeline, its course, and its scheduler."""
    tiny, config = pipeline(name)
    scheduler = SolverScheduler.from_config(config, solver=solver)
    calls = listen(scheduler)
    vars(tiny.pipeline)["scheduler"] = scheduler
    run(tiny, **options)
    return calls, scheduler._requests.current[1].course, scheduler


class Played(torch.nn.Module):
    """A network with recorded predictions, which checks that it is asked for these states."""

    def __init__(self, calls):
        super().__init__()
        self.calls = list(calls)

    def forward(self, x, t):
        _, sample, output, _ = self.calls.pop(0)
        size = 1 + sample.double().abs().max()
        torch.testing.assert_close(x / size, sample.to(x) / size, rtol=0, atol=1e-4)
        return output[:, : x.shape[1]].to(x)


class Unscaled(sf.Parametrization):
    """A parametrization whose network is asked for the state itself."""

    def __init__(self, base):
        self.base = base

    def __call__(self, alpha, sigma):
        skip, out, scale = self.base(alpha, sigma)
        return sf.Coefficients(skip, out, torch.ones_like(scale))


def clipped(field, config):
    if config["thresholding"]:
        limits = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        return sf.Thresholded(field, *limits)
    return sf.Clipped(field, config["clip_sample_range"]) if config["clip_sample"] else field


class Replay:
    """The noise that the scheduler drew."""

    def __init__(self, draws):
        self.draws = draws

    def normal(self, like):
        return self.draws.pop(0).to(like), self

    def skipped(self):
        return self

    def increment(self, start, end, like):
        return self.normal(like)


def ours(calls, course, place, solver, scheduler, noise):
    """Return the end of our own run over some calls, the first of which is at a place of all."""
    sample, times = calls[0][1], course.times
    base = Unscaled(scheduler.prediction)
    shape, process = sample.shape[1:], scheduler.process
    field = sf.Denoiser(Played(calls), process, base, shape, label=sf.time_label)
    field = clipped(field, scheduler.config)
    last = place + len(calls) == len(course.calls)
    grid = times[place:] if last else times[place : place + len(calls) + 1]
    at = sf.State(sample.double(), grid[0], noise)
    if place > course.lead and isinstance(solver, sf.solvers.Fitted):
        solver = sf.Multistep(2, start="rising")
    elif place == 0 and bool(process.alpha(grid[0]) == 0) and not starts(solver, process):
        *_, at = sf.integrate(field, sf.DDIM(), at, grid[:2])
        grid = grid[1:]
    if len(calls) < len(course.calls):
        solver = rising(solver)
    if len(grid) > 1:
        *_, at = sf.integrate(field, solver, at, grid)
    return field(at.x, at.t).x0 if last and course.finish else at.x


def rising(solver):
    """Return a solver whose first steps make no additional calls."""
    return dataclasses.replace(solver, start="rising") if hasattr(solver, "start") else solver


def starts(solver, process):
    """Return whether a solver can start where there is no signal."""
    field = sf.Gaussian(process, tensor(0.0), torch.eye(1).double())
    times = process.t_max * tensor(1.0, 0.5, 0.2)
    try:
        solver.moves(field, times[:-1], times[1:])
    except ValueError:
        return False
    return True


def check(name, choice, draws):
    """Compare the parts of a run between changes of the sample by its pipeline."""
    calls, course, scheduler = recorded(name, choice)
    solver = getattr(choice, "solver", choice)
    late = len(course.calls) - len(calls)
    changed = [k for k in range(1, len(calls)) if not torch.equal(calls[k - 1][3], calls[k][1])]
    parts = list(zip([0, *changed], [*changed, len(calls)], strict=True))
    if (late or changed) and solver.calls > 1:
        assert all(bool(after.isfinite().all()) for *_, after in calls)
        return
    for first, end in parts:
        noise = Replay(draws[2 * first :])  # a change drops the noise of the next step
        found = calls[end - 1][3].double()
        expected = ours(calls[first:end], course, late + first, solver, scheduler, noise)
        size = 1 + expected.abs().max()
        torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-4)


@pytest.fixture
def draws(monkeypatch):
    """The noise that schedulers draw in a test."""
    numbers, draw = [], scheduler_module._draw

    def listed(generator, like):
        numbers.append(draw(generator, like))
        return numbers[-1]

    monkeypatch.setattr(scheduler_module, "_draw", listed)
    return numbers


@pytest.fixture(scope="module")
def plan():
    """A plan tuned to a mixture, to carry to every process."""
    process = SolverScheduler(beta_schedule="scaled_linear").process
    means = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]], dtype=torch.float64)
    field = sf.Mixture(process, torch.ones(3), means, 0.1 * torch.eye(2).expand(3, 2, 2).double())
    return sf.tune(field, nfe=CALLS, noises=16, tries=2)


def test_at_least_40_pipelines_are_tried_and_36_run():
    assert len(BUILDERS) >= 40
    assert len(NAMES) >= 36


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_ends_where_integration_does(name, plan, draws):
    for choice in (SolverScheduler().solver, sf.DDPM(), sf.Heun(), plan):
        draws.clear()
        check(name, choice, draws)


@pytest.mark.slow
@pytest.mark.parametrize("solver", sorted({**ODE_SOLVERS, **SDE_SOLVERS}))
def test_every_solver_runs_in_every_pipeline(solver, draws):
    for name in NAMES:
        draws.clear()
        check(name, {**ODE_SOLVERS, **SDE_SOLVERS}[solver](4), draws)


@pytest.mark.parametrize("name", list(REFUSED))
def test_pipelines_that_are_refused_say_why_in_one_line(name):
    with pytest.raises((ValueError, AttributeError), match=REFUSED[name]) as caught:
        recorded(name, sf.Multistep(3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["sd", "latte", "sd3", "flux", "ltx", "mochi", "chroma", "qwen_image"]
)
def test_order_1_ends_where_the_scheduler_of_the_pipeline_does(name):
    tiny = build(name)
    expected, config = run(tiny), tiny.pipeline.scheduler.config
    options = {} if "shift" in config else {"timestep_spacing": "leading"}
    tiny.pipeline.scheduler = SolverScheduler.from_config(config, solver=sf.DDIM(), **options)
    torch.testing.assert_close(run(tiny), expected, rtol=1e-3, atol=1e-3)
