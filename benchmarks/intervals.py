r"""How often the intervals of `scorefield.evaluate.metrics.compare` hold what they should.

Both samples are drawn anew for every repeat, 200 generated and 300 real points of a Gaussian in
four dimensions: of one law, and a third of a standard deviation apart in every coordinate::

    python benchmarks/intervals.py                # prints a table, writes results/intervals.json
    python benchmarks/intervals.py --repeats 50   # sooner, less certain

For each metric: the share of 95% intervals that hold the metric's mean over all repeats, and the
root mean square of their standard errors over the standard deviation of the values. With 400
repeats these are known to about 0.011 and 0.04.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from scorefield.evaluate.metrics import (
    C2ST,
    MMD,
    PRDC,
    Comparison,
    EnergyDistance,
    FrechetDistance,
    SlicedWasserstein,
    compare,
)

RESULTS = Path(__file__).parent / "results" / "intervals.json"
METRICS = (
    SlicedWasserstein(projections=64),
    EnergyDistance(),
    MMD(),
    FrechetDistance(),
    C2ST(),
    PRDC(),
)
CASES = {"one law": 0.0, "apart": 1 / 3}
GENERATED, REAL, DIM = 200, 300, 4


def drawn(seed: int, shift: float) -> Comparison:
    """Return the comparison of fresh samples."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(GENERATED, DIM, generator=generator) + shift
    return compare(x, torch.randn(REAL, DIM, generator=generator), metrics=METRICS)


def held(found: list[Comparison]) -> dict[str, dict[str, float]]:
    """Return mean, share of intervals that hold it, and ratio of errors, by metric."""
    rows = {}
    for name in found[0].values:
        each = [comparison.values[name] for comparison in found]
        values = torch.tensor([e.value for e in each], dtype=torch.float64)
        errors = torch.tensor([e.stderr for e in each], dtype=torch.float64)
        mean = float(values.mean())
        rows[name] = {
            "mean": mean,
            "held": sum(e.low <= mean <= e.high for e in each) / len(each),
            "ratio": float(errors.square().mean().sqrt() / values.std()),
        }
    return rows


def main() -> None:
    """Draw, count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    told = {
        case: held([drawn(seed, shift) for seed in range(repeats)]) for case, shift in CASES.items()
    }
    print("| metric | " + " | ".join(f"{c}: held | {c}: error" for c in told) + " |")
    print("|---" * (1 + 2 * len(told)) + "|")
    for name in told["one law"]:
        cells = [f"{r[name]['held']:.3f} | {r[name]['ratio']:.2f}" for r in told.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    RESULTS.write_text(json.dumps({"repeats": repeats, **told}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
