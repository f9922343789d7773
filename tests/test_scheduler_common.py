"""The checks that diffusers makes of each of its schedulers, of ours.

Each test has the name of the method of `SchedulerCommonTest` or `SchedulerBaseTests`, in
tests/schedulers/test_schedulers.py of the repository of diffusers, whose check it makes. Every
check is made of 13 solvers and of a table of fitted steps, on a table and on a flow. Exceptions:

- test_trained_betas is of tables: a flow has no betas.
- A config of ours that was saved names its spacing "balanced", which no scheduler of theirs has.
- test_push_to_hub needs an account; test_default_solver_type_after_switch is of another scheduler.
"""

import inspect
import itertools

import numpy as np
import pytest
import torch
from cases import normal

import scorefield as sf

diffusers = pytest.importorskip("diffusers")

from scorefield.interop.scheduler import SolverScheduler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

FITTED = sf.solvers.Fitted((2.0, 0.5, -1.0), ((0.9, 0.05, 0.1), (0.8, 0.1, 0.1, 0.05, 0.0)))
SOLVERS = {
    "ddim": sf.DDIM(),
    "ddim-1": sf.DDIM(1.0),
    "ddpm": sf.DDPM(),
    "euler": sf.Euler(),
    "euler-maruyama": sf.EulerMaruyama(),
    "heun": sf.Heun(),
    "rk4": sf.RK4(),
    "multistep-3": sf.Multistep(3),
    "multistep-4": sf.Multistep(4),
    "multistep-corrector": sf.Multistep(2, corrector=True),
    "dpm-solver++": sf.dpm_solver_pp(2),
    "unipc": sf.unipc(2),
    "ancestral": sf.Ancestral(sf.Heun(), 0.5),
}
TABLE = {"num_train_timesteps": 100, "beta_start": 0.001, "beta_end": 0.1}
KINDS = {"table": TABLE, "flow": {"prediction_type": "flow_prediction", "shift": 3.0}}
CASES = list(itertools.product(KINDS, [*SOLVERS, "plan"]))
STEPS = 3


@pytest.fixture(params=CASES, ids="-".join)
def make(request):
    """Return a function that makes a scheduler, with other arguments."""
    kind, name = request.param

    def scheduler(**options):
        options = {**KINDS[kind], **options}
        if name != "plan":
            return SolverScheduler(SOLVERS[name], **options)
        process = SolverScheduler(**options).process
        return SolverScheduler(sf.Plan(FITTED, FITTED.times(process)), **options)

    scheduler.of_table, scheduler.number = kind == "table", CASES.index(request.param)
    return scheduler


def sample():
    return torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def stepped(scheduler, place=0, **options):
    """Return the result of a step at one of the timesteps, with the noise of a seed."""
    x, generator = sample(), torch.Generator().manual_seed(0)
    t = scheduler.timesteps[place]
    return scheduler.step(0.1 * x, t, x, generator=generator, **options)


def reloaded(scheduler, folder):
    scheduler.save_config(folder)
    return SolverScheduler.from_pretrained(folder)


def check_same_step(scheduler, again, places=(0,)):
    for one in (scheduler, again):
        one.set_timesteps(STEPS)
    assert torch.equal(scheduler.timesteps, again.timesteps)
    for place in places:
        found, expected = stepped(again, place).prev_sample, stepped(scheduler, place).prev_sample
        assert torch.equal(found, expected)
        assert not torch.equal(found, sample())


def test_from_save_pretrained(make, tmp_path):
    scheduler = make()
    check_same_step(scheduler, reloaded(scheduler, tmp_path))


def test_check_over_configs(make, tmp_path):
    options = [{"num_train_timesteps": 90}]
    if make.of_table:
        options += [{"prediction_type": "v_prediction", "clip_sample": True}]
        options += [{"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}]
    else:
        options += [{"shift": 1.5, "shift_terminal": 0.1}, {"use_karras_sigmas": True}]
    for k, other in enumerate(options):
        scheduler = make(**other)
        check_same_step(scheduler, reloaded(scheduler, tmp_path / str(k)))


def test_check_over_forward(make, tmp_path):
    scheduler = make()
    check_same_step(scheduler, reloaded(scheduler, tmp_path), (0, 1, -1))


def test_from_pretrained(make, tmp_path):
    scheduler = make()
    scheduler.save_pretrained(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    config = {k: v for k, v in scheduler.config.items() if k != "_use_default_values"}
    assert dict(again.config) == config


def compatibles(scheduler):
    """Return the compatible schedulers, without one that needs another package."""
    kinds = {kind.__name__: kind for kind in scheduler.compatibles}
    del kinds["DPMSolverSDEScheduler"]
    return [kinds[name] for name in sorted(kinds)]


def test_compatibles(make):
    scheduler = make()
    assert len(compatibles(scheduler)) >= 14
    for kind in compatibles(scheduler)[make.number % 5 :: 5]:  # every one in some case
        theirs = kind.from_config(scheduler.config)
        again = SolverScheduler.from_config(theirs.config)
        shared = {k: v for k, v in again.config.items() if k in scheduler.config}
        private = {"_use_default_values"}
        assert {k: v for k, v in shared.items() if k not in private} == {
            k: v for k, v in scheduler.config.items() if k not in private
        }
        others = set(again.config) - set(scheduler.config)
        assert not others & set(inspect.signature(SolverScheduler.__init__).parameters)


def test_step_shape(make):
    scheduler = make()
    scheduler.set_timesteps(STEPS)
    for place in (0, 1):  # the second is the start of another run
        result = stepped(scheduler, place).prev_sample
        assert result.shape == sample().shape
        assert bool(result.isfinite().all())


def test_scheduler_outputs_equivalence(make):
    scheduler = make()
    scheduler.set_timesteps(STEPS)
    named, plain = stepped(scheduler), stepped(scheduler, return_dict=False)
    assert isinstance(plain, tuple)
    for one, other in zip(plain, named.values(), strict=True):
        assert torch.equal(one, other)


def test_scheduler_public_api(make):
    scheduler = make()
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.scale_model_input(sample(), 0.0).shape == sample().shape
    assert callable(scheduler.step)
    assert len(scheduler.sigmas) == len(scheduler.timesteps) + 1


def test_add_noise_device(make):
    scheduler = make()
    scheduler.set_timesteps(STEPS)
    noise, t = normal(4, 3, 8, 8, dtype=torch.float32), scheduler.timesteps[1][None]
    noised = scheduler.add_noise(sample(), noise, t)
    assert noised.dtype == torch.float32
    assert noised.device == sample().device
    ratio = scheduler.sigmas[1].double()
    alpha = 1 / (1 + ratio**2).sqrt() if make.of_table else 1 - ratio
    expected = alpha * sample() + alpha * ratio * noise
    expected = expected if make.of_table else alpha * sample() + ratio * noise
    torch.testing.assert_close(noised.double(), expected.double(), rtol=1e-4, atol=1e-4)


def test_deprecated_kwargs():
    parameters = inspect.signature(SolverScheduler.__init__).parameters
    assert ("kwargs" in parameters) is bool(SolverScheduler._deprecated_kwargs)


def test_trained_betas(make, tmp_path):
    if not make.of_table:
        return
    betas = np.linspace(0.01, 0.9, 10)
    scheduler = make(trained_betas=betas)
    scheduler.save_pretrained(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    assert again.betas.tolist() == scheduler.betas.tolist()
    torch.testing.assert_close(again.betas.double(), torch.as_tensor(betas), rtol=1e-6, atol=0)


def test_getattr_is_correct(make):
    scheduler = make()
    scheduler.an_attribute = 5
    scheduler.register_to_config(an_entry=5)
    assert scheduler.an_attribute == 5
    with pytest.warns(FutureWarning):
        assert scheduler.an_entry == 5
    with pytest.raises(AttributeError, match="'SolverScheduler' object has no attribute 'nothing'"):
        _ = scheduler.nothing


def test_save_load_from_different_config_comp_schedulers(make, tmp_path):
    scheduler = make()
    scheduler.save_config(tmp_path)
    for kind in compatibles(scheduler)[make.number % 5 :: 5]:
        theirs = kind.from_pretrained(tmp_path, timestep_spacing="trailing")
        assert isinstance(theirs, kind)
        assert theirs.config["num_train_timesteps"] == scheduler.config["num_train_timesteps"]


def test_default_arguments_not_in_config(make, tmp_path):
    made = SolverScheduler.from_config({**make().config}, timestep_spacing="trailing")
    assert made.config["timestep_spacing"] == "trailing"
    made.save_config(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    assert again.config["timestep_spacing"] == "trailing"
    euler = diffusers.EulerDiscreteScheduler.from_pretrained(tmp_path)
    assert euler.config["timestep_spacing"] == "trailing"
