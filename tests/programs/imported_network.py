"""Import a pipeline of diffusers as a run, and sample it with six calls."""

import diffusers
import torch

import scorefield as sf

network = diffusers.UNet2DModel(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    block_out_channels=(8, 16),
    norm_num_groups=4,
    layers_per_block=1,
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
)
scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
diffusers.DDPMPipeline(network, scheduler).save_pretrained("pipeline")

run = sf.interop.diffusers.load("pipeline")
x = run.sample(2, nfe=6)
assert x.shape == (2, 1, 8, 8)
run.save("runs/imported")
assert torch.equal(sf.load("runs/imported").sample(2, nfe=6), x)
