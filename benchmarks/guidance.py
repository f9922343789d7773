"""What guidance does to class-conditional digits: accuracy against scale, beside sample quality.

    python benchmarks/guidance.py            about five minutes on one core
    python benchmarks/guidance.py --run DIR  with a conditional run of the digits

A support-vector classifier that learned from the training digits, and sees no network, tells
whether a sample is of the class that was asked for: 50 samples of each class, by the default plan
of 20 calls, from the same noises at every scale. Beside is the sliced Wasserstein distance of all
to held-out digits, which have the classes in nearly equal shares, and the deviation of samples from
the mean of their class over that of held-out digits.

Writes results/guidance.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import facts
from sklearn.svm import SVC
from torch import Tensor

import scorefield as sf
from scorefield.data import digits, read
from scorefield.evaluate.metrics import SlicedWasserstein, compare
from scorefield.training.config import OptimConfig, TrainConfig, UNetConfig

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
EACH = 50
CALLS = 20


def trained() -> sf.Run:
    """Return a small conditional U-Net of the digits."""
    optim = OptimConfig(steps=1200, lr=2e-3)
    config = TrainConfig(conditional=True, network=UNetConfig(width=16), optim=optim)
    return sf.train(read("digits"), config=config)


def spread(x: Tensor, y: Tensor) -> float:
    """Return the root mean square deviation of samples from the mean of their class."""
    parts = [x[y == k].flatten(1) for k in range(10)]
    variance = [(part - part.mean(0)).square().mean() for part in parts]
    return float(torch.stack(variance).mean().sqrt())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="folder of a conditional run of the digits")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    run = sf.load(options.run) if options.run else trained()
    (x, y), (real, real_y) = digits("train"), digits("test")
    judge = SVC(gamma="scale").fit(x.flatten(1).numpy(), y.numpy())
    known = float(judge.score(real.flatten(1).numpy(), real_y.numpy()))
    print(f"the classifier is right about {known:.3f} of {len(real)} held-out digits")
    asked, rows = torch.arange(10).repeat_interleave(EACH), []
    for scale in SCALES:
        guided = run.guided(scale)
        plan = sf.default_plan(run.field, CALLS)
        made = torch.cat(
            [
                guided.sample(range(k * EACH, (k + 1) * EACH), plan, given=k, batch_size=EACH)
                for k in range(10)
            ]
        )
        right = judge.predict(made.flatten(1).numpy()) == asked.numpy()
        told = compare(
            run.transform.forward(made.float()),
            run.transform.forward(real.float()),
            other=run.transform.forward(x.float()),
            metrics=[SlicedWasserstein()],
        )
        (name,) = told.values
        distance = told.values[name]
        rows.append(
            {
                "scale": scale,
                "accuracy": float(right.mean()),
                "stderr": float(right.std() / len(right) ** 0.5),
                "sliced_wasserstein": distance.value,
                "low": distance.low,
                "high": distance.high,
                "floor": told.floors[name].value,
                "spread": spread(made, asked) / spread(real, real_y),
            }
        )
        print(
            f"scale {scale:3g}: accuracy {rows[-1]['accuracy']:.3f} ± {rows[-1]['stderr']:.3f}, "
            f"sliced Wasserstein {distance.value:.3f} ({distance.low:.3f} to {distance.high:.3f}), "
            f"floor {rows[-1]['floor']:.3f}, spread {rows[-1]['spread']:.2f}",
            flush=True,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    written = {"machine": facts(), "classifier": known, "rows": rows}
    (options.out / "guidance.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
