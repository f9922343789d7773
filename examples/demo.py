"""Train on handwritten digits, tune plans, compare them, compute likelihoods, interpolate.

Everything is written to the folder given as the only argument:

    run/              the trained field: weights, configuration and log; tuned plans; the comparison
                      of plans and solvers, frontier.json and frontier.png
    report.html       the report of the run, to open in a browser
    samples.png       generated digits
    strips.png        interpolations between held-out digits, by their latent codes
    trajectories.png  the same noise through the SDE and the ODE, on a two-dimensional set
    results.json      bits per dimension
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import torch

import scorefield as sf
from scorefield.report import frontier_chart, image_grid, trajectories

STEPS, LOG_EVERY = 1200, 25
LEVELS = 17  # of the digits' values, 0 to 16
BRIGHTEST = LEVELS - 1
HELD_OUT = 128  # digits whose likelihood is computed
TUNED, BUDGETS = (5, 8), (5, 8, 20)  # network calls


def train(folder: Path) -> sf.Run:
    """Train on the digits' training split and save the run with its log."""
    # no digits are held out, because digits-test is in no part of the training
    config = sf.TrainConfig(levels=LEVELS, held_out=0, optim=sf.OptimConfig(steps=STEPS, lr=2e-3))
    training, log = sf.Training(sf.read("digits"), config), folder.with_name("log.jsonl")
    with log.open("w", encoding="utf-8") as file:
        for progress in training:
            if progress.step % LOG_EVERY == 0:
                record = {"event": "train", "step": progress.step, "loss": training.loss}
                file.write(json.dumps(record) + "\n")
            if progress.step % (STEPS // 10) == 0:
                print(f"step {progress.step} of {STEPS}: loss {training.loss:.3f}", flush=True)
    run = training.run
    run.save(folder, {log.name: log})
    log.unlink()
    return run


def compare(run: sf.Run, path: Path) -> None:
    """Tune plans, and compare them with other plans and solvers on held-out digits."""
    for nfe, plan in run.tune(TUNED, noises=64, tries=60).items():
        assert plan.tuning is not None
        print(
            f"tuned, {nfe} calls: error {plan.tuning.error:.3g}, default {plan.tuning.default:.3g}"
        )
    field, plans = run.field, {"tuned": list(run.plans.values())}
    plans["default"] = [sf.default_plan(field, nfe) for nfe in BUDGETS]
    for solver in (sf.DDIM(), sf.Heun(), sf.EulerMaruyama()):
        steps = [(nfe - 1) // solver.calls for nfe in BUDGETS]  # one call ends the sample
        plans[type(solver).__name__] = [
            sf.Plan(solver, sf.balanced(field.process, n, data_std=field.data_std)) for n in steps
        ]
    frontier = run.compare("digits-test", plans, batch_size=250)
    for point in frontier.points:
        error = "-" if point.error is None else f"{point.error.value:.3f}"
        print(f"{point.name}: {point.nfe:g} calls, {point.milliseconds:.2f} ms, error {error}")
    frontier_chart(frontier).save(path)


def likelihood(run: sf.Run) -> dict[str, float]:
    """Return the bits per dimension of held-out digits, and with shuffled pixels."""
    x = sf.read("digits-test").x[:HELD_OUT]
    order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(1)[:, order].reshape(x.shape)
    result: dict[str, float] = {}
    for name, items in (("held-out digits", x), ("the same with shuffled pixels", shuffled)):
        estimate = run.log_prob(items, nfe=28, probes=4, batch_size=HELD_OUT)
        bits = estimate.bits_per_dim(x[0].numel())
        mean, error = float(bits.mean()), float(bits.std()) / math.sqrt(len(bits))
        print(f"{name}: {mean:.3f} ± {error:.3f} bits per dimension")
        result |= {name: mean, f"{name}, standard error": error}
    print(f"uniform whole numbers from 0 to {BRIGHTEST}: {math.log2(LEVELS):.3f}")
    return result


def interpolate(run: sf.Run, path: Path) -> None:
    """Draw interpolations between pairs of held-out digits, and print the error of the codes."""
    x = sf.read("digits-test").x[:12]
    strips = run.interpolate(x[:6], x[6:], points=13, batch_size=12)
    image_grid(strips.x.flatten(0, 1), path, columns=13, value_range=(0, BRIGHTEST))
    worst = float(strips.error.max())
    print(f"latent codes of 12 digits: a round trip changes them by {worst:.1e} at most")


def two_moons() -> sf.Mixture:
    """Return the exact field of two moons: a narrow Gaussian on each of 200 points."""
    points = sf.read("moons").x[:200].double()
    points = (points - points.mean(0)) / points.std(0)
    spread = 0.01 * torch.eye(2, dtype=torch.float64).expand(200, 2, 2)
    return sf.Mixture(sf.VP(), torch.ones(200), points, spread)


def main(folder: Path) -> None:
    """Run the whole demonstration."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    run = train(folder / "run")
    compare(run, folder / "run" / "frontier.png")
    bits = {"bits per dimension": likelihood(run)}
    (folder / "results.json").write_text(json.dumps(bits, indent=2), encoding="utf-8")
    image_grid(run.sample(100), folder / "samples.png", columns=20, value_range=(0, BRIGHTEST))
    interpolate(run, folder / "strips.png")
    trajectories(two_moons()).save(folder / "trajectories.png")
    path = sf.write_report(folder / "run", "digits-test", folder / "report.html", overwrite=True)
    print(f"done in {time.monotonic() - began:.0f} s; the pictures are in {folder}/")
    print(f"open in a browser: {path}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/demo.py FOLDER")
    main(Path(sys.argv[1]))
