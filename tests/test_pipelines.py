"""Solvers and plans in tiny pipelines of diffusers end where integration does.

A pipeline's calls of `step` are recorded. Our own integration starts with the pipeline's own noise
and asks a field that has the recorded predictions; its states must be those of the pipeline. The
networks have random weights, built from configurations.
"""

import dataclasses
import functools
import inspect
import math

import pytest
import torch

import scorefield as sf

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import more_pipelines  # noqa: F401
from tiny_pipelines import BUILDERS, build

from scorefield.evaluate.certify import ODE_SOLVERS, SDE_SOLVERS
from scorefield.interop import scheduler as scheduler_module
from scorefield.interop.probe import Probe
from scorefield.interop.scheduler import SolverScheduler

pytestmark = pytest.mark.filterwarnings("ignore")

REFUSED = {
    "lcm": "original_inference_steps=50: a distilled network",
    "consistency": "not a scheduler of EDM",
    "cosmos": "sets the scheduler's _step_index",  # it guides x0, and calls step twice for it
}
# three steps of these from the most noise are so large that the states of float32 differ
ROUNDING = {
    "sdxl_edm": {"Dopri5", "Tsit5"},
    "svd": {"Dopri5", "Tsit5"},
    "deepfloyd": {"Singlestep(3, noise)"},
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
        torch.testing.assert_close(x / size, sample.to(x) / size, rtol=0, atol=1e-3)
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
    ignored = place == 0 and len(course.steps) > len(times) - 1 + course.finish
    base = Unscaled(scheduler.prediction)
    parts = Played(calls[ignored:]), scheduler.process, base, sample.shape[1:]
    field = clipped(sf.Denoiser(*parts, label=sf.time_label), scheduler.config)
    last = place + len(calls) == len(course.calls)
    grid = times[place:] if last else times[place : place + len(calls) + 1]
    at = sf.State(sample.double(), grid[0], noise)
    if course.lead and place == 0:
        *_, at = sf.integrate(field, sf.DDIM(), at, grid[:2])
        grid = grid[1:]
    if len(grid) > 1:
        *_, at = sf.integrate(field, solver, at, grid)
    return field(at.x, at.t).x0 if last and course.finish else at.x


def candidates(solver, place, course, whole):
    """Return the solvers that may continue at a place."""
    if isinstance(solver, sf.solvers.Fitted) and place > course.lead:
        return [sf.Multistep(2, start="rising")]
    if whole or not hasattr(solver, "start"):
        return [solver]
    return [dataclasses.replace(solver, start="rising"), solver]


def difference(found, calls, course, place, solver, scheduler, noise):
    """Return the distance to our own run, over the size of its end."""
    try:
        expected = ours(calls, course, place, solver, scheduler, noise)
    except (AssertionError, IndexError):  # it needs predictions for other states
        return math.inf
    return float((found.double() - expected).abs().max() / (1 + expected.abs().max()))


def check(name, choice, draws, tolerance=1e-4):
    """Compare the parts of a run between changes of the sample by its pipeline."""
    calls, course, scheduler = recorded(name, choice)
    late = len(course.calls) - len(calls)
    changed = [k for k in range(1, len(calls)) if not torch.equal(calls[k - 1][3], calls[k][1])]
    parts = list(zip([0, *changed], [*changed, len(calls)], strict=True))
    whole = not late and not changed
    assert all(bool(after.isfinite().all()) for *_, after in calls)
    if not whole and len(course.calls) != len(course.times) - 1 + course.finish:
        return  # within steps of several calls: see test_scheduler.py
    for first, end in parts:
        some = calls[end - 1][3], calls[first:end], course, late + first
        solvers = candidates(getattr(choice, "solver", choice), late + first, course, whole)
        skips = range(len(draws) + 1 if changed else 1)  # a change drops the noise of a next step
        near = [
            difference(*some, one, scheduler, Replay(draws[skip:]))
            for one in solvers
            for skip in skips
        ]
        assert min(near) <= tolerance, (name, choice, first, near)


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
@pytest.mark.parametrize(("turn", "key"), list(enumerate(sorted({**ODE_SOLVERS, **SDE_SOLVERS}))))
def test_every_solver_runs_in_every_pipeline(turn, key, draws, request):
    """In turns: each solver in an eighth of the pipelines, or in all with ``--all``."""
    solver = {**ODE_SOLVERS, **SDE_SOLVERS}[key](4)
    every = request.config.getoption("--all")
    for name in NAMES if every else NAMES[turn % 8 :: 8]:
        if name == "flux_img2img" and solver.calls > 1:
            continue  # it counts every call as a step, and may find no timesteps left
        draws.clear()
        rounding = ROUNDING.get(name, ())
        check(name, solver, draws, math.inf if key in rounding else 1e-3)


@pytest.mark.parametrize("name", list(REFUSED))
def test_pipelines_that_are_refused_say_why_in_one_line(name):
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        recorded(name, sf.Multistep(3))
    assert "\n" not in str(caught.value)


def test_a_pipeline_with_timesteps_of_other_times_is_no_field():
    tiny = build("cogview4")
    vars(tiny.pipeline)["scheduler"] = Probe(tiny.pipeline.scheduler, torch.tensor(500.0))
    with pytest.raises(sf.errors.UsageError, match="passes timesteps and sigmas"):
        run(tiny)


@pytest.mark.parametrize(
    "name", ["sd", "latte", "sd3", "flux", "ltx", "mochi", "chroma", "qwen_image", "cogview4"]
)
def test_order_1_ends_where_the_scheduler_of_the_pipeline_does(name):
    tiny = build(name)
    expected, config = run(tiny), tiny.pipeline.scheduler.config
    options = {} if "shift" in config else {"timestep_spacing": "leading"}
    tiny.pipeline.scheduler = SolverScheduler.from_config(config, solver=sf.DDIM(), **options)
    torch.testing.assert_close(run(tiny), expected, rtol=1e-3, atol=1e-3)
