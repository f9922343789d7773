"""Solvers in tiny pipelines of diffusers, built from configurations."""

import pytest
import torch

import scorefield as sf

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_pipelines import build

from scorefield.interop.scheduler import SolverScheduler

pytestmark = pytest.mark.filterwarnings("ignore")


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def run(tiny, **options):
    out = tiny(**{"num_inference_steps": 3, "generator": seeded(), **options})
    return torch.as_tensor(out).double()


@pytest.mark.parametrize("name", ["sd", "latte", "sd3", "flux", "ltx"])
def test_order_1_ends_where_the_scheduler_of_the_pipeline_does(name):
    tiny = build(name)
    expected, config = run(tiny), tiny.pipeline.scheduler.config
    options = {} if "shift" in config else {"timestep_spacing": "leading"}
    tiny.pipeline.scheduler = SolverScheduler.from_config(config, solver=sf.DDIM(), **options)
    torch.testing.assert_close(run(tiny), expected, rtol=1e-3, atol=1e-3)
