"""DDIM and DDPM steps equal those of the released diffusers schedulers on the same table."""

import itertools

import pytest
import torch
from cases import gaussian, normal, silent, tensor

import scorefield as sf

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SPACINGS = ["leading", "trailing", "linspace"]


class Replay:
    """The noise that a scheduler draws from a generator of the same seed."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype), self

    def increment(self, start, end, like):
        return self.normal(like)


class Given:
    """Noise that is always ``z``."""

    def __init__(self, z):
        self.z = z

    def increment(self, start, end, like):
        return self.z, self


def scheduler(kind, steps, **options):
    """Return a scheduler whose table is in float64, so that its rounding hides no difference."""
    made = kind(num_train_timesteps=1000, clip_sample=False, **options)
    made.alphas_cumprod = made.alphas_cumprod.double()
    made.set_timesteps(steps)
    return made


def field_of(made):
    """Return an exact field on the scheduler's own table."""
    return gaussian(sf.Tabulated(made.alphas_cumprod))


def ours(field, solver, x, timesteps, noise):
    """Step through a scheduler's timesteps, and finish with the posterior mean of the data."""
    at = sf.State(x, timesteps[0].double(), noise)
    for _, s in itertools.pairwise(timesteps.double()):
        at = solver.step(field, at, s)
    return at.x, field(at.x, at.t).x0


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_run_of_ddim_equals_the_schedulers(spacing, steps, schedule, eta):
    options = {"timestep_spacing": spacing, "beta_schedule": schedule}
    made = scheduler(diffusers.DDIMScheduler, steps, **options)
    field, x = field_of(made), normal(4, 2)
    theirs, replay = x, Replay(7)
    for t in made.timesteps:
        z, _ = replay.normal(x)
        eps = field(theirs, t.double()).eps
        theirs = made.step(eps, int(t), theirs, eta=eta, variance_noise=z).prev_sample
    _, finished = ours(field, sf.DDIM(eta=eta), x, made.timesteps, Replay(7))
    torch.testing.assert_close(finished, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [10, 50, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_each_step_of_ddim_equals_the_schedulers(spacing, steps, eta):
    made = scheduler(diffusers.DDIMScheduler, steps, timestep_spacing=spacing)
    field, z = field_of(made), normal(4, 2, seed=1)
    for t in made.timesteps[:: max(1, steps // 10)].tolist():
        s = t - 1000 // steps
        if s < 0:
            continue
        x = field.process.perturb(normal(4, 2, seed=2), t, normal(4, 2, seed=3))
        eps = field(x, t).eps
        theirs = made.step(eps, t, x, eta=eta, variance_noise=z).prev_sample
        at = sf.State(x, tensor(t)[0], Given(z))
        step = sf.DDIM(eta=eta).step(field, at, tensor(s)[0]).x
        torch.testing.assert_close(step, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 1000])
def test_a_run_of_ddpm_with_the_posterior_variance_equals_the_schedulers(spacing, steps):
    options = {"variance_type": "fixed_small", "timestep_spacing": spacing}
    made = scheduler(diffusers.DDPMScheduler, steps, **options)
    field, x = field_of(made), normal(4, 2)
    theirs, generator = x, torch.Generator().manual_seed(7)
    for t in made.timesteps:
        eps = field(theirs, t.double()).eps
        theirs = made.step(eps, int(t), theirs, generator=generator).prev_sample
    _, finished = ours(field, sf.DDIM(eta=1.0), x, made.timesteps, Replay(7))
    torch.testing.assert_close(finished, theirs, rtol=1e-8, atol=1e-8)


def test_a_step_of_ddpm_with_the_forward_variance_equals_the_schedulers():
    made = scheduler(diffusers.DDPMScheduler, 10, variance_type="fixed_large")
    field, x = field_of(made), normal(4, 2)
    for t in (900, 500, 100):
        eps = field(x, t).eps
        theirs = made.step(eps, t, x, generator=torch.Generator().manual_seed(7)).prev_sample
        at, s = sf.State(x, tensor(t)[0], Replay(7)), tensor(t - 100)[0]
        torch.testing.assert_close(
            sf.DDPM("forward").step(field, at, s).x, theirs, rtol=1e-5, atol=1e-5
        )
    at = sf.State(x, tensor(t)[0], Replay(7))
    assert (sf.DDPM("posterior").step(field, at, s).x - theirs).abs().max() > 1e-2


def test_v_prediction_from_no_signal_at_all_equals_the_schedulers():
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    made = scheduler(diffusers.DDIMScheduler, 20, timestep_spacing="trailing", **options)
    assert made.alphas_cumprod[-1] == 0
    field, x = field_of(made), normal(4, 2)
    theirs = x
    for t in made.timesteps:
        theirs = made.step(field(theirs, t.double()).v, int(t), theirs).prev_sample
    _, finished = ours(field, sf.DDIM(eta=0.0), x, made.timesteps, silent(4))
    torch.testing.assert_close(finished, theirs, rtol=1e-8, atol=1e-8)
