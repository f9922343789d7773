r"""How often the bounds of `scorefield.frontier`'s errors are passed by what they bound.

An error is a mean of distances, most of them small. Of 20,000 noises of a ring of five narrow
Gaussians the mean is as good as known, and samples of them are drawn many times; beside it the
exponential law, whose mean is::

    python benchmarks/errors.py                  # prints a table, writes results/errors.json
    python benchmarks/errors.py --repeats 500    # sooner, less certain

For each sample size: the share of 95% intervals that lie below the mean, and above it, by
`Measurement.of_mean` and by Student's quantiles alone; 0.025 each if all is well.
With 4000 repeats these are known to about 0.003. Beside them, how much of the mean the largest
hundredth of the distances makes.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

import scorefield as sf
from scorefield._internal.statistics import student
from scorefield.evaluate.metrics import Measurement
from scorefield.tuning.noises import Noises
from scorefield.tuning.teacher import ends

RESULTS = Path(__file__).parent / "results" / "errors.json"
POOL, SIZES = 20_000, (64, 256, 512, 1024)


def ring() -> sf.Mixture:
    """Return five narrow Gaussians of different weights on a circle."""
    angle = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    means = torch.stack([angle.cos(), angle.sin()], 1)
    spread = 0.02 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2)
    return sf.Mixture(sf.VP(t_min=1e-8), torch.arange(1.0, 6), means, spread)


def pools() -> dict[str, tuple[Tensor, float]]:
    """Return distances to draw from, and their mean."""
    field = ring()
    noise, _ = sf.Noise(0, torch.arange(POOL)).draw(field.shape, torch.empty(0))
    reached = ends(Noises(field, noise, {}, 500))
    uniform = torch.rand(10 * POOL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = {"exponential": (-uniform.log(), 1.0)}
    heun = sf.Plan(sf.Heun(), sf.balanced(field.process, 4, data_std=field.data_std))
    plans = {f"default, {nfe} calls": sf.default_plan(field, nfe) for nfe in (5, 10, 20)}
    for name, plan in {**plans, "heun, 9 calls": heun}.items():
        x = sf.sample(field, POOL, plan, batch_size=500)
        gaps = (x.double() - reached).norm(dim=1) / math.sqrt(2)
        made[name] = gaps, float(gaps.mean())
    return made


def passed(pool: Tensor, mean: float, count: int, repeats: int) -> dict[str, list[float]]:
    """Return the shares of intervals below the mean and above it, by either rule."""
    generator = torch.Generator().manual_seed(count)
    wide = float(student(0.95, torch.tensor(count - 1.0))) / math.sqrt(count)
    found = {"measurement": [0.0, 0.0], "student": [0.0, 0.0]}
    for _ in range(repeats):
        values = pool[torch.randint(len(pool), (count,), generator=generator)]
        told, middle, half = (
            Measurement.of_mean(values, 0.95),
            float(values.mean()),
            wide * float(values.std()),
        )
        for name, low, high in (("measurement", told.low, told.high),
                                ("student", middle - half, middle + half)):  # fmt: skip
            found[name][0] += (high < mean) / repeats
            found[name][1] += (low > mean) / repeats
    return found


def main() -> None:
    """Draw, count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    told: dict[str, dict] = {}
    print("| distances | largest hundredth | n | below, above | Student's: below, above |")
    print("|---|---|---|---|---|")
    for name, (pool, mean) in pools().items():
        largest = float(pool.topk(len(pool) // 100).values.sum() / pool.sum())
        by_size = {count: passed(pool, mean, count, repeats) for count in SIZES}
        told[name] = {"largest": largest, **by_size}
        for count, found in by_size.items():
            cells = [f"{low:.3f}, {high:.3f}" for low, high in found.values()]
            print(f"| {name} | {largest:.2f} | {count} | " + " | ".join(cells) + " |")
    RESULTS.write_text(json.dumps({"repeats": repeats, **told}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
