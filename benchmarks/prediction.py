r"""Conditional densities as predictions, on held-out data, each beside plain baselines::

    python benchmarks/prediction.py                # writes results/prediction.json
    python benchmarks/prediction.py regression     # one of the three

*regression*: the progression of diabetes of 442 patients from ten measurements, a table that
scikit-learn has; a fifth is held out. *forecast*: sea surface temperatures of El Nino, monthly from
1950 to 2010, which statsmodels has, less the mean of the month; the next 12 months given the last
12 and the season, trained on windows before 1990 and measured after. *superresolution*: the 8 x 8
digits from their means over 2 x 2 pixels; 60 of a fifth that is held out.

Printed are the CRPS in the units of the data, the coverage of intervals of 80 %, and for images the
PSNR in dB, of the mean of the draws and of one draw.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts as machine_facts
from torch import Tensor

import scorefield as sf

RESULTS = Path(__file__).parent / "results" / "prediction.json"
DRAWS, DRAWS_OF_IMAGES = 99, 19
Rows = dict[str, dict[str, Any]]


def drawn(run: sf.Run, name: str, condition: Tensor, count: int = DRAWS) -> Tensor:
    """Return draws for each row of a condition, ``(N, count, ...)``."""
    rows = torch.arange(len(condition)).repeat_interleave(count)
    x = run.sample(len(rows), nfe=10, given={name: condition[rows]}, batch_size=512)
    return x.reshape(len(condition), count, *x.shape[1:])


def scored(draws: Tensor, truth: Tensor) -> dict[str, Any]:
    """Return CRPS, coverage and mean absolute error of the median."""
    result = sf.calibration(draws.flatten(2), truth.flatten(1), levels=(0.8,))
    median = draws.median(1).values
    return {
        "crps": float(result.crps.mean()),
        "coverage of 80 %": result.coverage[0].share,
        "error of the median": float((median - truth).abs().mean()),
    }


def of_quantiles(quantiles: np.ndarray) -> Tensor:
    """Return draws from quantiles ``(N, levels)`` at equidistant levels, ``(N, DRAWS, 1)``."""
    generator = np.random.default_rng(0)
    levels = (np.arange(quantiles.shape[1]) + 0.5) / quantiles.shape[1]
    u = generator.random((len(quantiles), DRAWS))
    draws = [
        np.interp(*each) for each in zip(u, [levels] * len(u), np.sort(quantiles, 1), strict=True)
    ]
    return torch.as_tensor(np.stack(draws)[..., None], dtype=torch.float32)


def gaussian(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> Tensor:
    """Return draws of a linear regression with Gaussian residuals, ``(N, DRAWS, D)``."""
    from sklearn.linear_model import LinearRegression

    fit = LinearRegression().fit(x, y)
    residual = y - fit.predict(x)
    covariance = residual.T @ residual / (len(x) - x.shape[1] - 1)
    noise = np.random.default_rng(0).multivariate_normal(
        np.zeros(y.shape[1]), covariance, (len(new), DRAWS)
    )
    return torch.as_tensor(fit.predict(new)[:, None] + noise, dtype=torch.float32)


def regression() -> Rows:
    """Return the scores on the diabetes table."""
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import QuantileRegressor

    x, y = load_diabetes(return_X_y=True, scaled=False)
    order = np.random.default_rng(0).permutation(len(x))
    held, own = order[: len(x) // 5], order[len(x) // 5 :]
    features, target = (torch.as_tensor(v, dtype=torch.float32) for v in (x, y[:, None]))
    network = {"kind": "mlp", "width": 64, "depth": 2}
    run = sf.train(target[own], {"x": features[own]}, network=network)
    scale = x[own].std(0)
    levels = (np.arange(39) + 0.5) / 39
    linear = [QuantileRegressor(quantile=q, alpha=0).fit(x[own] / scale, y[own]) for q in levels]
    settings = {
        "loss": "quantile",
        "n_estimators": 100,
        "max_depth": 2,
        "learning_rate": 0.05,
        "random_state": 0,
    }
    trees = [GradientBoostingRegressor(alpha=q, **settings).fit(x[own], y[own]) for q in levels]
    draws = {
        "scorefield": drawn(run, "x", features[held]),
        "linear, Gaussian residuals": gaussian(x[own], y[own, None], x[held]),
        "linear quantile regression": of_quantiles(
            np.stack([fit.predict(x[held] / scale) for fit in linear], 1)
        ),
        "gradient boosting of quantiles": of_quantiles(
            np.stack([fit.predict(x[held]) for fit in trees], 1)
        ),
        "no measurements": of_quantiles(np.quantile(y[own], levels)[None].repeat(len(held), 0)),
    }
    return {name: scored(d, target[held]) for name, d in draws.items()}


def forecast(past: int = 12, ahead: int = 12, first: int = 1990) -> Rows:
    """Return the scores of forecasts of sea surface temperatures."""
    from statsmodels.datasets import elnino

    table = elnino.load_pandas().data
    series = table.iloc[:, 1:].to_numpy().astype(np.float32)
    split = 12 * (first - int(table.iloc[0, 0]))  # the month in which the held-out windows begin
    series = (series - series[: split // 12].mean(0)).ravel()
    starts = np.arange(len(series) - past - ahead + 1)
    windows = np.stack([series[k : k + past + ahead] for k in starts])
    is_own, is_held = starts + past + ahead <= split, starts + past >= split
    month = (starts + past) % 12
    turn = np.stack([np.cos(np.pi * month / 6), np.sin(np.pi * month / 6)], 1).astype(np.float32)
    given = np.concatenate([windows[:, :past], turn], 1)
    after = windows[:, past:]
    conditions = torch.as_tensor(given)
    network = {"kind": "mlp", "width": 128, "depth": 2}
    # windows overlap, so that held-out ones among them would not show that others are memorised
    settings: dict[str, Any] = {"network": network, "steps": 200, "end": "last"}
    run = sf.train(torch.as_tensor(after[is_own]), {"past": conditions[is_own]}, **settings)
    generator = np.random.default_rng(0)
    own_months = month[is_own]
    same = [
        after[is_own][generator.choice(np.flatnonzero(own_months == m), DRAWS)]
        for m in month[is_held]
    ]
    draws = {
        "scorefield": drawn(run, "past", conditions[is_held]),
        "linear, Gaussian residuals": gaussian(given[is_own], after[is_own], given[is_held]),
        "the same months of other years": torch.as_tensor(np.stack(same)),
    }
    return {name: scored(d, torch.as_tensor(after[is_held])) for name, d in draws.items()}


def psnr(x: Tensor, truth: Tensor) -> float:
    """Return the mean PSNR in dB of images from -1 to 1."""
    error = (x.clamp(-1, 1) - truth).square().flatten(1).mean(1)
    return float((10 * (4 / error).log10()).mean())


def superresolution(steps: int = 400) -> Rows:
    """Return the scores of digits at twice the resolution."""
    x = sf.read("digits").x
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, own = x[order[: len(x) // 5]][:60], x[order[len(x) // 5 :]]
    low = torch.nn.functional.avg_pool2d(own, 2), torch.nn.functional.avg_pool2d(held, 2)
    run = sf.train(own, {"low": low[0]}, steps=steps)
    draws = drawn(run, "low", low[1], DRAWS_OF_IMAGES)
    bicubic, nearest = (
        torch.nn.functional.interpolate(low[1], scale_factor=2, mode=mode)
        for mode in ("bicubic", "nearest")
    )
    own_low = torch.nn.functional.avg_pool2d(draws[:, 0], 2)
    rows: Rows = {
        "scorefield": {
            **scored(draws, held),
            "psnr of the mean": psnr(draws.mean(1), held),
            "psnr of a draw": psnr(draws[:, 0], held),
            "deviation of a draw's means from the given": float((own_low - low[1]).std()),
        }
    }
    for name, guess in (("bicubic", bicubic), ("nearest", nearest)):
        error = float((guess - held).abs().mean())
        rows[name] = {"crps": error, "psnr of the mean": psnr(guess, held)}
    return rows


TASKS = {"regression": regression, "forecast": forecast, "superresolution": superresolution}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[*TASKS])
    torch.set_num_threads(1)
    for name in parser.parse_args().tasks:
        began = time.process_time()
        rows = TASKS[name]()
        for method, row in rows.items():
            print(f"{name}, {method}: {json.dumps(row)}", flush=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results |= {"machine": machine_facts(), name: rows}
        results[name]["cpu_seconds"] = {"all": time.process_time() - began}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
