"""Inpainting of digits and imputation of a table, against filling by means and by neighbours.

    python benchmarks/inverse.py                     about twenty minutes on one core
    python benchmarks/inverse.py --penguins CSV      with the table of the Palmer penguins as well
    python benchmarks/inverse.py --digits-run DIR    with a run of the digits instead of training
    python benchmarks/inverse.py --items 60 --methods mmps    fewer digits, one method

*Digits.* 200 held-out digits, of which the lower half or a random half of the pixels is hidden, or
which are known as means over blocks of 2 x 2. The error is the root mean square over what is to be
found, in deviations of the training pixels, with its standard error over the items: of one sample,
and of the mean of 8. "Spread" is the root mean square difference of two samples over that of a
sample and the truth: 1 where samples are as uncertain as they are wrong. The energy score is the
mean distance of samples to the truth less half of that between samples, for each item: the less,
the nearer their distribution is to the truth's, and narrow samples do not lower it.

*Penguins.* The 344 rows of Horst, Hill and Gorman (2020), as the PyPI package ``palmerpenguins``
has them; 274 to train on, and of the complete ones of the rest each cell is hidden with probability
0.3, five times over. The error is that of the hidden numbers, in deviations of their columns, of
one sample and of the mean of 16, with its standard error over the rows; and the share of the hidden
texts that a sample, or the most of 16, has right.

Filling is by the mean of the training data (the commonest text), and by the items of it that are
nearest in what is known: the nearest, and the mean of 10. For blocks it is by the block's value.

Writes results/inverse.json beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import facts
from torch import Tensor

import scorefield as sf
from scorefield.data import digits, read
from scorefield.training.config import OptimConfig, TrainConfig, UNetConfig

ITEMS, DRAWS, NEIGHBOURS = 200, 8, 10
HIDDEN, PATTERNS, ROW_DRAWS, TRAINED = 0.3, 5, 16, 274
METHODS: dict[str, dict] = {
    "mmps": {},
    "pigdm": {},
    "dps": {"zeta": 3.0},
    "replacement": {},
    "repaint": {"repeats": 10},
}
DEFAULT, FIRST_ORDER = "mmps, default plan", "mmps, DDIM(1)"


def rms(squares: Tensor, hidden: Tensor) -> dict[str, float]:
    """Return the root of the mean over items of their mean squares, and its standard error."""
    count = hidden.flatten(1).sum(1)
    each = ((squares * hidden).flatten(1).sum(1) / count)[count > 0].double()
    value = float(each.mean().sqrt())
    return {"rmse": value, "stderr": float(each.std() / len(each) ** 0.5) / (2 * value)}


def judged(made: Tensor, truth: Tensor, hidden: Tensor, std: Tensor) -> dict:
    """Return the errors of samples ``(N, n, ...)`` and of their mean."""
    one = ((made[:, 0] - truth) / std) ** 2
    mean = ((made.mean(1) - truth) / std) ** 2
    between = rms(((made[:, 0] - made[:, 1]) / std) ** 2, hidden)["rmse"]
    first = rms(one, hidden)
    errors = {"one": first, "mean": rms(mean, hidden), "spread": between / first["rmse"]}
    return {**errors, "energy": energy_score(made, truth, hidden, std)}


def energy_score(made: Tensor, truth: Tensor, hidden: Tensor, std: Tensor) -> float:
    """Return the mean energy score of the samples of items, relative to the hidden dimensions."""
    x, y = ((v / std * hidden[:, None]).flatten(2) for v in (made, truth[:, None]))
    count = made.shape[1]
    between = torch.cdist(x, x).sum((1, 2)) / (count * (count - 1))
    score = (x - y).norm(dim=2).mean(1) - between / 2
    return float((score / hidden.flatten(1).sum(1).sqrt()).mean())


def nearest(known: Tensor, train: Tensor, hidden: Tensor, count: int) -> Tensor:
    """Return for each item the mean of the training items nearest in what is not hidden."""
    there = (~hidden).flatten(1).float()
    a, b = known.flatten(1).nan_to_num() * there, train.flatten(1)
    distance = (a**2).sum(1, keepdim=True) - 2 * a @ b.T + there @ (b**2).T
    return train[distance.topk(count, largest=False).indices].mean(1)


def digit_tasks(x: Tensor) -> dict[str, tuple[Tensor, Tensor, sf.Downsample | None]]:
    """Return for each task what was measured, what is hidden, and by what operator."""
    lower = torch.zeros_like(x, dtype=torch.bool)
    lower[:, :, 4:] = True
    some = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    blocks = sf.Downsample(2)
    return {
        "lower half": (torch.where(lower, torch.nan, x), lower, None),
        "random half": (torch.where(some, torch.nan, x), some, None),
        "blocks of 2 x 2": (blocks.forward(x), torch.ones_like(lower), blocks),
    }


def of_digits(run: sf.Run, items: int, methods: Sequence[str]) -> list[dict]:
    """Return the errors of methods on all tasks with digits."""
    (train, _), (x, _) = digits("train"), digits("test")
    x, std, rows = x[:items], run.transform.std, []
    for task, (measured, hidden, operator) in digit_tasks(x).items():
        if operator is None:
            fillings = {
                "mean": train.mean(0).expand_as(x),
                "nearest": nearest(measured, train, hidden, 1),
                f"nearest {NEIGHBOURS}": nearest(measured, train, hidden, NEIGHBOURS),
            }
        else:
            fillings = {"the block's value": 4 * operator.adjoint(measured, tuple(x.shape[1:]))}
        for name, filled in fillings.items():
            error = rms(((filled - x) / std) ** 2, hidden)
            rows.append(told({"task": task, "method": name, "one": error}))
        field = run.field
        times = sf.balanced(field.process, 19, data_std=field.data_std)
        plans = {DEFAULT: sf.default_plan(field), FIRST_ORDER: sf.Plan(sf.DDIM(1.0), times)}
        chosen = {name: METHODS[name] for name in methods}
        for name, settings in {**chosen, DEFAULT: {}, FIRST_ORDER: {}}.items():
            if operator is not None and name in ("replacement", "repaint"):
                continue
            settings = {"method": name.split(",")[0], "solver": plans.get(name), **settings}
            began = time.monotonic()
            made = run.restore(measured, operator, n=DRAWS, **settings)
            seconds = (time.monotonic() - began) / (items * DRAWS)
            row = {"task": task, "method": name, **judged(made, x, hidden, std)}
            rows.append(told({**row, "milliseconds": 1e3 * seconds}))
    return rows


def table_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the penguins in a fixed order."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    order = np.random.default_rng(0).permutation(len(rows))
    return header, [rows[k] for k in order]


def of_penguins(path: Path, methods: Sequence[str]) -> list[dict]:
    """Train on most of the penguins, and return the errors of imputation on the rest."""
    header, rows = table_rows(path)
    with tempfile.TemporaryDirectory() as folder:

        def written(name: str, some: list[list[str]]) -> Path:
            with (Path(folder) / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *some])
            return Path(folder) / name

        data = read(written("train.csv", rows[:TRAINED]))
        run = sf.train(data, config=TrainConfig(optim=OptimConfig(steps=3000)))
        rest = [row for row in rows[TRAINED:] if "NA" not in row]
        held = read(written("rest.csv", rest), learn=False, like=run.config.data)
    truth = held.x[torch.arange(len(rest))].repeat_interleave(PATTERNS, 0)
    train = data.x[torch.arange(TRAINED)]
    hidden = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < HIDDEN
    kinds = run.config.data.columns.kinds
    text = torch.tensor([column.kind == "category" for column in kinds])
    mean, std = train.nanmean(0), (train - train.nanmean(0)).square().nanmean(0).sqrt()
    usual = torch.stack([c[~c.isnan()].mode().values for c in train.T])
    mean, std = torch.where(text, usual, mean), torch.where(text, 1.0, std)
    filled = neighbours(train, truth, hidden, text, std)
    found: dict[str, Callable[[], Tensor]] = {
        "mean": lambda: mean.expand_as(truth)[:, None],
        "nearest": lambda: filled[:, :1],
        f"nearest {NEIGHBOURS}": lambda: filled,
    }
    measured = torch.where(hidden, torch.nan, truth)
    field = run.field
    times = sf.balanced(field.process, 19, data_std=field.data_std)
    first_order = {"solver": sf.Plan(sf.DDIM(1.0), times)}
    for name, settings in {**{k: METHODS[k] for k in methods}, FIRST_ORDER: first_order}.items():
        found[name] = lambda name=name, settings=settings: run.restore(
            measured, n=ROW_DRAWS, method=name.split(",")[0], **settings
        )
    return [
        told({"task": "penguins", "method": name, **told_of(make(), truth, hidden, text, std)})
        for name, make in found.items()
    ]


def told_of(made: Tensor, truth: Tensor, hidden: Tensor, text: Tensor, std: Tensor) -> dict:
    """Return the errors of numbers and the shares of texts that are right, of ``(N, n, D)``."""
    of_numbers, of_texts = hidden & ~text, hidden & text
    found = {"one": rms(*by_row(((made[:, 0] - truth) / std) ** 2, of_numbers))}
    right = (made[:, 0] == truth)[of_texts].float()
    found["texts"] = {"one": float(right.mean()), "count": len(right)}
    if made.shape[1] > 1:
        found["mean"] = rms(*by_row(((made.nanmean(1) - truth) / std) ** 2, of_numbers))
        found["texts"]["most"] = float((made.mode(1).values == truth)[of_texts].float().mean())
    return found


def by_row(*values: Tensor) -> list[Tensor]:
    """Return values with all patterns of a row side by side, since rows are what is independent."""
    return [v.reshape(-1, PATTERNS * v.shape[1]) for v in values]


def neighbours(train: Tensor, truth: Tensor, hidden: Tensor, text: Tensor, std: Tensor) -> Tensor:
    """Return the complete training rows nearest in what is not hidden; texts are 0 or 1 apart."""
    rows = train[~train.isnan().any(1)]
    apart = (rows[None] - truth[:, None]) / std
    apart = torch.where(text, (apart != 0).float(), apart) ** 2
    distance = (apart * ~hidden[:, None]).sum(2)
    return rows[distance.topk(NEIGHBOURS, largest=False).indices]


def told(row: dict) -> dict:
    """Print a row, and return it."""
    parts = [f"{row['task']:15s} {row['method']:20s}"]
    errors = [k for k in ("one", "mean") if k in row]
    parts += [f"{k} {row[k]['rmse']:.3f} ± {row[k]['stderr']:.3f}" for k in errors]
    parts += [f"{k} {row[k]:.3f}" for k in ("spread", "energy", "milliseconds") if k in row]
    parts += [f"{k} {v:.3g}" for k, v in row.get("texts", {}).items()]
    print(", ".join(parts), flush=True)
    return row


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--penguins", type=Path, help="the table, penguins.csv")
    parser.add_argument("--items", type=int, default=ITEMS, help="digits to restore")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--digits-run", help="folder of a run of the digits")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.digits_run:
        run = sf.load(options.digits_run)
    else:
        optim = OptimConfig(steps=1200, lr=2e-3)
        config = TrainConfig(network=UNetConfig(width=16), optim=optim)
        run = sf.train(read("digits"), config=config)
    rows = of_digits(run, options.items, options.methods)
    if options.penguins:
        rows += of_penguins(options.penguins, options.methods)
    options.out.mkdir(parents=True, exist_ok=True)
    written = {"machine": facts(), "rows": rows}
    (options.out / "inverse.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
