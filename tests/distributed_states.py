"""Run by test_distributed.py under torchrun: states of divided weights, out and in."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from scorefield.data import Data
from scorefield.runs.trainer import Training
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig
from scorefield.training.distributed import group

STEPS = 6


def training(*processes):
    """A training with odd sizes, so that no weight divides evenly."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(
        network=MLPConfig(width=13, depth=1),
        optim=OptimConfig(steps=20, batch_size=9, accumulate=2, ema=(0.9, 0.5)),
    )
    return Training(Data(x, None, "points"), config, *processes)


def train(made):
    """Take some steps."""
    for progress in made:
        if progress.step == STEPS:
            break
    return made


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with group("fsdp", torch.device("cpu")) as processes:
        made = train(training(processes))
        made.save_checkpoint(folder / "from-two")
        parts = made.fit.network.state_dict()
        assert all(isinstance(value, DTensor) for value in parts.values())
        local = {name: value.to_local().contiguous() for name, value in parts.items()}
        save_file(local, folder / f"rank-{processes.rank}.safetensors")
        again = training(processes)
        assert again.resume(folder / "from-one") == STEPS
        again.save_checkpoint(folder / "through-two")
    os._exit(0)
