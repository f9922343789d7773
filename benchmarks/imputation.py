"""Missing numbers of six public tables: scorefield beside imputers of scikit-learn.

    python benchmarks/imputation.py
    python benchmarks/imputation.py --only wine --rows 20

Each method learns from one half of a table's rows. In up to 60 complete rows of the other half,
each number is hidden with probability 0.3; categories stay visible, and are indicators for the
peers. The last three tables had no part in the defaults of scorefield.

- *RMSE*: root of the mean square error over hidden cells, in deviations of the training rows, of
  the mean of 16 draws, or of the one value that a method without draws returns.
- *coverage*: share of hidden cells between the least and the greatest of 19 draws, which is 0.9
  for draws from the distribution of the truth.
- *width*: the mean width of these intervals, in deviations.
- *seconds*: CPU seconds of training and imputation, on one thread.

Methods are a run with default settings and its `restore`; IterativeImputer with its default, a
Bayesian ridge regression, and with draws from its posterior; KNNImputer; IterativeImputer with
forests of 50 extra trees, five rounds, as missForest does; and the mean. Results go to
results/imputation.json beside this file, after each table.

Peers: pip install palmerpenguins vega_datasets statsmodels scikit-learn
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import facts
from public_tables import public_table
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

import scorefield as sf

RESULTS = Path(__file__).parent / "results" / "imputation.json"
TABLES = ("penguins", "wine", "diabetes", "cars", "breast-cancer", "modechoice")
HIDDEN, AVERAGED, DRAWS = 0.3, 16, 19


class Task:
    """Rows to learn from, and rows with hidden numbers.

    Attributes:
        data: the training rows, as they are read.
        truth, hidden: the other rows ``(N, columns)``, and which of their cells are hidden.
    """

    def __init__(self, name: str, rows: int) -> None:
        train, held_out = public_table(name).halves()
        self.data = sf.read(train)
        x = sf.read(held_out.dropna()[:rows], like=sf.Training(self.data).data_config).x
        kinds = self.data.columns.kinds
        number = torch.tensor([c.kind == "number" and c.low < c.high for c in kinds])
        generator = torch.Generator().manual_seed(0)
        self.truth = x
        self.hidden = (torch.rand(x.shape, generator=generator) < HIDDEN) & number
        known = self.data.x
        self.std = np.nanstd(known.numpy(), 0)
        self.measured = torch.where(self.hidden, torch.nan, x)
        self.sizes = [0 if c.kind == "number" else len(c.labels) for c in kinds]

    def features(self, x: torch.Tensor) -> np.ndarray:
        """Return standardized numbers, and behind them the indicators of categories."""
        mean = np.nanmean(self.data.x.numpy(), 0)
        z = (x.numpy() - mean) / np.where(self.std > 0, self.std, 1)
        coded = [k for k, size in enumerate(self.sizes) if size]
        z[:, coded] = 0
        flags = [(x[:, [k]] == torch.arange(self.sizes[k])).numpy() for k in coded]
        return np.concatenate([z, *flags], 1).astype(float)

    def errors(self, draws: np.ndarray) -> dict[str, float]:
        """Return the figures of standardized draws ``(n, N, columns)``."""
        hidden, std = self.hidden.numpy(), np.where(self.std > 0, self.std, 1)
        mean = np.nanmean(self.data.x.numpy(), 0)
        truth = ((self.truth.numpy() - mean) / std)[hidden]
        cells = draws[:, :, : hidden.shape[1]][:, hidden]
        error = cells[:AVERAGED].mean(0) - truth
        row = {"rmse": float(np.sqrt((error**2).mean())), "cells": len(truth)}
        if len(draws) == DRAWS:
            low, high = cells.min(0), cells.max(0)
            row["coverage"] = float(((low <= truth) & (truth <= high)).mean())
            row["width"] = float((high - low).mean())
        return row


def ours(task: Task) -> np.ndarray:
    run = sf.train(task.data)
    x = run.restore(task.measured, n=DRAWS, batch_size=256)
    return np.stack([task.features(x[:, k]) for k in range(DRAWS)])


def imputed(imputer: object, draws: int = 1) -> Callable[[Task], np.ndarray]:
    def method(task: Task) -> np.ndarray:
        imputer.fit(task.features(task.data.x))
        z = task.features(task.measured)
        return np.stack([imputer.transform(z) for _ in range(draws)])

    return method


METHODS: dict[str, Callable[[Task], np.ndarray]] = {
    "mean": imputed(SimpleImputer(keep_empty_features=True)),
    "knn": imputed(KNNImputer(keep_empty_features=True)),
    "ridge": imputed(IterativeImputer(random_state=0)),
    "ridge, draws": imputed(IterativeImputer(sample_posterior=True, random_state=0), DRAWS),
    "forests": imputed(
        IterativeImputer(ExtraTreesRegressor(50, random_state=0), max_iter=5, random_state=0)
    ),
    "ours": ours,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default=",".join(TABLES))
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.only.split(","):
        task = Task(name, options.rows)
        for method in options.methods.split(";"):
            began = time.process_time()
            row = task.errors(METHODS[method](task))
            row["seconds"] = time.process_time() - began
            results.setdefault(name, {})[method] = row
            print(f"{name:14} {method:14}", *(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
            results["machine"] = facts()
            options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
