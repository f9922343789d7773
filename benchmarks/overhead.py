r"""Host time per step: what a library spends around the network calls of a sampling run.

The network is free: a module that returns a tensor made beforehand. So a run takes only what the
library itself does. Five rules are run for 20 and 50 steps, in float32 on one CPU thread, on a
state so small that kernels cost no more than their launch (a larger one is reported too)::

    python benchmarks/overhead.py                # prints a table, writes results/overhead.json
    python benchmarks/overhead.py --repeats 20   # sooner, less certain

Each library runs as its own documentation has it, from prior to data:

- scorefield: ``run = sf.prepare(field, solver, times)`` beforehand, then ``run(state)``;
- diffusers: ``set_timesteps`` beforehand, then ``scale_model_input``, network and ``step``;
- k-diffusion: grid beforehand, the one scorefield has, then ``sample_*``; skipped where not
  installed. Only its ``sampling.py`` is loaded (``pip install --no-deps k-diffusion`` is enough).
  It has no UniPC, and no DDIM by that name: that is its Euler rule, on a rescaled state.

What is prepared beforehand is reported apart, per step of the run: for scorefield of a first run,
and of another with the same solver, process and grid, whose coefficients are there. Every network
predicts what costs its library least: the data, but the noise in DDIM and in diffusers' Heun, which
takes no other. The multistep rules are the published recurrences.

All figures but those of "network" are net of it: a call of the free module, label included, is
timed alone and taken off once for each call that a run made. Calls are counted, in a run of its
own. A Heun run of diffusers ends with a step of one call. The floor is what no library can save,
two torch operations per step (per call for Heun) with coefficients that are Python numbers, without
any network::

    x = a * x
    x = torch.add(x, output, alpha=b)

Everything is timed in every repeat, as the best of three runs in a row, in a new order each time
and with the garbage collector off. Medians over the repeats are given, of times and of the ratios
within one repeat, and minima. Targets are judged on the minima: what other work on the machine adds
to a median depends on how long a run is, so that the longer one, a peer's, would suffer more.

Batches are measured apart, with a small U-Net on images of 16 x 16 and processor time: what some
samples cost in the default batches, as a share of what they cost in batches of 64.

Targets, on the small state: at most half of the best peer's host time for the same rule, and at
most 4 times the floor.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch
from machine import facts as machine_facts
from torch import Tensor, nn

import scorefield as sf
from scorefield.solvers.linear import cached_steps

RULES = ["Euler", "Heun", "DDIM", "DPM-Solver++(2M)", "UniPC(2)"]
LIBRARIES = ["scorefield", "diffusers", "k-diffusion"]
STEPS = [20, 50]
SHAPES = {"small": (4, 8), "large": (16, 4, 32, 32)}
BEST_OF = 3
TO_PEER, TO_FLOOR = 0.5, 4.0
NOISE_SHAPE, NOISE_STEPS, TO_RANDN = (16, 4, 64, 64), [20, 50, 250], 20.0
BATCH_COUNTS = [1, 8, 32, 65, 100]
RESULTS = Path(__file__).parent / "results" / "overhead.json"


class Free(nn.Module):
    """A network that costs nothing; its parameter makes it look like one that does."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.output = output

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.output


@dataclass(frozen=True)
class Contender:
    """One rule in one library: ``run(prepare())`` is a whole run."""

    prepare: Callable[[], Any]
    run: Callable[[Any], Any]
    forget: Callable[[], None] = lambda: None  # what an earlier `prepare` computed


def ours(rule: str, steps: int, x: Tensor, network: Free) -> Contender:
    """Return a rule of scorefield."""
    solver = {
        "Euler": sf.Euler(),
        "Heun": sf.Heun(),
        "DDIM": sf.DDIM(),
        "DPM-Solver++(2M)": sf.dpm_solver_pp(2, published=True),
        "UniPC(2)": sf.unipc(2, published=True),
    }[rule]
    if rule == "DDIM":
        table = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        process: sf.Process = sf.Tabulated(table)
        times = torch.linspace(999, 0, steps + 1, dtype=torch.float64)
    else:
        process = sf.EDM()
        times = sf.karras(process, steps)
    parametrization = sf.Eps() if rule == "DDIM" else sf.X0()
    field = sf.Denoiser(network, process, parametrization, tuple(x.shape[1:]))
    begin = sf.State(x, times[0], sf.Noise(0, torch.arange(len(x))))
    return Contender(
        lambda: sf.prepare(field, solver, times), lambda run: run(begin), cached_steps.cache_clear
    )


def diffusers_rule(rule: str, steps: int, x: Tensor, network: Free) -> Contender | None:
    """Return a rule of diffusers; None if it is not installed."""
    try:
        import diffusers
    except ImportError:
        return None
    kind, options = {
        "Euler": (diffusers.EulerDiscreteScheduler, {"prediction_type": "sample"}),
        "Heun": (diffusers.HeunDiscreteScheduler, {"prediction_type": "epsilon"}),
        "DDIM": (diffusers.DDIMScheduler, {"prediction_type": "epsilon", "clip_sample": False}),
        "DPM-Solver++(2M)": (diffusers.DPMSolverMultistepScheduler, {"prediction_type": "sample"}),
        "UniPC(2)": (diffusers.UniPCMultistepScheduler, {"prediction_type": "sample"}),
    }[rule]
    scheduler = kind(num_train_timesteps=1000, **options)

    def run(scheduler: Any) -> Tensor:
        at = x
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(at, t), t)
            at = scheduler.step(output, t, at, return_dict=False)[0]
        return at

    def prepare() -> Any:
        scheduler.set_timesteps(steps)
        return scheduler

    return Contender(prepare, run)


def k_diffusion_rule(rule: str, steps: int, x: Tensor, network: Free) -> Contender | None:
    """Return a rule of k-diffusion; None if it has none, or is not installed."""
    sampling = k_diffusion_sampling()
    names = {"Euler": "sample_euler", "Heun": "sample_heun", "DPM-Solver++(2M)": "sample_dpmpp_2m"}
    if sampling is None or rule not in names:
        return None
    sampler = getattr(sampling, names[rule])
    return Contender(
        lambda: sampling.get_sigmas_karras(steps + 1, 0.002, 80.0)[:-1],
        lambda sigmas: sampler(network, x, sigmas, disable=True),
    )


@functools.cache
def k_diffusion_sampling() -> ModuleType | None:
    """Return ``k_diffusion.sampling`` without what the package imports for training."""
    package = importlib.util.find_spec("k_diffusion")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "sampling.py"
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", path)
    assert spec is not None
    assert spec.loader is not None
    sampling = importlib.util.module_from_spec(spec)
    missing = [name for name in ("torchsde", "torchdiffeq") if not importlib.util.find_spec(name)]
    stubs = {name: ModuleType(name) for name in ("k_diffusion", "k_diffusion.utils", *missing)}
    vars(stubs["k_diffusion.utils"])["append_dims"] = append_dims
    if "torchdiffeq" in stubs:
        vars(stubs["torchdiffeq"])["odeint"] = None
    sys.modules |= stubs
    try:
        spec.loader.exec_module(sampling)
    finally:
        for name in stubs:
            del sys.modules[name]
    return sampling


def append_dims(x: Tensor, dims: int) -> Tensor:
    """Return what ``k_diffusion.utils.append_dims`` returns, in the same operations."""
    missing = dims - x.ndim
    if missing < 0:
        raise ValueError(f"x has {x.ndim} dimensions, more than {dims}.")
    return x[(...,) + (None,) * missing]


def floor(steps: int, x: Tensor, output: Tensor) -> Contender:
    """Return the two operations of the module's docstring, ``steps`` times."""
    numbers = [(1 - 0.5 / steps, 0.25 / (k + 1)) for k in range(steps)]

    def run(_: Any) -> Tensor:
        at = x
        for a, b in numbers:
            at = a * at
            at = torch.add(at, output, alpha=b)
        return at

    return Contender(lambda: None, run)


def bare_calls(steps: int, x: Tensor, network: Free) -> Contender:
    """Return the network's calls alone."""
    labels = list(torch.zeros(steps, len(x)).unbind())

    def run(_: Any) -> None:
        for label in labels:
            network(x, label)

    return Contender(lambda: None, run)


MAKERS = {"scorefield": ours, "diffusers": diffusers_rule, "k-diffusion": k_diffusion_rule}


def contenders(steps: int, x: Tensor, network: Free) -> dict[tuple[str, str], Contender]:
    """Return all that is timed, by rule and library."""
    made: dict[tuple[str, str], Contender] = {
        ("", "floor"): floor(steps, x, network.output),
        ("", "network"): bare_calls(steps, x, network),
    }
    for rule in RULES:
        for library, maker in MAKERS.items():
            contender = maker(rule, steps, x, network)
            if contender is not None:
                made[rule, library] = contender
    return made


def count(contender: Contender, network: Free) -> int:
    """Return how often a run calls the network."""
    calls: list[None] = []
    handle = network.register_forward_hook(lambda *_: calls.append(None))
    contender.run(contender.prepare())
    handle.remove()
    return len(calls)


def once(contender: Contender) -> tuple[float, float, float]:
    """Return the microseconds that preparing a run, preparing it again and the run take."""
    contender.forget()
    before = time.perf_counter_ns()
    contender.prepare()
    start = time.perf_counter_ns()
    prepared = contender.prepare()
    between = time.perf_counter_ns()
    contender.run(prepared)
    end = time.perf_counter_ns()
    return (start - before) / 1e3, (between - start) / 1e3, (end - between) / 1e3


def measure(steps: int, shape: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Return a row of figures for each rule."""
    generator = torch.Generator().manual_seed(0)
    x = 80 * torch.randn(shape, generator=generator)
    network = Free(torch.randn(shape, generator=generator))
    made = contenders(steps, x, network)
    calls = {key: count(contender, network) for key, contender in made.items()}
    runs: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    preparations: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    again: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    order = list(made)
    shuffle = random.Random(0)
    for repeat in range(-1, repeats):  # the first is for warming up
        shuffle.shuffle(order)
        gc.collect()
        gc.disable()
        for key in order:
            times = [once(made[key]) for _ in range(BEST_OF)]
            first, second, run = zip(*times, strict=True)
            if repeat >= 0:
                preparations[key].append(min(first) / steps)
                again[key].append(min(second) / steps)
                runs[key].append(min(run) / steps)
        gc.enable()

    call = runs["", "network"]
    base = runs["", "floor"]
    net = {
        key: [run - one * calls[key] / steps for run, one in zip(runs[key], call, strict=True)]
        for key in made
        if key[0]
    }
    rows = []
    for rule in RULES:
        mine = net[rule, "scorefield"]
        per_step = 2 if rule == "Heun" else 1
        libraries = [name for name in LIBRARIES if (rule, name) in made]
        row: dict[str, Any] = {"rule": rule, "steps": steps, "shape": list(shape)}
        row["floor_us"] = median(base) * per_step
        row["network_us_per_call"] = median(call)
        row["libraries"] = {
            name: {
                "network_calls": calls[rule, name],
                "host_us_per_step": median(net[rule, name]),
                "host_us_per_step_min": min(net[rule, name]),
                "with_network_us_per_step": median(runs[rule, name]),
                "preparation_us_per_step": median(preparations[rule, name]),
                "preparation_again_us_per_step": median(again[rule, name]),
            }
            for name in libraries
        }
        row["to_floor"] = ratio(mine, [per_step * value for value in base])
        peers = [name for name in libraries if name != "scorefield"]
        if peers:
            best = min(peers, key=lambda name: min(net[rule, name]))
            row["best_peer"] = best
            row["to_peer"] = ratio(mine, net[rule, best])
            row["to_peer_with_network"] = ratio(runs[rule, "scorefield"], runs[rule, best])
        rows.append(row)
    return rows


def noise_ratios(repeats: int) -> dict[str, float]:
    """Return the processor time of a draw and of increments along a grid, over ``torch.randn``."""
    x = torch.empty(NOISE_SHAPE)
    noise = sf.Noise(0, torch.arange(len(x)))
    runs: dict[str, Callable[[], Any]] = {"draw": lambda: noise.normal(x)}
    for steps in NOISE_STEPS:
        runs[f"increment, {steps} steps"] = functools.partial(walk, noise, x, steps)
    times: dict[str, list[float]] = {name: [] for name in ("randn", *runs)}
    for _ in range(repeats):
        for name, run in {"randn": lambda: torch.randn(x.shape), **runs}.items():
            start = time.process_time_ns()
            run()
            times[name].append(time.process_time_ns() - start)
    least = {name: min(values) for name, values in times.items()}
    least |= {name: least[name] / int(name.split()[1]) for name in runs if name != "draw"}
    return {name: least[name] / least["randn"] for name in runs}


def batch_shares(repeats: int) -> dict[int, float]:
    """Return the processor time of samples in default batches, over that in batches of 64."""
    from scorefield.networks import UNet

    torch.manual_seed(0)
    field = sf.Denoiser(UNet(1, width=16), sf.VP(), sf.X0(), (1, 16, 16)).eval()
    shares = {}
    for count in BATCH_COUNTS:
        least = {}
        for batch_size in (None, 64):
            times = []
            for _ in range(repeats):
                start = time.process_time_ns()
                sf.sample(field, count, nfe=4, batch_size=batch_size)
                times.append(time.process_time_ns() - start)
            least[batch_size] = min(times)
        shares[count] = least[None] / least[64]
    return shares


def walk(noise: sf.Noise, x: Tensor, steps: int) -> None:
    """Draw the increments of a stochastic solver on a grid."""
    places = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64).tolist()
    for start, end in itertools.pairwise(places):
        _, noise = noise.increment(start, end, x)


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Return the median of the ratios within a repeat, and the ratio of the minima."""
    within = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": median(within), "of_minima": min(ours) / min(theirs)}


def verdict(value: float, target: float) -> str:
    return "pass" if value <= target else "FAIL"


def show(rows: list[dict[str, Any]], judged: bool) -> None:
    """Print a table of one number of steps and one shape."""
    first = rows[0]
    print(
        f"\n{first['steps']} steps, x of shape {tuple(first['shape'])}: microseconds per step, net "
        f"of the network ({first['network_us_per_call']:.2f} per call)"
    )
    print(
        f"{'rule':<18}{'library':<13}{'calls':>6}{'prepare':>9}{'again':>8}{'host':>8}{'(min)':>8}{'floor':>8}"
        f"{'ratio':>8}{'(min)':>8}  target"
    )
    for row in rows:
        for name, figures in row["libraries"].items():
            mine = name == "scorefield"
            line = f"{row['rule'] if mine else '':<18}{name:<13}"
            line += f"{figures['network_calls']:>6}{figures['preparation_us_per_step']:>9.1f}"
            line += f"{figures['preparation_again_us_per_step']:>8.1f}"
            line += f"{figures['host_us_per_step']:>8.1f}{figures['host_us_per_step_min']:>8.1f}"
            line += f"{row['floor_us']:>8.1f}" if mine else " " * 8
            if mine or name == row["best_peer"]:
                found, most = (row["to_floor"], TO_FLOOR) if mine else (row["to_peer"], TO_PEER)
                line += f"{found['median']:>8.2f}{found['of_minima']:>8.2f}"
                if judged:
                    line += f"  {verdict(found['of_minima'], most)}: at most {most:g} x "
                    line += "floor" if mine else "this"
            print(line.rstrip())


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what sampling costs around the network.")
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    machine = {
        **machine_facts(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }
    packages = ["scorefield", "torch", "diffusers", "k-diffusion"]
    versions = {package: version(package) for package in packages}
    print(", ".join(f"{k} {v or 'not installed'}" for k, v in (machine | versions).items()))
    if k_diffusion_sampling() is None:
        print("k-diffusion is not installed: its column is skipped.")
    rows = []
    with torch.no_grad():
        for name, shape in SHAPES.items():
            for steps in STEPS:
                found = measure(steps, shape, repeats)
                show(found, judged=name == "small")
                rows += found
    small = [row for row in rows if tuple(row["shape"]) == SHAPES["small"]]
    targets = {
        "at most 4 times the floor": all(r["to_floor"]["of_minima"] <= TO_FLOOR for r in small),
        "at most half of the best peer": all(
            "to_peer" in r and r["to_peer"]["of_minima"] <= TO_PEER for r in small
        ),
    }
    noise = noise_ratios(max(3, repeats // 8))
    print(f"\nnoise of shape {NOISE_SHAPE}, processor time over torch.randn")
    for name, value in noise.items():
        print(f"{name:<24}{value:>8.1f}  {verdict(value, TO_RANDN)}: at most {TO_RANDN:g}")
    targets["noise at most 20 times torch.randn"] = max(noise.values()) <= TO_RANDN
    batch = batch_shares(3)
    print("\nprocessor time of n samples in default batches, over that in batches of 64")
    print(", ".join(f"{count}: {share:.2f}" for count, share in batch.items()))
    print()
    for target, met in targets.items():
        print(f"{target}: {'pass' if met else 'FAIL'}")
    result = {
        "machine": machine,
        "versions": versions,
        "repeats": repeats,
        "targets": targets,
        "noise": noise,
        "batch": batch,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
