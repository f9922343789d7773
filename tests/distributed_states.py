"""Run by test_distributed.py under torchrun: states of divided weights, out and in."""

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from scorefield._internal.errors import UsageError
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


class Nested(torch.nn.Module):
    """Blocks in blocks, with tensors of 4 MiB, and a buffer."""

    def __init__(self):
        super().__init__()
        layers = [
            torch.nn.ModuleList(torch.nn.Linear(1024, 1024) for _ in range(4)) for _ in range(4)
        ]
        self.blocks = torch.nn.ModuleList(Block(inner) for inner in layers)
        self.register_buffer("offset", torch.full((1024,), 3.0))


class Block(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def check_copies(processes):
    """Of a large network, a copy takes a share of the memory, in blocks of blocks."""
    network = Nested()
    size = sum(p.numel() * 4 for p in network.parameters())
    processes.copy(torch.nn.Linear(1, 1))  # what the first of all loads
    before = peak()
    copies = [processes.copy(network) for _ in range(3)]
    print(f"{(peak() - before) / size:.2f}", file=sys.stderr)
    assert peak() - before < 0.6 * 3 * size
    for copy in copies:
        assert sum(isinstance(m, FSDPModule) for m in copy.modules()) == 1 + 4 + 16
        assert torch.equal(copy.offset, network.offset)
        whole = {name: processes.whole(value) for name, value in copy.state_dict().items()}
        assert set(whole) == set(network.state_dict())
        assert all(torch.equal(v, network.state_dict()[name]) for name, v in whole.items())
    network.blocks[1].inner[0].weight = network.blocks[0].inner[0].weight
    with pytest.raises(UsageError, match="two layers of the network share a weight"):
        processes.copy(network)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with group("fsdp", torch.device("cpu")) as processes:
        torch.manual_seed(0)
        check_copies(processes)
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
