"""Speed and memory of the training loop, beside a bare loop and that of diffusers.

The same network and batch are trained by two loops in alternating pairs, in one process on one CPU
thread, each on its own copy of the network::

    python benchmarks/training.py               # prints a table, writes results/training.json
    python benchmarks/training.py --pairs 5     # sooner, less certain
    python benchmarks/training.py --memory      # the memory over 10,000 steps as well
    python benchmarks/training.py --pairs 10 --memory   # what made the results kept here

- bare: what no loop can leave out, on data that lies in memory. Items and noise by `torch.randint`
  and `torch.randn`, the noisy data, the network, the mean squared error of the noise, the gradient
  and a fused AdamW. It does not clip, average the weights, look whether the loss is finite, nor
  tell noise by item: what scorefield does beyond the bare loop is in the ratio.
- diffusers: the loop of its unconditional training example, around its own `UNet2DModel`: the
  scheduler's `add_noise`, clipping, AdamW, the rate's schedule and `EMAModel`. scorefield trains
  the same network, by an adapter.

A ratio is images per second of scorefield over those of the other loop; a pair's two runs of some
steps come one after another, in turns first. The median and the quartiles over the pairs are given.
Seconds are those of the process on its thread, which other work on the machine adds little to; the
ratio by the clock is given too. Target: at least 0.97 of the bare loop for networks of images.

Memory is the resident set of a process that trains a tiny network, at step 1,000 and step 10,000.

denoising-diffusion-pytorch is not among them: it cannot be imported without torchvision, which has
no build beside the CPU build of torch used here.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from machine import facts as machine_facts
from torch import Tensor, nn

import scorefield as sf
from scorefield.data import read
from scorefield.networks import MLP, UNet
from scorefield.training import Objective, Simple, UniformTimes
from scorefield.training.config import OptimConfig
from scorefield.training.loop import fit

BATCH = 128
FOREVER = 10**9  # steps
TARGET = 0.97
RESULTS = Path(__file__).parent / "results" / "training.json"

Steps = Iterator[Any]


def scorefield_steps(network: nn.Module, x: Tensor) -> Steps:
    """The steps of scorefield's loop."""
    denoiser = sf.Denoiser(network, sf.VP(), sf.Eps(), tuple(x.shape[1:]))
    objective = Objective(Simple(), UniformTimes())
    return fit(denoiser, objective, x, optim=OptimConfig(steps=FOREVER, batch_size=BATCH))


def bare_steps(network: nn.Module, x: Tensor) -> Steps:
    """The steps of a loop that does nothing but train."""
    process = sf.VP()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    ones = [1] * (x.ndim - 1)
    while True:
        x0 = x[torch.randint(len(x), (BATCH,))]
        eps = torch.randn_like(x0)
        t = process.t_min + torch.rand(BATCH) * (process.t_max - process.t_min)
        alpha, sigma = (c.float() for c in process.coefficients(t.double()))
        xt = alpha.reshape(-1, *ones) * x0 + sigma.reshape(-1, *ones) * eps
        label = (sigma / alpha).log() / 4
        loss = nn.functional.mse_loss(network(xt, label), eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


class Adapter(nn.Module):
    """A diffusers network, called as scorefield calls one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        result: Tensor = self.inner(x, label).sample
        return result


def diffusers_steps(network: nn.Module, x: Tensor) -> Steps:
    """The steps of diffusers' example of unconditional training."""
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    scheduler = DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=FOREVER)
    average = EMAModel(network.parameters())
    loader = torch.utils.data.DataLoader(x, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        for x0 in loader:
            eps = torch.randn_like(x0)
            t = torch.randint(1000, (len(x0),))
            loss = nn.functional.mse_loss(network(scheduler.add_noise(x0, eps, t), t), eps)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            average.step(network.parameters())
            yield loss.detach().item()


def seconds(steps: Steps, count: int) -> tuple[float, float]:
    """Return what some steps take of the process's time, and by the clock."""
    began = time.process_time(), time.perf_counter()
    for _ in range(count):
        next(steps)
    return time.process_time() - began[0], time.perf_counter() - began[1]


def compare(
    name: str,
    network: nn.Module,
    x: Tensor,
    other: Callable[[nn.Module, Tensor], Steps],
    pairs: int,
    count: int,
) -> dict[str, Any]:
    """Time two loops in alternating pairs, and return rates and ratios."""
    loops = [make(copy.deepcopy(network), x) for make in (scorefield_steps, other)]
    for loop in loops:
        seconds(loop, 5)
    taken = []
    for pair in range(pairs):
        found = [(0.0, 0.0), (0.0, 0.0)]
        for k in (0, 1) if pair % 2 == 0 else (1, 0):
            found[k] = seconds(loops[k], count)
        taken.append(found)
    low, middle, high = quantiles([theirs[0] / mine[0] for mine, theirs in taken], n=4)
    by_clock = median(theirs[1] / mine[1] for mine, theirs in taken)
    row = {
        "network": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "shape": list(x.shape[1:]),
        "batch": BATCH,
        "other": other.__name__.removesuffix("_steps"),
        "images_per_second": {
            "scorefield": BATCH * count / median(mine[0] for mine, _ in taken),
            "other": BATCH * count / median(theirs[0] for _, theirs in taken),
        },
        "ratio": {"median": middle, "quartiles": [low, high], "by_clock": by_clock},
        "load_average": os.getloadavg()[0],
    }
    speeds = row["images_per_second"]
    print(
        f"{name:24} {speeds['scorefield']:10.0f} images/s, {row['other']:9} {speeds['other']:10.0f}"
        f"   ratio {middle:.3f} ({low:.3f} to {high:.3f}), by the clock {by_clock:.3f}"
    )
    return row


def resident() -> float:
    """Return the resident set of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory() -> dict[str, float]:
    """Return the resident set along a long training of a tiny network."""
    steps = scorefield_steps(MLP(2, width=8, depth=1), torch.randn(500, 2))
    found = {}
    for step in range(1, 10_001):
        next(steps)
        if step in (1000, 10_000):
            found[f"step {step}"] = resident()
    print(", ".join(f"{name}: {value:.1f} MiB" for name, value in found.items()))
    return found


def cases(pairs: int) -> list[dict[str, Any]]:
    """Return the rows of all comparisons."""
    digits = (read("digits").x - 8) / 6
    wide = nn.functional.interpolate(digits[:512], scale_factor=4.0)
    rows = [
        compare("U-Net, 8 x 8", UNet(1), digits, bare_steps, pairs, 10),
        compare("U-Net, 32 x 32", UNet(1), wide, bare_steps, max(3, pairs // 2), 2),
        compare("MLP, 2 coordinates", MLP(2), torch.randn(5000, 2), bare_steps, pairs, 50),
    ]
    try:
        from diffusers import UNet2DModel
    except ImportError:
        print("diffusers is not installed: its loop is skipped.")
        return rows
    theirs = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    rows.append(compare("UNet2DModel, 8 x 8", Adapter(theirs), digits, diffusers_steps, pairs, 5))
    return rows


def main() -> None:
    """Run all, print, and write the results."""
    parser = argparse.ArgumentParser(description="Time the training loop.")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = {
        **machine_facts(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": os.getloadavg()[0],
    }
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
    print(", ".join(f"{k} {v}" for k, v in (machine | versions).items()))
    rows = cases(given.pairs)
    target = f"at least {TARGET} of the bare loop, U-Net"
    images = [r for r in rows if r["other"] == "bare" and len(r["shape"]) == 3]
    targets = {target: all(r["ratio"]["median"] >= TARGET for r in images)}
    print(f"{target}: {'pass' if targets[target] else 'FAIL'}")
    result = {"machine": machine, "versions": versions, "targets": targets, "rows": rows}
    if given.memory:
        result["memory_mib"] = memory()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
