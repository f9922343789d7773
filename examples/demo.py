"""Train on handwritten digits, fit plans, compare them, tell likelihoods, go between digits.

Everything is written to the folder given as the only argument:

    run/              the trained field: weights, configuration and log; its plans, and what they
                      and other solvers are worth, frontier.json and frontier.png
    report.html       all there is to see of it, to open in a browser
    samples.png       digits drawn from it
    strips.png        the way from one held-out digit to another, by their latent codes
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
from rich.console import Console
from scorefield.cli.commands import track
from scorefield.cli.comparing import compare
from scorefield.cli.tuning import tune

import scorefield as sf
from scorefield.cli.options import CompareOptions, ItemOptions, TuneOptions
from scorefield.data import digits, read, toy
from scorefield.report import image_grid, trajectories, write_report
from scorefield.runs.run import Run
from scorefield.runs.trainer import Training
from scorefield.training.config import OptimConfig, TrainConfig
from scorefield.training.log import NAME, Log

STEPS, LOG_EVERY = 1200, 25
LEVELS = 17  # of the digits' values, 0 to 16
BRIGHTEST = LEVELS - 1
HELD_OUT = 128  # digits whose likelihood is told
TUNING = TuneOptions(noises=64, tries=60)
COMPARING = CompareOptions(
    nfe=("5,8,20",), solvers=("default", "tuned", "ddim", "heun", "euler-maruyama")
)


def train(console: Console, folder: Path) -> Run:
    """Train on the digits' training split and save the run."""
    config = TrainConfig(levels=LEVELS, optim=OptimConfig(steps=STEPS, lr=2e-3))
    training, log = Training(read("digits"), config), Log(folder.with_name(NAME))
    for done in track(console, training, STEPS, "training", lambda: f"loss {training.loss:.3f}"):
        if done.step % LOG_EVERY == 0:
            log.add("train", done.step, {"loss": training.loss})
    training.run.save(folder, {NAME: log.path})
    log.path.unlink()
    return training.run


def likelihood(console: Console, run: Run) -> dict[str, float]:
    """Print the bits per dimension of held-out digits with its standard error, and of noise."""
    x = digits("test")[0][:HELD_OUT]
    order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(1)[:, order].reshape(x.shape)
    told: dict[str, float] = {}
    for name, items in (("held-out digits", x), ("the same with shuffled pixels", shuffled)):
        found = run.log_prob(items, nfe=28, probes=4, batch_size=HELD_OUT)
        bits = found.bits_per_dim(x[0].numel())
        mean, error = float(bits.mean()), float(bits.std()) / math.sqrt(len(bits))
        console.print(f"{name}: {mean:.3f} ± {error:.3f} bits per dimension")
        told |= {name: mean, f"{name}, standard error": error}
    console.print(f"whole numbers from 0 to {BRIGHTEST} at random: {math.log2(LEVELS):.3f}")
    return told


def between(console: Console, run: Run, path: Path) -> None:
    """Draw the ways between pairs of held-out digits, and tell how well their codes lead back."""
    x = digits("test")[0]
    strips = run.interpolate(x[:6], x[6:12], points=13, batch_size=12)
    image_grid(strips.x.flatten(0, 1), path, columns=13, value_range=(0, BRIGHTEST))
    worst = float(strips.error.max())
    console.print(f"latent codes of 12 digits: a round trip changes at most {worst:.1e} of them")


def two_moons() -> sf.Mixture:
    """Return the exact field of two moons: a narrow Gaussian on each of 200 points."""
    points = toy("moons", 200).double()
    points = (points - points.mean(0)) / points.std(0)
    spread = 0.01 * torch.eye(2, dtype=torch.float64).expand(200, 2, 2)
    return sf.Mixture(sf.VP(), torch.ones(200), points, spread)


def main(folder: Path) -> None:
    """Run the whole demonstration."""
    console, began = Console(highlight=False), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    run = train(console, folder / "run")
    tune(console, folder / "run", (5, 8), "cpu", TUNING)
    compare(console, folder / "run", "digits-test", COMPARING, ItemOptions(batch_size=250))
    told = {"bits per dimension": likelihood(console, run)}
    (folder / "results.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
    image_grid(run.sample(100), folder / "samples.png", columns=20, value_range=(0, BRIGHTEST))
    between(console, run, folder / "strips.png")
    trajectories(two_moons()).save(folder / "trajectories.png")
    path = write_report(folder / "run", "digits-test", folder / "report.html", overwrite=True)
    console.print(f"done in {time.monotonic() - began:.0f} s; the pictures are in {folder}/")
    console.print(f"open in a browser: {path}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/demo.py FOLDER")
    main(Path(sys.argv[1]))
