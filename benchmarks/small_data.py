r"""Training with the defaults on small data: does it end near the smallest error, without copies?

Four sets: 400 made rows of 200 features, the 700 cells x 765 genes of pbmc68k_reduced, the 569 rows
of scikit-learn's breast cancer table, and 300 digits of 8x8. The rule of
`scorefield.training.course` was chosen on the first two and on parts of 50 and 100 rows of other
tables, and is judged on the last two::

    pip download scanpy --no-deps        # whose wheel has the cells
    python benchmarks/small_data.py --cells 10x_pbmc68k_reduced.h5ad
    python benchmarks/small_data.py cancer digits --full    # also all 2,000 steps, without choice

A fifth of the rows is set aside for the judge and is in no part of the training. At every step
where the training measures its error on its held-out samples, the error on the judge's rows is
measured too. Printed are, for each set: the error of the run on the judge's rows, over the smallest
along the way; and of the samples, the distance to the closest training record over that of the
judge's rows, and the share of copies above that of those rows, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scorefield as sf
from scorefield.runs.quality import Items, quality
from scorefield.training.held_out import HeldOut

RESULTS = Path(__file__).parent / "results" / "small_data.json"


def made() -> np.ndarray:
    """Return 400 rows of a Gaussian of 200 coordinates, whose deviations decay along its axes."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(200, 200)) / 200**0.5 * np.exp(-np.arange(200) / 30)
    rows: np.ndarray = (rng.normal(size=(400, 200)) @ axes.T).astype(np.float32)
    return rows


def load(name: str, cells: Path | None) -> torch.Tensor:
    """Return the samples of a set."""
    if name == "made":
        return torch.from_numpy(made())
    if name == "cells":
        x = sf.read(cells).x
        return x[torch.arange(len(x))]
    if name == "cancer":
        from sklearn.datasets import load_breast_cancer

        return torch.from_numpy(load_breast_cancer().data.astype(np.float32))
    return sf.read("digits").x[torch.arange(300)]


def trained(x: torch.Tensor, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train, and return the errors along the way and the quality of samples."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    size = len(x) // 5
    judge, own = x[order[:size]], x[order[size:]]
    optim = sf.OptimConfig(**settings.pop("optim", {}))
    training = sf.Training(sf.Data(own), sf.TrainConfig(seed=seed, optim=optim, **settings))
    judged = HeldOut(judge, None, torch.arange(size), training.held_out.prepare, seed)
    began, errors = time.monotonic(), dict[int, float]()
    for progress in training:
        if training.evaluation is not None and training.evaluation.step == progress.step:
            errors[progress.step] = float(judged.errors(training.fit.averaged).mean())
    run = training.run
    final = float(judged.errors(run.field).mean())
    both = Items(torch.cat([own, judge]), training.learned, len(own) + torch.arange(size))
    result = quality(run, both, seed)
    best = min(errors, key=lambda step: errors[step])
    return {
        "said": training.summary,
        "error": final,
        "best": [best, errors[best]],
        "ratio": final / errors[best],
        "closest_ratio": vars(result.closest_ratio),
        "copies": vars(result.copies),
        "seconds": time.monotonic() - began,
        "errors": errors,
    }


def main() -> None:
    """Train on each set, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=["made", "cells", "cancer", "digits"])
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.sets:
        x = load(name, arguments.cells)
        variants: dict[str, dict[str, Any]] = {"default": {}}
        if arguments.full:
            variants["2,000 steps"] = {"end": "last", "optim": {"steps": 2000}}
        for variant, settings in variants.items():
            row = trained(x, arguments.seed, settings)
            share, ratio = (row[key] for key in ("copies", "closest_ratio"))
            print(
                f"{name}, {variant}: {row['said']}\n  error on other rows {row['error']:.3f}, "
                f"{row['ratio']:.3f} times the smallest (step {row['best'][0]}); closest record "
                f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}], copies "
                f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]; "
                f"{row['seconds']:.0f} s",
                flush=True,
            )
            results[f"{name}, {variant}"] = row
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
