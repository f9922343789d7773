"""Train the networks `fashion` and `tutorial` of this folder, each in some minutes on one core.

    python benchmarks/networks/train.py fashion fashion-train-images-idx3-ubyte.gz
    python benchmarks/networks/train.py tutorial train-images-idx3-ubyte.gz

`fashion` is a run of this library on images of clothes, averaged to 14x14 pixels. `tutorial` is
trained as diffusers' page on unconditional training does it, on MNIST's digits averaged to 16x16:
`UNet2DModel`, `DDPMScheduler`, the mean squared error of eps, AdamW with a cosine schedule after a
warm-up, weights averaged over the steps, images from -1 to 1. It is stored as their pipeline.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import diffusers
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, mse_loss, pad
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import scorefield as sf
from scorefield.data import read
from scorefield.training.config import UNetConfig

HERE = Path(__file__).parent
BATCH = 64


def images(path: str, size: int) -> Tensor:
    """Return images of 28x28 pixels averaged to ``size``, as whole numbers from 0 to 255."""
    x = read(path).x.float()
    margin = (2 * size - 28) // 2
    return avg_pool2d(pad(x, (margin,) * 4), 2).round()


def fashion(path: str, steps: int, folder: Path) -> None:
    """Train a small U-Net of this library."""
    run = sf.train(
        images(path, 14),
        levels=256,
        held_out=0.02,
        network=UNetConfig(width=16, multipliers=(1, 2)),
        batch_size=BATCH,
        lr=2e-3,
        steps=steps,
    )
    run.save(folder)


def tutorial(path: str, steps: int, folder: Path) -> None:
    """Train a network of diffusers by their own recipe."""
    torch.manual_seed(0)
    x = images(path, 16) / 127.5 - 1
    network = diffusers.UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    print(sum(p.numel() for p in network.parameters()), "parameters")
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    optim = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-6)
    losses = []
    for step in range(steps):
        warm, cosine = min(1.0, (step + 1) / 100), 0.5 * (1 + math.cos(math.pi * step / steps))
        optim.param_groups[0]["lr"] = 2e-3 * warm * cosine
        clean = x[torch.randint(len(x), (BATCH,))]
        noise, t = torch.randn_like(clean), torch.randint(1000, (BATCH,))
        output = network(scheduler.add_noise(clean, noise, t), t).sample
        loss = mse_loss(output, noise)
        optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optim.step()
        average.update_parameters(network)
        losses.append(float(loss.detach()))
        if step % 250 == 249:
            print(f"{step + 1} steps: loss {sum(losses[-250:]) / 250:.4f}", flush=True)
    diffusers.DDPMPipeline(average.module.half(), scheduler).save_pretrained(folder)


def main() -> None:
    """Train one of the networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("fashion", "tutorial"))
    parser.add_argument("data", help="file of the training images")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    train = {"fashion": fashion, "tutorial": tutorial}[options.kind]
    train(options.data, options.steps, options.out / options.kind)


if __name__ == "__main__":
    main()
