"""Fields that stay in the range of the data: parity with diffusers, and no change inside."""

import pytest
import torch
from cases import gaussian, normal

import scorefield as sf


def test_clipping_changes_nothing_inside_and_keeps_x_a_mixture_of_both_estimates():
    field = gaussian(sf.VP())
    x, t = 3 * normal(50, 2), 0.4
    plain, clipped = field(x, t), sf.Clipped(field, 1.0)(x, t)
    assert 0.1 < float((plain.x0.abs() > 1).double().mean()) < 0.9
    torch.testing.assert_close(clipped.x0, plain.x0.clamp(-1, 1))
    alpha, sigma = field.process.coefficients(torch.tensor(t, dtype=torch.float64))
    torch.testing.assert_close(alpha * clipped.x0 + sigma * clipped.eps, x)
    wide = sf.Clipped(field, 100.0)(x, t)
    torch.testing.assert_close(wide.velocity, plain.velocity)


@pytest.mark.parametrize("largest", [1.0, 1.5, 100.0])
def test_thresholding_is_that_of_diffusers(largest):
    diffusers = pytest.importorskip("diffusers")
    options = {"dynamic_thresholding_ratio": 0.8, "sample_max_value": largest}
    theirs = diffusers.DDPMScheduler(thresholding=True, **options)
    eye = torch.eye(8, dtype=torch.float64)
    field = sf.Gaussian(sf.VP(), 0.3 * normal(8), eye)
    x = normal(20, 8) * torch.linspace(0.5, 4, 20, dtype=torch.float64)[:, None]
    expected = theirs._threshold_sample(field(x, 0.3).x0[..., None])[..., 0]
    torch.testing.assert_close(sf.Thresholded(field, 0.8, largest)(x, 0.3).x0, expected)


def test_a_pipelines_clipping_is_that_of_its_scheduler():
    diffusers = pytest.importorskip("diffusers")
    from scorefield.interop.scheduler import SolverScheduler

    theirs = diffusers.DDIMScheduler(timestep_spacing="trailing")  # clips
    made = SolverScheduler.from_config(theirs.config, solver=sf.DDIM(), timestep_spacing="trailing")
    x, ends = 2 * normal(4, 3), []
    for one in (theirs, made):
        one.set_timesteps(5)
        at = x
        for t in one.timesteps:
            options = {"use_clipped_model_output": True} if one is theirs else {}
            at = one.step(torch.tanh(at), t, at, **options).prev_sample
        ends.append(at)
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda field: sf.Clipped(field, 0.0),
        lambda field: sf.Thresholded(field, 1.5),
        lambda field: sf.Thresholded(field, 0.9, 0.5),
    ],
)
def test_ranges_that_are_empty_are_refused(make):
    with pytest.raises(ValueError, match=r"must be (positive|in \(0, 1\])"):
        make(gaussian(sf.VP()))
