r"""How often the bounds of the errors of `scorefield.frontier` and `scorefield.tune` do not hold.

An error is a mean of distances, most of them small. Of 20,000 noises of a mixture the mean is as
good as known, and samples of them are drawn many times; beside it the exponential law, whose mean
is::

    python benchmarks/errors.py                   # prints a table, writes results/errors.json
    python benchmarks/errors.py --repeats 2000    # later, more certain

For each sample size: the share of 95% intervals that lie below the mean, and above it, by
`Measurement.of_mean` with a largest distance, as reported, without one, and by Student's quantiles;
0.025 each if all is well. With 500 repeats these are known to about 0.007. Beside them, how much of
the mean the largest hundredth of the distances makes.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import solvers as peers
import torch
from torch import Tensor

import scorefield as sf
from scorefield._internal.statistics import student
from scorefield.evaluate.metrics import Measurement
from scorefield.tuning.noises import distances, draw
from scorefield.tuning.teacher import ends

RESULTS = Path(__file__).parent / "results" / "errors.json"
POOL, SIZES = 20_000, (64, 512, 2048)


def ring() -> sf.Mixture:
    """Return five narrow Gaussians of different weights on a circle."""
    angle = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    means = torch.stack([angle.cos(), angle.sin()], 1)
    spread = 0.02 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2)
    return sf.Mixture(sf.VP(t_min=1e-8), torch.arange(1.0, 6), means, spread)


def pools() -> dict[str, tuple[Tensor, float, float | None]]:
    """Return distances to draw from, their mean, and the largest possible one."""
    uniform = torch.rand(10 * POOL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made: dict[str, tuple[Tensor, float, float | None]] = {
        "exponential": (-uniform.log(), 1.0, None)
    }
    fields = {"ring5": ring(), "moons2": peers.moons2(), "steep12": peers.steep12()}
    for problem, field in fields.items():
        noises = draw(field, POOL, {}, 1000, 500)
        reached = ends(noises, 96)
        radius = distances(reached, reached.mean(0, keepdim=True)).max()
        plans = {"tuned, 8 calls": sf.tune(field, 8)}
        if problem == "ring5":
            heun = sf.Plan(sf.Heun(), sf.balanced(field.process, 4, data_std=field.data_std))
            plans |= {"heun, 9 calls": heun, "tuned, 5 calls": sf.tune(field, 5)}
            plans |= {f"default, {nfe} calls": sf.default_plan(field, nfe) for nfe in (5, 10, 20)}
        for name, plan in plans.items():
            gaps = distances(noises.carried(plan), reached)
            made[f"{problem}, {name}"] = gaps, float(gaps.mean()), 2 * float(radius)
    return made


def passed(
    pool: Tensor, mean: float, largest: float | None, count: int, repeats: int
) -> dict[str, list[float]]:
    """Return the shares of intervals below the mean and above it, by each rule."""
    generator = torch.Generator().manual_seed(count)
    wide = float(student(0.95, torch.tensor(count - 1.0))) / math.sqrt(count)
    found = {name: [0.0, 0.0] for name in ("reported", "of the values", "student")}
    for _ in range(repeats):
        values = pool[torch.randint(len(pool), (count,), generator=generator)]
        middle, half = float(values.mean()), wide * float(values.std())
        reported, plain = (Measurement.of_mean(values, 0.95, largest=b) for b in (largest, None))
        for name, low, high in (
            ("reported", reported.low, reported.high),
            ("of the values", plain.low, plain.high),
            ("student", middle - half, middle + half),
        ):
            found[name][0] += (high < mean) / repeats
            found[name][1] += (low > mean) / repeats
    return found


def main() -> None:
    """Draw, count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    told: dict[str, dict] = {}
    print("| distances | largest hundredth | n | below, above | without a largest | Student's |")
    print("|---|---|---|---|---|---|")
    for name, (pool, mean, most) in pools().items():
        largest = float(pool.topk(len(pool) // 100).values.sum() / pool.sum())
        by_size = {count: passed(pool, mean, most, count, repeats) for count in SIZES}
        told[name] = {"largest": largest, **by_size}
        for count, found in by_size.items():
            cells = [f"{low:.3f}, {high:.3f}" for low, high in found.values()]
            print(f"| {name} | {largest:.2f} | {count} | " + " | ".join(cells) + " |", flush=True)
    RESULTS.write_text(json.dumps({"repeats": repeats, **told}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
