"""The transformer and the U-Net on the 8 x 8 digits, trained for the same CPU time::

    python benchmarks/transformer.py               # writes results/transformer.json
    python benchmarks/transformer.py --seconds 20  # sooner

A fifth of the digits is set aside for the judge. The error is that of `x0` on them in eight ranges
of noise, relative to the best denoiser of independent Gaussian coordinates.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import facts as machine_facts
from torch import Tensor

import scorefield as sf
from scorefield.training.held_out import HeldOut

RESULTS = Path(__file__).parent / "results" / "transformer.json"
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"kind": "unet"},
    "dit": {"kind": "dit", "width": 96, "layers": 4, "head": 32, "patch": 2},
}


def training(x: Tensor, network: dict[str, Any], steps: int) -> sf.Training:
    """Return a training of a network."""
    optim = sf.OptimConfig(steps=steps, batch_size=64)
    config = sf.TrainConfig(network=network, held_out=0.1, end="best", optim=optim)
    return sf.Training(sf.Data(x), config)


def trained(x: Tensor, judge: Tensor, network: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Train for so many seconds of the CPU, and return the error."""
    first = iter(training(x, network, 10))
    next(first)
    began = time.process_time()
    for _ in range(5):
        next(first)
    steps = max(20, round(5 * seconds / (time.process_time() - began)))
    fit = training(x, network, steps)
    began = time.process_time()
    for _ in fit:
        pass
    used = time.process_time() - began
    judged = HeldOut(judge, None, torch.arange(len(judge)), fit.held_out.prepare, 0)
    return {
        "network": network,
        "parameters": sum(p.numel() for p in fit.run.field.network.parameters()),
        "error": float(judged.errors(fit.run.field).mean()),
        "steps": steps,
        "cpu_seconds": used,
        "said": fit.summary,
    }


def main() -> None:
    """Train networks, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = sf.read("digits").x  # in memory
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    judge, own = x[order[: len(x) // 5]], x[order[len(x) // 5 :]]
    for name in arguments.networks:
        row = trained(own, judge, NETWORKS[name], arguments.seconds)
        print(f"{name}: error {row['error']:.4f}; {row['cpu_seconds']:.0f} s; {row['said']}")
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results |= {"machine": machine_facts(), name: row}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
