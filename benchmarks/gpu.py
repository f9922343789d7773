r"""Cost at size: the time beside the network on a GPU, within eight minutes::

    python benchmarks/gpu.py            # on a GPU; writes results/gpu.json
    python benchmarks/gpu.py --quick    # anywhere, in a minute; prints alone

The network is free, so a run takes only what the library does. The floor is one pass over the
state, ``x.add_(y)``. States are 3x512x512, as images, and 4x128x128, as latents, with 1 to 64
samples:

- *steps*: the time of a step of a solver beside the network, over the floor;
- *noise*: a draw, and an increment of a Brownian path, over ``torch.randn``;
- *adaptive*: a round of steps that each sample chooses, over the floor;
- *likelihood*: a node of ``log_prob`` with one probe, over the floor;
- *training*: a step of `fit` beside the same network, loss and AdamW alone;
- *preparation*: the coefficients of 20 steps, in milliseconds, the first and the next time.

With CUDA, waits for the device are counted by ``torch.cuda.set_sync_debug_mode``: those of 20
steps more than of 10, and those of a training step.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import facts as machine_facts
from torch import Tensor, nn

import scorefield as sf

SHAPES = {"image": (3, 512, 512), "latent": (4, 128, 128)}
COUNTS = (1, 4, 16, 64)
SOLVERS = {
    "ddim": sf.DDIM(),
    "multistep": sf.Multistep(),
    "dpm-solver++": sf.dpm_solver_pp(),
    "heun": sf.Heun(),
    "ddpm": sf.DDPM(),
    "euler-maruyama": sf.EulerMaruyama(),
}
LIMIT, QUICK = 420.0, 50.0  # seconds in all; what does not fit is left out and named
RESULTS = Path(__file__).parent / "results" / "gpu.json"


class Free(nn.Module):
    """A network that costs nothing."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), device=output.device))
        self.output = output

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.output


class Scaled(nn.Module):
    """A network of one product, whose Jacobian is that of a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.weight * x


class Bench:
    """Timings on one device, as long as there is time."""

    def __init__(self, device: torch.device, limit: float) -> None:
        self.device, self.end = device, time.monotonic() + limit
        self.left_out: list[str] = []

    def milliseconds(self, run: Callable[[], object], least: float = 0.05) -> float:
        """Return the median time of a run; runs are repeated for ``least`` seconds, 3 to 50."""
        run()
        self.wait()
        times: list[float] = []
        while len(times) < 3 or (sum(times) < least and len(times) < 50):
            began = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - began)
        return 1e3 * median(times)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def waits(self, run: Callable[[], object]) -> int | None:
        """Return how often a run waits for the device; None without CUDA."""
        if self.device.type != "cuda":
            return None
        run()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in caught)

    def fits(self, name: str) -> bool:
        """Return whether there is time for a measurement, and note its name if not."""
        if time.monotonic() < self.end:
            return True
        self.left_out.append(name)
        return False


def steps(bench: Bench, x: Tensor, names: list[str]) -> dict[str, Any]:
    """Measure the steps of solvers, and their preparation."""
    field = sf.Denoiser(Free(torch.randn_like(x)), sf.VP(), sf.V(), tuple(x.shape[1:]))
    y = torch.randn_like(x)
    floor = bench.milliseconds(lambda: x.add_(y, alpha=1e-9))
    ids = torch.arange(len(x), device=x.device)
    rows: dict[str, Any] = {"floor_ms": floor}
    for name in names:
        solver = SOLVERS[name]

        def walk(count: int, solver: sf.Solver = solver) -> Callable[[], object]:
            times = sf.balanced(field.process, count)
            run = sf.prepare(field, solver, times)
            begin = sf.State(x, times[0], sf.Noise(0, ids))
            return lambda: run(begin)

        began = time.perf_counter()
        long = walk(20)
        first = time.perf_counter() - began
        began = time.perf_counter()
        walk(20)
        row = {
            "preparation_ms": [1e3 * first, 1e3 * (time.perf_counter() - began)],
            "step_to_floor": bench.milliseconds(long) / 20 / floor,
        }
        more = bench.waits(long), bench.waits(walk(10))
        if None not in more:
            row["waits_of_10_steps"] = more[0] - more[1]
        rows[name] = row
    return rows


def noise(bench: Bench, x: Tensor) -> dict[str, Any]:
    """Measure draws and increments."""
    source = sf.Noise(0, torch.arange(len(x), device=x.device))
    usual = bench.milliseconds(lambda: torch.randn_like(x))
    at = source.increment(0.30, 0.31, x)[1]
    return {
        "randn_ms": usual,
        "draw_to_randn": bench.milliseconds(lambda: source.normal(x)) / usual,
        "increment_to_randn": bench.milliseconds(lambda: at.increment(0.31, 0.32, x)) / usual,
    }


def adaptive(bench: Bench, x: Tensor) -> dict[str, Any]:
    """Measure a round of adaptive steps."""
    field = sf.Denoiser(Scaled().to(x.device), sf.VP(), sf.V(), tuple(x.shape[1:]))
    floor, y = bench.milliseconds(lambda: x.mul_(1.0)), torch.randn_like(x)
    ids = torch.arange(len(x), device=x.device)
    control = sf.Adaptive(0.05, 0.05)
    begin = sf.State(y, torch.tensor(field.process.t_max, dtype=torch.float64), sf.Noise(0, ids))
    rounds = sum(1 for _ in sf.integrate(field, sf.Heun(), begin, control)) - 1
    whole = bench.milliseconds(lambda: list(sf.integrate(field, sf.Heun(), begin, control)), 0)
    return {"rounds": rounds, "round_to_floor": whole / rounds / floor}


def likelihood(bench: Bench, x: Tensor) -> dict[str, Any]:
    """Measure a node of a likelihood with two probes, per call of the network."""
    field = sf.Denoiser(Scaled().to(x.device), sf.VP(), sf.V(), tuple(x.shape[1:])).eval()
    floor = bench.milliseconds(lambda: x.mul_(1.0))
    settings = {"nfe": 12, "probes": 2, "batch_size": len(x)}
    whole = bench.milliseconds(lambda: sf.log_prob(field, x, **settings), 0)
    return {"node_to_floor": whole / 12 / floor}


def training(bench: Bench, shape: tuple[int, ...], count: int) -> dict[str, Any]:
    """Measure a step of training, and the same network, loss and optimizer alone."""
    torch.manual_seed(0)
    network = sf.UNet(shape[0], width=16, multipliers=(1, 1), blocks=1).to(bench.device)
    field = sf.Denoiser(network, sf.VP(), sf.V(), shape)
    data = torch.randn(2 * count, *shape)
    optim = sf.OptimConfig(steps=10_000, batch_size=count)
    work: Iterator[Any] = iter(
        sf.fit(field, sf.Objective(sf.Simple(), sf.UniformTimes()), data, optim=optim)
    )
    step = bench.milliseconds(lambda: next(work))
    waits = bench.waits(lambda: next(work))
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x, label = data[:count].to(bench.device), torch.zeros(count, device=bench.device)

    def alone() -> None:
        optimizer.zero_grad()
        network(x, label).square().mean().backward()
        optimizer.step()

    result = {"step_ms": step, "network_alone_ms": bench.milliseconds(alone)}
    return result if waits is None else {**result, "waits": waits}


def measure(bench: Bench, quick: bool) -> list[dict[str, Any]]:
    """Return a row for each state and each number of samples."""
    rows: list[dict[str, Any]] = []
    names = ["multistep", "ddpm"] if quick else list(SOLVERS)
    for kind, full in SHAPES.items():
        shape = (full[0], full[1] // 8, full[2] // 8) if quick else full
        for n in (1, 4) if quick else COUNTS:
            place = f"{n} x {'x'.join(map(str, shape))}"
            x = torch.randn(n, *shape, device=bench.device)
            parts: dict[str, Callable[[], dict[str, Any]]] = {
                "steps": lambda x=x: steps(bench, x, names),
                "noise": lambda x=x: noise(bench, x),
                "adaptive": lambda x=x: adaptive(bench, x),
                "likelihood": lambda x=x: likelihood(bench, x),
            }
            if kind == "latent":
                parts["training"] = lambda n=n, shape=shape: training(bench, shape, n)
            row: dict[str, Any] = {"state": place}
            for name, part in parts.items():
                if bench.fits(f"{name} of {place}"):
                    try:
                        row[name] = part()
                    except torch.OutOfMemoryError:
                        bench.left_out.append(f"{name} of {place}: out of memory")
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what the library costs at size.")
    parser.add_argument("--quick", action="store_true", help="small states, a minute, no file")
    parser.add_argument("--device", help="cpu, cuda, mps; by default that of this machine")
    options = parser.parse_args()
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = torch.device(options.device or accelerator or "cpu")
    bench = Bench(device, QUICK if options.quick else LIMIT)
    rows = measure(bench, options.quick)
    for name in bench.left_out:
        print(f"left out: {name}")
    if device.type == "cpu" or options.quick:
        print("no file is written: it is for full runs on a GPU.")
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    result = {"machine": machine_facts() | {"device": where}, "torch": torch.__version__}
    result |= {"rows": rows, "left_out": bench.left_out}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
