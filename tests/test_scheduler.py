"""Solvers and plans as schedulers of diffusers: pipelines end where `sf.integrate` does.

The pipelines and schedulers are those of the released package. The properties its own suite asks of
a scheduler (tests/schedulers/test_schedulers.py of its repository) are asked of this one.
"""

import copy
import dataclasses
import gc
import inspect
import math
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
from cases import ALL_SOLVERS, label, normal, tensor

import scorefield as sf
from scorefield.evaluate.certify import ODE_SOLVERS, SDE_SOLVERS
from scorefield.solvers import Move

diffusers = pytest.importorskip("diffusers")

from scorefield.interop.scheduler import SolverScheduler  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Initializing zero-element"
)

CERTIFIED = {**ODE_SOLVERS, **SDE_SOLVERS}
SHORT = {"num_train_timesteps": 100, "beta_end": 0.1, "prediction_type": "v_prediction"}
SPACINGS = ["leading", "linspace", "trailing"]


class Net(torch.nn.Module):
    """A network of two lines, a function of ``x`` and ``t`` that is smooth in both."""

    def forward(self, x, t):
        t = torch.as_tensor(t).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return torch.tanh(0.7 * x + 0.002 * t - 0.3)


class Replay:
    """The noise that a generator gives, drawn in order."""

    def __init__(self, generator):
        self.generator = generator

    def normal(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype), self

    def skipped(self):
        return self

    def increment(self, start, end, like):
        return self.normal(like)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def field_of(made, shape=(3,), network=None):
    """Return the field of a network on a scheduler's process, asked as the pipelines ask it."""
    flow = made.config.prediction_type == "flow_prediction"
    kinds = {"epsilon": sf.Eps(), "v_prediction": sf.V(), "sample": sf.X0()}
    kind = sf.Velocity() if flow else kinds[made.config.prediction_type]
    unit = made.config.num_train_timesteps if flow else 1

    def time(process, t):
        return unit * t

    return sf.Denoiser(network or Net(), made.process, kind, shape, label=time)


def truth(field, solver, times, x, noise=None, finish=True):
    """Return the end of a run of ours."""
    at = sf.State(x, times[0], noise)
    if len(times) > 1:
        *_, at = sf.integrate(field, solver, at, times)
    return field(at.x, at.t).x0 if finish else at.x


def drive(made, x, generator=None, timesteps=None, network=None):
    """Return the end of a loop as pipelines have it."""
    network = network or Net()
    for t in made.timesteps if timesteps is None else timesteps:
        output = network(made.scale_model_input(x, t), t)
        x = made.step(output, t, x, generator=generator).prev_sample
    return x


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# every solver, in a loop


@pytest.mark.parametrize("name", list(CERTIFIED))
def test_a_loop_ends_where_a_run_of_the_solver_does(name):
    solver = CERTIFIED[name](4)
    made = SolverScheduler(solver, **SHORT)
    made.set_timesteps(5)
    x, times = normal(4, 3), sf.balanced(made.process, 4)
    expected = truth(field_of(made), solver, times, x, Replay(seeded()))
    close(drive(made, x, seeded()), expected, 1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_prediction_and_grid_of_a_table(prediction, spacing):
    made = SolverScheduler(sf.Heun(), **{**SHORT, "prediction_type": prediction}, steps_offset=1)
    made = SolverScheduler.from_config(made.config, timestep_spacing=spacing)
    theirs = diffusers.DDIMScheduler(num_train_timesteps=100, timestep_spacing=spacing)
    theirs.register_to_config(steps_offset=1)
    theirs.set_timesteps(7)
    made.set_timesteps(7)
    x, times = normal(4, 3), theirs.timesteps.double()
    close(drive(made, x), truth(field_of(made), sf.Heun(), times, x))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])  # their steps differ on "linspace"
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_it_does_what_their_ddim_does_with_the_same_generator(spacing, eta):
    theirs = diffusers.DDIMScheduler(timestep_spacing=spacing, clip_sample=False)
    made = SolverScheduler.from_config(theirs.config, solver=sf.DDIM(eta), timestep_spacing=spacing)
    x, network, generator = normal(4, 3), Net(), seeded()
    theirs.set_timesteps(8)
    made.set_timesteps(8)
    assert made.timesteps.dtype == torch.int64
    assert torch.equal(made.timesteps, theirs.timesteps)
    expected = x
    for k, t in enumerate(theirs.timesteps):
        last = k == len(theirs.timesteps) - 1  # theirs adds noise to the result
        options = {"eta": 0.0 if last else eta, "generator": generator}
        expected = theirs.step(network(expected, t), t, expected, **options).prev_sample
    close(drive(made, x, seeded()), expected, 1e-4)


def test_it_does_what_their_ddpm_does_with_a_generator_per_sample():
    theirs = diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="trailing")
    made = SolverScheduler.from_config(theirs.config, solver=sf.DDPM(), timestep_spacing="trailing")
    x, network = normal(3, 2), Net()
    theirs.set_timesteps(10)
    made.set_timesteps(10)
    expected, generators = x, [seeded(k) for k in range(3)]
    for t in theirs.timesteps:
        output = network(expected, t)
        expected = theirs.step(output, t, expected, generator=generators).prev_sample
    found = drive(made, x, [seeded(k) for k in range(3)])
    close(found, expected, 1e-4)


# flow models


@pytest.mark.parametrize(
    "solver", [sf.Euler(), sf.Heun(), sf.Multistep(3), sf.DDIM(1.0)], ids=label
)
def test_a_flow_ends_where_a_run_of_the_solver_does(solver):
    made = SolverScheduler(solver, prediction_type="flow_prediction", shift=3.0)
    made.set_timesteps(6)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(6)
    x, times = normal(4, 3), theirs.sigmas[:-1].double()
    expected = truth(field_of(made), solver, times, x, Replay(seeded()))
    close(drive(made, x, seeded()), expected)
    assert made.init_noise_sigma == 1


def led(field, solver, times, x, noise=None):
    """Return the end of a run whose first step is DDIM's."""
    second = truth(field, sf.DDIM(), times[:2], x, finish=False)
    return truth(field, solver, times[1:], second, noise)


def accepts(solver, times, process):
    """Return whether a solver can step along times from the end of a process."""
    field = sf.Gaussian(process, tensor(0.0), torch.eye(1, dtype=torch.float64))
    try:
        solver.moves(field, times[:-1], times[1:])
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", list(CERTIFIED))
def test_every_solver_starts_a_flow_with_noise_alone(name):
    solver = CERTIFIED[name](4)
    made = SolverScheduler(solver, prediction_type="flow_prediction")
    made.set_timesteps(sigmas=[1.0, 0.8, 0.5, 0.3, 0.1])
    x, times = normal(4, 3), tensor(1.0, 0.8, 0.5, 0.3, 0.1)
    run = truth if accepts(solver, times, made.process) else led
    expected = run(field_of(made), solver, times, x, Replay(seeded()))
    close(drive(made, x, seeded()), expected)


@pytest.mark.parametrize("spacing", ["balanced", "trailing"])
@pytest.mark.parametrize("solver", [sf.Multistep(3), sf.unipc(2), sf.DDPM(), sf.Heun()], ids=label)
def test_solvers_start_a_table_without_signal(solver, spacing):
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": spacing}
    made = SolverScheduler(solver, **{**SHORT, **options})
    made.set_timesteps(6)
    assert float(made.process.alpha(made.timesteps[:1].double())) == 0
    grid = made._requests.current[1].course.times
    x, run = normal(4, 3), truth if accepts(solver, grid, made.process) else led
    expected = run(field_of(made), solver, grid, x, Replay(seeded()))
    close(drive(made, x, seeded()), expected)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"shift": 3.0}, {"num_inference_steps": 6}),
        ({"shift": 2.0}, {"sigmas": [1.0, 0.7, 0.2]}),
        ({"use_dynamic_shifting": True}, {"sigmas": [1.0, 0.7, 0.2], "mu": 0.8}),
        (
            {"use_dynamic_shifting": True, "time_shift_type": "linear"},
            {"num_inference_steps": 5, "mu": 0.8},
        ),
        ({}, {"num_inference_steps": 4, "mu": 0.8}),
    ],
)
def test_euler_does_what_their_flow_scheduler_does(options, given):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**options)
    made = SolverScheduler.from_config(theirs.config, solver=sf.Euler())
    theirs.set_timesteps(**given)
    made.set_timesteps(**given)
    close(made.timesteps, theirs.timesteps)
    x = expected = normal(4, 3, dtype=torch.float32)
    for t in theirs.timesteps:
        expected = theirs.step(Net()(expected, t), t, expected).prev_sample
    close(drive(made, x), expected)


def test_the_shift_of_a_flow_is_taken_over_from_their_multistep_schedulers():
    options = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    theirs = diffusers.UniPCMultistepScheduler(**options)
    made = SolverScheduler.from_config(theirs.config, solver=sf.DDIM())
    assert made.config["shift"] == 3.0
    changed = SolverScheduler.from_config(made.config, shift=5.0)
    again = SolverScheduler.from_config(changed.config)
    again.set_timesteps(4)
    expected = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    expected.set_timesteps(4)
    close(again.timesteps, expected.timesteps)


def test_noise_is_added_as_their_flow_scheduler_adds_it():
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    made = SolverScheduler.from_config(theirs.config)
    theirs.set_timesteps(5)
    x, eps = normal(2, 3, dtype=torch.float32), normal(2, 3, seed=1, dtype=torch.float32)
    t = theirs.timesteps[[1, 3]]
    close(made.scale_noise(x, t, eps), theirs.scale_noise(x, t, eps))
    close(made.get_velocity(x, eps, t), eps - x)


# grids and processes of other schedulers


def walked(scheduler, x):
    """Return the end of a loop of a scheduler, with the input that it scales."""
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)  # as pipelines do
    scaled = getattr(scheduler, "scale_model_input", lambda x, t: x)
    for t in scheduler.timesteps:
        output = Net()(scaled(x, t), t)
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize("kind", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("terminal", [None, 0.1])
def test_spacings_of_noise_levels_are_theirs(kind, terminal):
    options = {f"use_{kind}_sigmas": True}
    if terminal is None:
        theirs = diffusers.EulerDiscreteScheduler(**options, timestep_spacing="linspace")
        theirs.register_to_config(_use_default_values=[])
    else:
        flow = {"use_dynamic_shifting": True, "shift_terminal": terminal}
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(**options, **flow)
    made = SolverScheduler.from_config(theirs.config, solver=sf.Euler())
    given = {"num_inference_steps": 7, **({} if terminal is None else {"mu": 0.8})}
    theirs.set_timesteps(**given)
    made.set_timesteps(**given)
    close(made.sigmas, theirs.sigmas, 2e-3)
    if terminal is not None:
        x = normal(4, 3, dtype=torch.float32)
        close(walked(made, x), walked(theirs, x), 1e-4)


OF_NOISE_LEVELS = [
    diffusers.EDMEulerScheduler(sigma_data=0.7),
    diffusers.EDMEulerScheduler(sigma_schedule="exponential", prediction_type="v_prediction"),
    diffusers.EulerDiscreteScheduler(
        timestep_type="continuous",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.01,
        sigma_max=70.0,
    ),
    diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True, shift=2.0),
]


@pytest.mark.parametrize("theirs", OF_NOISE_LEVELS, ids=lambda one: type(one).__name__)
def test_order_1_does_what_other_schedulers_do(theirs):
    spaced = {} if hasattr(theirs.config, "shift") else {"use_karras_sigmas": True}
    if theirs.config.get("sigma_schedule") == "exponential":
        spaced = {}
    made = SolverScheduler.from_config(theirs.config, solver=sf.DDIM(), **spaced)
    for one in (theirs, made):
        one.set_timesteps(6)
    close(made.timesteps.float(), theirs.timesteps.float(), 1e-3)
    x = normal(4, 3, dtype=torch.float32)
    found, expected = walked(made, x), walked(theirs, x)
    width = float(getattr(theirs, "init_noise_sigma", 1.0))
    assert made.init_noise_sigma == pytest.approx(width, rel=1e-3)
    close(found, expected, 2e-3)


def test_a_learned_variance_is_not_used():
    made = SolverScheduler(sf.Multistep(3), **SHORT)
    made.set_timesteps(4)
    x = normal(2, 3, 4, 4)
    network = Net()

    def two(x, t):
        return torch.cat([network(x, t), 5 * x], dim=1)

    close(drive(made, x, network=two), drive(made, x, network=network))


def test_entries_of_a_config_that_change_samples_are_named():
    theirs = diffusers.DPMSolverMultistepScheduler(lambda_min_clipped=-5.1)
    with pytest.warns(UserWarning, match=r"lambda_min_clipped=-5.1: unknown here, and ignored"):
        SolverScheduler.from_config(theirs.config)
    with pytest.raises(ValueError, match="use_lu_lambdas=True: another spacing"):
        SolverScheduler.from_config({**theirs.config, "use_lu_lambdas": True})


def test_timesteps_and_noise_levels_are_there_before_they_are_set():
    made, theirs = SolverScheduler(), diffusers.DDIMScheduler()
    assert torch.equal(made.timesteps, theirs.timesteps)
    assert made.num_inference_steps is None
    flow = SolverScheduler(prediction_type="flow_prediction", shift=3.0)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    close(flow.timesteps, theirs.timesteps)
    close(flow.sigmas[:-1], theirs.sigmas)


# plans


def mixture_on(process):
    means = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]], dtype=torch.float64)
    narrow = 0.1 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    return sf.Mixture(process, torch.ones(3), means, narrow)


def begun(field, plan):
    """Return where `sf.sample` has eight samples begin."""
    return sf.prior(field, 8, plan.times[0], dtype=torch.float64).x


@pytest.fixture(scope="module")
def tuned():
    """A plan for a mixture on a table, whose levels moved apart from the states; the mixture."""
    made = SolverScheduler(**SHORT)
    field = mixture_on(made.process)
    searched, plan = (sf.tune(field, nfe=4, noises=32, tries=3, polish=k) for k in (0, 3))
    assert min(abs(a - b) for a, b in zip(plan.times[:-1], searched.times, strict=False)) > 1e-4
    return plan, field


def exact(field, view):
    """Return an exact field as a network that says what it is asked for."""
    unit = 1000 if view == "velocity" else 1
    return lambda x, t: getattr(field(x, t.double() / unit), view)


def test_a_tuned_plan_gives_the_samples_it_gives_here(tuned, tmp_path):
    plan, field = tuned
    made = SolverScheduler(plan, **SHORT)
    made.save_pretrained(tmp_path)
    for one in (made, SolverScheduler.from_pretrained(tmp_path)):
        one.set_timesteps(4)
        found = drive(one, begun(field, plan), network=exact(field, "v"))
        close(found, sf.sample(field, 8, plan, dtype=torch.float64), 1e-6)


def test_a_tuned_plan_is_carried_to_a_flow_and_starts_with_the_noise_of_its_pipelines(tuned):
    plan, _ = tuned
    made = SolverScheduler(plan, prediction_type="flow_prediction")
    with pytest.warns(UserWarning, match=r"4 steps were requested; .* own 5"):
        made.set_timesteps(4)
    whole = mixture_on(sf.Flow(t_min=0.01, t_max=1 - 1e-9))
    there = plan.under(whole.process)
    x = normal(64, 2)
    found = drive(made, x, network=exact(whole, "velocity"))
    start = truth(whole, sf.DDIM(), torch.cat([tensor(1 - 1e-9), there.times[:1]]), x, None, False)
    close(found, truth(whole, there.solver, there.times, start, None, there.finish), 1e-4)
    # in the limit of a fine path from the noise itself
    path = sf.Plan(sf.Heun(), sf.balanced(whole.process, 400))
    error = (found - truth(whole, path.solver, path.times, x)).norm(dim=1).mean()
    assert error < 3 * plan.tuning.error * 2**0.5


@pytest.mark.parametrize("solver", [sf.Multistep(3), sf.dpm_solver_pp(2)], ids=label)
def test_a_plan_that_starts_just_below_the_noise_costs_no_more_calls(solver):
    flow = sf.Flow(t_min=1e-5, t_max=1.0)
    field = mixture_on(flow)
    plan = sf.Plan(solver, sf.balanced(flow, 6, start=200 / 201))
    made = SolverScheduler(plan, prediction_type="flow_prediction")
    made.set_timesteps(7)
    assert len(made.timesteps) == 7
    x, width = normal(64, 2), flow.prior(t=plan.times[0]).std
    found = drive(made, x, network=exact(field, "velocity"))
    close(found, truth(field, plan.solver, plan.times, width * x, None, plan.finish), 1e-4)


@pytest.mark.parametrize("nfe", [4, 7, 20])
def test_a_default_plan_ends_as_it_does_here(nfe):
    field = mixture_on(SolverScheduler(**SHORT).process)
    plan = sf.default_plan(field, nfe)
    made = SolverScheduler(plan, **SHORT)
    made.set_timesteps(nfe)
    found = drive(made, begun(field, plan), network=exact(field, "v"))
    assert len(made.timesteps) == nfe
    close(found, sf.sample(field, 8, plan, dtype=torch.float64))


# pipelines


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=4,
        in_channels=2,
        out_channels=2,
        block_out_channels=(4,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
    ).eval()


@pytest.fixture(scope="module")
def vqvae():
    torch.manual_seed(1)
    return diffusers.VQModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(4,),
        latent_channels=2,
        num_vq_embeddings=64,
        norm_num_groups=2,
        sample_size=4,
        scaling_factor=0.5,
    ).eval()


class Sampled(torch.nn.Module):
    """A network of diffusers, called as ours are."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t):
        return self.network(x, t).sample


def with_scheduler(kind, made, **parts):
    """Return a pipeline that was given a scheduler of ours, without a bar of progress."""
    pipeline = getattr(diffusers, kind)(scheduler=diffusers.DDIMScheduler(), **parts)
    pipeline.scheduler = made
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def end(made, solver, unet, generator, noise):
    """Return where a run of ours ends, from the first numbers of a generator, on three times."""
    x = torch.randn(2, 2, 4, 4, generator=generator)
    times = sf.balanced(made.process, 2)
    return truth(field_of(made, (2, 4, 4), Sampled(unet)), solver, times, x, noise)


def check_images(found, expected):
    found = torch.as_tensor(found).permute(0, 3, 1, 2)
    assert ((found > 0) & (found < 1)).double().mean() > 0.25  # not all are cut
    close(found, (expected / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("kind", ["DDPMPipeline", "DDIMPipeline"])
@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_pipelines_of_pixels_end_where_a_run_does(kind, solver, unet):
    made = SolverScheduler(solver, **SHORT)
    pipeline = with_scheduler(kind, made, unet=unet)
    found = pipeline(2, generator=seeded(), num_inference_steps=3, output_type="np").images
    generator = seeded()
    check_images(found, end(made, solver, unet, generator, Replay(generator)))


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_a_pipeline_of_latents_ends_where_a_run_does(solver, unet, vqvae):
    made = SolverScheduler(solver, **SHORT)
    pipeline = with_scheduler("LDMPipeline", made, unet=unet, vqvae=vqvae)
    torch.manual_seed(3)  # this pipeline passes no generator to the scheduler
    found = pipeline(2, generator=seeded(), num_inference_steps=3, output_type="np").images
    x = end(made, solver, unet, seeded(), Replay(torch.default_generator.manual_seed(3)))
    with torch.no_grad():
        check_images(found, vqvae.decode(x / 0.5).sample)


class Guided(torch.nn.Module):
    """A transformer of classes, guided as its pipeline does it."""

    def __init__(self, transformer, label, scale):
        super().__init__()
        self.transformer, self.label, self.scale = transformer, label, scale

    def forward(self, x, t):
        labels = torch.tensor([self.label] * len(x) + [1000] * len(x))
        seen = torch.cat([x, x])
        out = self.transformer(seen, timestep=t.repeat(2), class_labels=labels).sample
        one, none = out[:, : x.shape[1]].chunk(2)
        return none + self.scale * (one - none)


@pytest.mark.parametrize(
    "solver", [sf.Heun(), sf.Multistep(3), sf.Dopri5(), sf.unipc(2)], ids=label
)
def test_a_pipeline_that_doubles_its_samples_for_guidance_ends_where_a_run_does(solver):
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=2,
        out_channels=4,
        num_layers=1,
        sample_size=4,
        num_embeds_ada_norm=1000,
    ).eval()
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,), latent_channels=2, norm_num_groups=2, scaling_factor=1.0
    ).eval()
    made = SolverScheduler(solver, **SHORT)
    pipeline = with_scheduler("DiTPipeline", made, transformer=transformer, vae=vae)
    options = {"guidance_scale": 2.0, "generator": seeded(), "num_inference_steps": 4}
    found = pipeline([3, 3], output_type="np", **options).images
    x, times = torch.randn(2, 2, 4, 4, generator=seeded()), sf.balanced(made.process, 3)
    field = field_of(made, (2, 4, 4), Guided(transformer, 3, 2.0))
    with torch.no_grad():
        check_images(found, vae.decode(truth(field, solver, times, x)).sample)


def test_a_pipeline_is_saved_and_loaded_with_it(unet, tmp_path):
    made = SolverScheduler(sf.Multistep(2, corrector=True), **SHORT)
    pipeline = with_scheduler("DDPMPipeline", made, unet=unet)
    pipeline.save_pretrained(tmp_path)
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.scheduler.solver == made.solver
    one, two = (
        torch.as_tensor(p(2, generator=seeded(), num_inference_steps=3, output_type="np").images)
        for p in (pipeline, again)
    )
    assert torch.equal(one, two)


# requests that share a scheduler


def walk(made, x, generator, timesteps):
    """Return a loop that stops after every call."""
    for t in timesteps:
        x = made.step(Net()(x, t), t, x, generator=generator).prev_sample
        yield x


SHARED = [sf.Multistep(3), sf.Heun(), sf.Dopri5(), sf.DDPM(), sf.unipc(2), sf.Reversible(sf.DDIM())]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("solver", SHARED, ids=label)
def test_interleaved_requests_end_as_separate_ones(solver, mode):
    made = SolverScheduler(solver, **SHORT)
    counts, starts = (5, 3, 5), [normal(2, 3, seed=k) for k in range(3)]
    with mode():
        alone = []
        for k, count in enumerate(counts):
            made.set_timesteps(count)
            alone.append(drive(made, starts[k], seeded(k)))
        walks = []
        for k, count in enumerate(counts):  # all grids are set before any first call
            made.set_timesteps(count)
            walks.append(walk(made, starts[k], seeded(k), made.timesteps))
        ends = [None] * 3
        while any(steps is not None for steps in walks):
            for k, steps in enumerate(walks):
                x = None if steps is None else next(steps, None)
                ends[k] = ends[k] if x is None else x
                walks[k] = None if x is None else steps
    assert all(torch.equal(one, two) for one, two in zip(ends, alone, strict=True))


def test_threads_that_share_a_scheduler_do_not_see_each_other():
    made = SolverScheduler(sf.Heun(), **SHORT)
    counts, starts = (3, 4, 5, 6), [normal(2, 3, seed=k) for k in range(4)]
    alone, found = [], [None] * 4
    for k, count in enumerate(counts):
        made.set_timesteps(count)
        alone.append(drive(made, starts[k]))
    barrier = threading.Barrier(4)

    def request(k):
        barrier.wait()
        made.set_timesteps(counts[k])
        barrier.wait()  # now all have set theirs
        found[k] = drive(made, starts[k])

    threads = [threading.Thread(target=request, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, two) for one, two in zip(found, alone, strict=True))


def test_a_sample_may_be_stepped_twice_with_different_outputs():
    made = SolverScheduler(sf.Multistep(3), **SHORT)
    made.set_timesteps(6)
    t = made.timesteps
    x = list(walk(made, normal(2, 3), None, t[:3]))[-1]
    one = drive(made, x, timesteps=t[3:])
    other = drive(made, x, timesteps=t[3:], network=lambda x, t: -x)
    again = drive(made, x, timesteps=t[3:])
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_samples_are_let_go_when_the_pipeline_lets_them_go():
    made = SolverScheduler(sf.Multistep(3), **SHORT)
    made.set_timesteps(20)
    x, passed = normal(2, 3), []
    for t in made.timesteps:
        x = made.step(Net()(x, t), t, x).prev_sample
        passed.append(weakref.ref(x))
    gc.collect()
    assert [ref() is not None for ref in passed] == [False] * 19 + [True]


# samples that were changed on the way


def changed_at(made, x, call, change):
    """Return the changed sample, and the end of the run that goes on with it."""
    t = made.timesteps
    x = change(list(walk(made, x, None, t[:call]))[-1])
    return x.clone(), drive(made, x, timesteps=t[call:])


CHANGES = [lambda x: x + 0.5, lambda x: x.add_(0.5), lambda x: x.add_(0.5).clone()]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES, ids=["another", "in place", "in place and copied"])
@pytest.mark.parametrize("solver", [sf.DDIM(), sf.Multistep(3), sf.Heun(), sf.unipc(2)], ids=label)
def test_a_changed_sample_begins_a_run_at_its_time(solver, change, mode):
    made = SolverScheduler(solver, **SHORT)
    made.set_timesteps(6)
    step = 3
    with mode():
        x, found = changed_at(made, normal(2, 3), step * made.order, change)
    times = sf.balanced(made.process, 5)[step:]
    close(found, truth(field_of(made), solver, times, x))


@pytest.mark.parametrize("solver", SHARED, ids=label)
def test_a_copied_sample_is_known(solver):
    made = SolverScheduler(solver, **SHORT)
    made.set_timesteps(5)
    x = normal(2, 3)
    expected, copied = drive(made, x, seeded()), x
    generator = seeded()
    for t in made.timesteps:
        copied = made.step(Net()(copied, t), t, copied.clone(), generator=generator).prev_sample
    assert torch.equal(copied, expected)


def test_samples_of_the_same_numbers_at_other_times_are_not_taken_for_each_other():
    made = SolverScheduler(sf.Multistep(3), **SHORT)
    made.set_timesteps(4)
    t, zero = made.timesteps, torch.zeros(2, 3)
    first = made.step(zero, t[0], zero).prev_sample
    assert torch.equal(first, zero)
    second = drive(made, zero.clone())  # begins with the numbers of the first at its second call
    made.set_timesteps(4)
    assert torch.equal(second, drive(made, torch.zeros(2, 3)))


@pytest.mark.parametrize(
    "solver",
    [sf.Multistep(3), sf.unipc(2), sf.dpm_solver_pp(2), sf.Multistep(4, start="rising")],
    ids=label,
)
def test_a_solver_that_must_forget_at_every_step_is_ddim(solver):
    ends = []
    for one in (solver, sf.DDIM()):
        made = SolverScheduler(one, **SHORT)
        made.set_timesteps(8)
        x, known, eps = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
        mask = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        for t, after in zip(made.timesteps, [*made.timesteps[1:], None], strict=True):
            x = made.step(Net()(x, t), t, x).prev_sample
            if after is not None:  # as pipelines of inpainting do
                x = mask * made.add_noise(known, eps, after) + (1 - mask) * x
        ends.append(x)
    close(*ends, 1e-6)


def test_a_run_may_begin_late_from_noised_data():
    made = SolverScheduler(sf.Heun(), **SHORT)
    made.set_timesteps(6)
    times, late = sf.balanced(made.process, 5)[2:], made.timesteps[2 * made.order :]
    x = made.add_noise(normal(2, 3), normal(2, 3, seed=1), late[:1].repeat(2))
    close(x, made.process.perturb(normal(2, 3), times[0], normal(2, 3, seed=1)))
    close(drive(made, x, timesteps=late), truth(field_of(made), sf.Heun(), times, x))


class Counted(Net):
    """The network, that counts its calls."""

    calls = 0

    def forward(self, x, t):
        self.calls += 1
        return super().forward(x, t)


def with_rising_start(solver):
    """Return a multistep method, or a program of some, that spends no calls on its start."""
    if isinstance(solver, sf.Program):
        return dataclasses.replace(solver, solvers=tuple(map(with_rising_start, solver.solvers)))
    return dataclasses.replace(solver, start="rising") if hasattr(solver, "start") else solver


def late_ends(made, x, call):
    """Return the possible ends of a run of ours from a call, in so many calls as are listed."""
    course = made._requests.current[1].course
    calls, boundaries = course.calls[call:], course.times.tolist()
    field = field_of(made)
    if calls[0] in boundaries:
        times = course.times[boundaries.index(calls[0]) :]
        for solver in (made.solver, with_rising_start(made.solver)):
            network = Counted()
            counted = field_of(made, network=network)
            end = truth(counted, solver, times, x, Replay(seeded()))
            if network.calls == len(calls):
                yield end
    below = [t for k, t in enumerate(calls) if all(t < one - 1e-6 for one in calls[:k])]
    yield truth(field, sf.Multistep(2, start="rising"), tensor(*below), x)


@pytest.mark.parametrize("name", list(CERTIFIED))
def test_a_run_may_begin_at_any_call(name):
    made = SolverScheduler(CERTIFIED[name](4), **SHORT)
    made.set_timesteps(4)
    x = normal(2, 3)
    for call in range(1, len(made.timesteps)):
        made.set_begin_index(call)
        found = drive(made, x, seeded(), made.timesteps[call:])
        first, *others = late_ends(made, x, call)
        near = [float((found - end).abs().max()) < 1e-5 for end in (first, *others)]
        assert near[0] or (name in {"Churn(Heun)", "AnnealedLangevin"} and any(near)), call


def moves_alive():
    gc.collect()
    return sum(isinstance(found, Move) for found in gc.get_objects())


@pytest.mark.parametrize("solver", [sf.DDIM(), sf.Multistep(3)], ids=label)
def test_a_sample_that_is_changed_at_every_step_leaves_no_moves_behind(solver):
    made = SolverScheduler(solver, **SHORT)
    made.set_timesteps(60)
    x, counts = normal(2, 3), []
    for k, t in enumerate(made.timesteps):
        x = made.step(Net()(x, t), t, x).prev_sample + 0.01
        if k in (10, 50):
            counts.append(moves_alive())
    assert counts[1] <= counts[0]


@pytest.mark.parametrize(
    ("solver", "call"),
    [(sf.Heun(), 3), (sf.RK4(), 2), (sf.Multistep(5), 4), (sf.annealed_langevin(0.1, 2), 3)],
    ids=label,
)
def test_a_sample_changed_within_a_step_goes_on(solver, call):
    made = SolverScheduler(solver, **SHORT)
    made.set_timesteps(6)
    x, found = changed_at(made, normal(2, 3), call, lambda x: x + 0.5)
    close(found, next(late_ends(made, x, call)))


def test_a_sample_changed_within_a_fitted_plan_goes_on_with_the_estimates_from_there():
    levels, table = (1.0, 0.0, -1.0), ((0.9, 0.05, 0.1), (0.8, 0.1, 0.1, 0.05, 0.0))
    process = SolverScheduler(**SHORT).process
    fitted = sf.solvers.Fitted(levels, table)
    times = fitted.times(process)
    made = SolverScheduler(sf.Plan(fitted, times), **SHORT)
    made.set_timesteps(3)
    x = normal(2, 3)
    close(drive(made, x), truth(field_of(made), fitted, times, x))
    x, found = changed_at(made, x, 1, lambda x: x + 0.5)
    close(found, truth(field_of(made), sf.Multistep(2, start="rising"), times[1:], x))


def test_a_plan_of_calls_at_once_makes_them_one_after_another():
    table = (0.9, 0.05, 0.1, 0.02, -0.03), (0.8, 0.1, 0.1, 0.05, 0.0, 0.1, 0.0, 0.0, 0.02)
    nodes = ((0.4, 0.7),), ((-0.5, 0.6, 0.1, 0.05, 0.2, 0.0),)
    fitted = sf.solvers.Fitted((1.0, 0.0, -1.0), table, nodes)
    times = fitted.times(SolverScheduler(**SHORT).process)
    made = SolverScheduler(sf.Plan(fitted, times), **SHORT)
    made.set_timesteps(3)
    assert len(made.timesteps) == 5, "two rounds of two calls, and the end"
    x = normal(2, 3)
    close(drive(made, x), truth(field_of(made), fitted, times, x))


# what a scheduler of diffusers is asked for


TABLES = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
    {"trained_betas": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1]},
    {"beta_schedule": "linear", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: "-".join(map(str, table.values()))[:40])
def test_its_table_noise_and_velocity_are_theirs(table):
    theirs = diffusers.DDPMScheduler(**table)
    made = SolverScheduler.from_config(theirs.config, timestep_spacing="trailing")
    assert torch.equal(made.alphas_cumprod, theirs.alphas_cumprod)
    t = torch.tensor([0, 3, len(theirs.betas) - 1])
    x, eps = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    close(made.add_noise(x, eps, t), theirs.add_noise(x, eps, t), 2e-4)
    close(made.get_velocity(x, eps, t), theirs.get_velocity(x, eps, t), 2e-4)
    close(made.add_noise(x, eps, t[1]), theirs.add_noise(x, eps, t[1].repeat(3)), 2e-4)


NEEDED = {
    "AmusedScheduler": {"mask_token_id": 1},
    "VQDiffusionScheduler": {"num_vec_classes": 4},
    "RFD4ProteinaScheduler": {
        "schedule_mode": "log",
        "noise_mode": "tan",
        "tsr_k": 1.0,
        "tsr_sigma": 1.0,
    },
}
TABLES_OF = {
    *("DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep"),
    *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep"),
    *("EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "LMSDiscrete"),
    *("KDPM2AncestralDiscrete", "KDPM2Discrete", "PNDM", "RePaint", "SASolver"),
    *("UniPCMultistep", "CogVideoXDDIM", "CogVideoXDPM"),
}
FLOWS_OF = {"FlowMatchEulerDiscrete"}
EDMS_OF = {"EDMEuler", "EDMDPMSolverMultistep"}
OTHERS = {  # those that need a package more, and one that has no config
    *("CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "KarrasVeScheduler"),
}


def every_scheduler():
    names = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    return [name for name in names if name not in OTHERS]


@pytest.mark.parametrize("name", every_scheduler())
def test_the_network_of_every_scheduler_is_taken_over_exactly_or_refused(name, tmp_path):
    kind, short = getattr(diffusers, name), name.removesuffix("Scheduler")
    theirs = kind(**NEEDED.get(name, {}))
    if short not in TABLES_OF | FLOWS_OF | EDMS_OF:
        with pytest.raises(
            ValueError,
            match=r"not supported|must describe a table|must be .discrete.|a flow m",
        ):
            SolverScheduler.from_config(theirs.config)
        return
    theirs.save_pretrained(tmp_path)
    for config in (theirs.config, kind.from_pretrained(tmp_path).config):
        made = SolverScheduler.from_config(config, solver=sf.Heun())
        assert made.solver == sf.Heun()
        assert (made.config.prediction_type == "flow_prediction") is (short in FLOWS_OF)
        if short.startswith("CogVideoX"):  # whose table is made in double precision
            close(made.alphas_cumprod.double(), theirs.alphas_cumprod, 2e-6)
        elif short in TABLES_OF:
            assert torch.equal(made.alphas_cumprod, theirs.alphas_cumprod)
    assert isinstance(kind.from_config(made.config), kind)


@pytest.mark.parametrize("kind", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
def test_a_shifted_table_ends_without_signal_as_theirs_does(kind):
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    theirs = getattr(diffusers, kind)(**options, snr_shift_scale=2.0, timestep_spacing="trailing")
    made = SolverScheduler.from_config(theirs.config)
    close(made.alphas_cumprod.double(), theirs.alphas_cumprod, 2e-6)
    again = SolverScheduler.from_config(made.config, solver=sf.Heun())
    assert torch.equal(again.alphas_cumprod, made.alphas_cumprod)


def test_a_config_that_a_flow_map_could_have_is_taken_over_where_it_is_said_to_be_of_a_flow(
    tmp_path,
):
    heun, flow_map = diffusers.FlowMatchHeunDiscreteScheduler, "FlowMapEulerDiscreteScheduler"
    theirs = heun(shift=3.0)
    made = SolverScheduler.from_config(theirs.config, prediction_type="flow_prediction")
    assert made.config.shift == 3.0
    theirs.save_pretrained(tmp_path)  # a config that is loaded tells what it is of
    loaded = heun.from_pretrained(tmp_path).config
    assert SolverScheduler.from_config(loaded).config.prediction_type == "flow_prediction"
    getattr(diffusers, flow_map)(shift=3.0).save_pretrained(tmp_path)
    loaded = getattr(diffusers, flow_map).from_pretrained(tmp_path).config
    with pytest.raises(ValueError, match=f"{flow_map} has only .* as a flow map would"):
        SolverScheduler.from_config(loaded)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_whole_timesteps_are_theirs_for_every_count(spacing):
    made, options = SolverScheduler(timestep_spacing=spacing), {"timestep_spacing": spacing}
    ddim, ddpm = diffusers.DDIMScheduler(**options), diffusers.DDPMScheduler(**options)
    for count in range(1, len(made) + 1):
        times = made._clock.spaced(count, None)
        for theirs in (ddim, ddpm):
            theirs.set_timesteps(count)
            assert torch.equal(times.long(), theirs.timesteps), count


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_betas_of_any_kind_are_saved(kind, tmp_path):
    betas = [0.01, 0.02, 0.03]
    made = SolverScheduler(trained_betas=kind(betas))
    made.save_pretrained(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    assert torch.equal(again.alphas_cumprod, made.alphas_cumprod)
    close(made.alphas_cumprod.double(), (1 - tensor(*betas)).cumprod(0), 1e-6)


@pytest.mark.parametrize("solver", [CERTIFIED[name](4) for name in CERTIFIED], ids=list(CERTIFIED))
def test_every_solver_survives_a_config(solver, tmp_path):
    made = SolverScheduler(solver, **SHORT)
    made.save_pretrained(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    assert again.solver == solver
    config = {k: v for k, v in made.config.items() if k != "_use_default_values"}
    assert dict(again.config) == config
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert copied.solver == solver


def test_what_pipelines_look_for_is_there():
    made = SolverScheduler(sf.Heun(), **SHORT)
    made.set_timesteps(4)
    assert {"eta", "generator", "return_dict"} <= set(inspect.signature(made.step).parameters)
    assert {"timesteps", "sigmas"} <= set(inspect.signature(made.set_timesteps).parameters)
    assert (len(made), made.order, made.init_noise_sigma) == (100, 2, 1.0)
    assert (made.num_inference_steps, len(made.timesteps)) == (4, 3 * 2 + 1)
    assert made.config.num_train_timesteps == 100
    x, t = normal(2, 3), made.timesteps[0]
    assert made.scale_model_input(x, t) is x
    made.set_begin_index(0)
    one, x0 = made.step(Net()(x, t), t, x, return_dict=False)
    again = made.step(Net()(x, t), t, x)
    assert torch.equal(one, again.prev_sample)
    assert torch.equal(x0, again.pred_original_sample)
    close(x0, field_of(made)(x, float(t)).x0)


def test_timesteps_are_distinct_and_tell_the_networks_times_to_rounding():
    made = SolverScheduler(sf.RK4(), num_train_timesteps=1000)
    made.set_timesteps(1000 // 10)
    given = made.timesteps.double()
    assert len(given.unique()) == len(given) == 99 * 4 + 1
    times = sf.balanced(made.process, 99)
    close(given[::4], times, 1e-6)
    middle = times[:-1] + 0.5 * times.diff()
    assert float((given[1::4] - middle).abs().max()) < 3e-4
    assert float((given[2::4] - middle).abs().max()) < 3e-4


def test_times_may_be_given():
    made = SolverScheduler(sf.DDIM(), **SHORT)
    made.set_timesteps(timesteps=[90, 40.5, 10])
    assert made.timesteps.tolist() == [90.0, 40.5, 10.0]
    ratios = torch.exp(-made.process.half_log_snr(tensor(90.0, 40.5, 10.0)))
    made.set_timesteps(sigmas=[*ratios.tolist(), 0.0])
    close(made.timesteps.double(), tensor(90.0, 40.5, 10.0), 1e-6)
    made.set_timesteps(1)
    x = normal(2, 3)
    close(drive(made, x), field_of(made)(x, 99.0).x0)


def test_a_grid_is_made_without_torchs_random_numbers():
    torch.manual_seed(0)
    SolverScheduler(sf.DDPM(), **SHORT).set_timesteps(5)
    found = torch.randn(3)
    torch.manual_seed(0)
    assert torch.equal(found, torch.randn(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_one_rounding(dtype):
    made = SolverScheduler(sf.Multistep(3), **SHORT)
    made.set_timesteps(20)
    x = normal(2, 3).to(dtype)
    found = drive(made, x, network=lambda x, t: torch.full_like(x, 0.25))
    assert found.dtype is dtype

    class Constant(torch.nn.Module):
        def forward(self, x, t):
            return torch.full_like(x, 0.25)

    times = sf.balanced(made.process, 19)
    field = field_of(made, network=Constant())
    expected = truth(field, sf.Multistep(3), times, x.float()).to(dtype)
    assert float((found - expected).abs().max()) <= torch.finfo(dtype).eps * float(
        expected.abs().max()
    )


# what is refused


class Moving(sf.Euler):
    """A solver that no config can hold."""


BAD = [
    (lambda: SolverScheduler(sf.Langevin()), "must step along a fixed grid"),
    (lambda: SolverScheduler(sf.Plan(sf.Heun(), sf.Adaptive())), "must step along a fixed grid"),
    (lambda: SolverScheduler(sf.Heun), "solver=Heun: must be an instance; write Heun"),
    (lambda: SolverScheduler(Moving()), "cannot be written"),
    (lambda: SolverScheduler({"kind": "Nothing"}), "Nothing is not a kind"),
    (
        lambda: SolverScheduler({"kind": "Exact", "basis": None}),
        "must be a Solver; write one such as",
    ),
    (lambda: SolverScheduler({"kind": "Multistep", "quadrature": None}), "quadrature = None, of"),
    (
        lambda: SolverScheduler({"kind": "Multistep", "prediction": {"kind": "Exact"}}),
        r"Multistep has prediction = Exact\(basis=None\), of another type",
    ),
    (
        lambda: SolverScheduler(
            {"kind": "Fitted", "levels": [1.0, 0.0], "table": [["a", "b", "c"]]}
        ),
        "of another type than it needs",
    ),
    (lambda: SolverScheduler(prediction_type="noise"), "prediction_type='noise': must be one of"),
    (
        lambda: SolverScheduler(beta_schedule="odd"),
        "beta_schedule='odd': must be a schedule of DDPMScheduler",
    ),
    (lambda: SolverScheduler(num_train_timesteps=-5), "num_train_timesteps=-5: must be a whole"),
    (lambda: SolverScheduler(snr_shift_scale=0.0), "snr_shift_scale=0.0: must be positive"),
    (lambda: SolverScheduler(timestep_spacing="even"), "timestep_spacing='even': must be one of"),
    (
        lambda: SolverScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        "no finite coefficients at t = 999",
    ),
    (
        lambda: SolverScheduler(prediction_type="flow_prediction", shift=0.0),
        "shift=0.0: must be one of",
    ),
    (lambda: SolverScheduler.from_config("somewhere"), "pipeline.scheduler.config"),
    (
        lambda: SolverScheduler.from_config(diffusers.IPNDMScheduler().config),
        "must describe a table",
    ),
    (
        lambda: SolverScheduler.from_config(diffusers.LCMScheduler().config),
        "a distilled network, which does not represent a score",
    ),
    (
        lambda: SolverScheduler(use_karras_sigmas=True, use_beta_sigmas=True),
        "use_karras_sigmas=True: cannot be combined with use_beta_sigmas",
    ),
    (
        lambda: SolverScheduler(use_exponential_sigmas=True, sigma_min=0.0),
        "sigma_min=0.0: must be positive for use_exponential_sigmas",
    ),
    (lambda: SolverScheduler(sigma_data=0.5), "sigma_min=None, sigma_max=None"),
    (
        lambda: SolverScheduler(prediction_type="flow_prediction", shift_terminal=1.0),
        "shift_terminal=1.0: must be between 0 and 1",
    ),
    (
        lambda: SolverScheduler.from_config(
            diffusers.EulerDiscreteScheduler(
                timestep_type="continuous", prediction_type="v_prediction"
            ).config
        ),
        "timestep_type='continuous'",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_what_cannot_be_a_scheduler_is_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "num_inference_steps=None: must be a whole number"),
        ({"timesteps": [9], "sigmas": [1.0]}, "cannot be combined"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps=2.5"),
        ({"timesteps": [10, 20]}, "must be decreasing numbers"),
        ({"timesteps": []}, "must be decreasing numbers"),
        ({"timesteps": [100]}, "is outside"),
        ({"timesteps": [100, 50]}, "outside the process's"),
        ({"timesteps": [math.nan]}, "must be finite"),
        ({"sigmas": [1e9, 1.0]}, "is outside"),
        ({"sigmas": [1.0, -1.0]}, "must be finite, and sigmas positive"),
        ({"sigmas": [math.inf, 1.0]}, "must be finite"),
        ({"sigmas": [math.nan]}, "must be finite"),
        ({"sigmas": [0.0]}, "at least one"),
        ({"num_inference_steps": 3, "timesteps": [20, 10]}, "=3: must be 2, the number of times"),
    ],
)
def test_timesteps_that_cannot_be_are_refused(given, message):
    made = SolverScheduler(sf.DDIM(), **SHORT)
    with pytest.raises(ValueError, match=message) as caught:
        made.set_timesteps(**given)
    assert "\n" not in str(caught.value)


def test_more_steps_than_a_table_has_rows_are_refused_where_timesteps_are_whole():
    made = SolverScheduler(sf.DDIM(), **SHORT, timestep_spacing="leading")
    with pytest.raises(ValueError, match="at most 100"):
        made.set_timesteps(101)


def test_a_plan_keeps_its_own_times():
    process = SolverScheduler(**SHORT).process
    made = SolverScheduler(sf.Plan(sf.DDIM(), sf.balanced(process, 4)), **SHORT)
    x, expected = (
        normal(2, 3),
        truth(field_of(made), sf.DDIM(), sf.balanced(process, 4), normal(2, 3)),
    )
    for given, message in (
        ({"num_inference_steps": 50}, "num_inference_steps: 50 steps were requested; .* own 5"),
        ({"timesteps": [20, 10]}, "timesteps: 2 steps were requested; .* own 5"),
        ({"sigmas": [3.0, 2.0, 1.0], "mu": 0.5}, "sigmas: 3 steps were requested; .* own 5"),
    ):
        with pytest.warns(UserWarning, match=message):
            made.set_timesteps(**given)
        close(drive(made, x), expected)
    made.set_timesteps(5)
    close(drive(made, x), expected)


@pytest.mark.parametrize("sigmas", [[1.5, 0.5], [1.0, 0.5, -0.1]])
def test_sigmas_that_a_flow_has_not_are_refused(sigmas):
    made = SolverScheduler(prediction_type="flow_prediction")
    with pytest.raises(ValueError, match=r"must be at most 1 for a flow|sigmas positive"):
        made.set_timesteps(sigmas=sigmas)


def test_a_flow_with_dynamic_shifting_needs_mu():
    made = SolverScheduler(prediction_type="flow_prediction", use_dynamic_shifting=True)
    with pytest.raises(ValueError, match="mu=None"):
        made.set_timesteps(4)


def test_steps_that_cannot_be_are_refused():
    made = SolverScheduler(sf.DDIM(), **SHORT)
    x = normal(2, 3)
    with pytest.raises(ValueError, match="call set_timesteps first"):
        made.step(x, 99, x)
    made.set_timesteps(4)
    t = made.timesteps
    for bad, message in (
        (lambda: made.step(x, t[0], x, eta=0.5), "choose the noise by the solver"),
        (lambda: made.step(x, t[0], x, use_clipped_model_output=True), "must be 0 and unset"),
        (lambda: made.step(x[:1], t[0], x), "must be equal"),
        (lambda: made.step(x, 50, x), "timestep=50: not in scheduler.timesteps"),
        (lambda: made.step(x, t[:2], x), r"timestep has shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()
    after = made.step(x, t[0], x).prev_sample
    with pytest.raises(ValueError, match=r"must be .* that of the sample"):
        made.step(x, t[2], after)
