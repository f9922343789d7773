"""Train on handwritten digits, sample, tell the likelihood of held-out digits, go between them.

Everything is written to the folder given as the only argument:

    run/              the trained field: weights, configuration and log
    report.html       all there is to see of it, to open in a browser
    samples.png       digits drawn from it
    strips.png        the way from one held-out digit to another, by their latent codes
    trajectories.png  the same noise through the SDE and the ODE, on a two-dimensional set
    quality.png       distance to held-out data against network calls
    results.json      the numbers
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import scorefield as sf
from scorefield.cli.commands import track
from scorefield.config import OptimConfig, TrainConfig
from scorefield.data import digits, read, toy
from scorefield.metrics import energy_distance, sliced_wasserstein
from scorefield.report import image_grid, quality_against_calls, report, trajectories
from scorefield.training import Run, Training
from scorefield.training.log import NAME, Log

STEPS, LOG_EVERY = 1200, 25
SAMPLES = 1000
LEVELS = 17  # of the digits' values, 0 to 16
BRIGHTEST = LEVELS - 1
HELD_OUT = 128  # digits whose likelihood is told

# each solver with the numbers of steps to try; one more call finishes every run
SOLVERS: dict[str, tuple[sf.Solver, tuple[int, ...]]] = {
    "Euler-Maruyama": (sf.EulerMaruyama(), (9, 19, 49)),
    "DDIM": (sf.DDIM(), (4, 9, 19, 49)),
    "Heun": (sf.Heun(), (4, 9, 19)),
}
PLANS = (5, 10, 20)  # calls of the general plan


def plans(field: sf.ScoreField) -> Iterator[tuple[str, sf.Plan]]:
    """Yield what to compare, by name."""
    for name, (solver, counts) in SOLVERS.items():
        for steps in counts:
            yield name, sf.Plan(solver, sf.balanced(field.process, steps))
    for nfe in PLANS:
        yield "general plan", sf.default_plan(field, nfe)


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


def compare(console: Console, run: Run) -> tuple[list[dict[str, object]], float]:
    """Return a row for every solver and number of steps, and the real-to-real floor."""
    real, held_out = (digits(split)[0] / BRIGHTEST for split in ("train", "test"))
    real = real[:SAMPLES]
    floor = sliced_wasserstein(real, held_out)
    rows: list[dict[str, object]] = [
        {
            "solver": "real data",
            "nfe": 0,
            "sliced_wasserstein": floor,
            "energy_distance": energy_distance(real, held_out),
            "ms_per_sample": 0.0,
        }
    ]
    tried = list(plans(run.field))
    for name, plan in track(console, tried, len(tried), "sampling"):
        began = time.monotonic()
        with sf.count_calls(run.field) as calls:
            x = run.sample(SAMPLES, plan, tile=250) / BRIGHTEST
        row = {
            "solver": name,
            "nfe": calls.count // (SAMPLES // 250),
            "sliced_wasserstein": sliced_wasserstein(x, held_out),
            "energy_distance": energy_distance(x, held_out),
            "ms_per_sample": 1e3 * (time.monotonic() - began) / SAMPLES,
        }
        rows.append(row)
    return rows, floor


def show(console: Console, rows: list[dict[str, object]]) -> None:
    """Print the table."""
    table = Table(title=f"{SAMPLES} samples against 500 held-out digits (pixels from 0 to 1)")
    for column in ("solver", "NFE", "sliced Wasserstein", "energy distance", "ms per sample"):
        table.add_column(column, justify="left" if column == "solver" else "right")
    for row in rows:
        table.add_row(
            str(row["solver"]),
            str(row["nfe"]),
            f"{row['sliced_wasserstein']:.4f}",
            f"{row['energy_distance']:.4f}",
            f"{row['ms_per_sample']:.2f}",
        )
    console.print(table)


def likelihood(console: Console, run: Run) -> dict[str, float]:
    """Print the bits per dimension of held-out digits with its standard error, and of noise."""
    x = digits("test")[0][:HELD_OUT]
    order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(1)[:, order].reshape(x.shape)
    told: dict[str, float] = {}
    for name, items in (("held-out digits", x), ("the same with shuffled pixels", shuffled)):
        found = run.log_prob(items, nfe=28, probes=4, tile=HELD_OUT)
        bits = found.bits_per_dim(x[0].numel())
        mean, error = float(bits.mean()), float(bits.std()) / math.sqrt(len(bits))
        console.print(f"{name}: {mean:.3f} ± {error:.3f} bits per dimension")
        told |= {name: mean, f"{name}, standard error": error}
    console.print(f"whole numbers from 0 to {BRIGHTEST} at random: {math.log2(LEVELS):.3f}")
    return told


def between(console: Console, run: Run, path: Path) -> None:
    """Draw the ways between pairs of held-out digits, and tell how well their codes lead back."""
    x = digits("test")[0]
    strips = run.interpolate(x[:6], x[6:12], points=13, tile=12)
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
    rows, floor = compare(console, run)
    show(console, rows)
    told = {"samples": rows, "bits per dimension": likelihood(console, run)}
    (folder / "results.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
    image_grid(run.sample(100), folder / "samples.png", columns=20, value_range=(0, BRIGHTEST))
    between(console, run, folder / "strips.png")
    trajectories(two_moons(), folder / "trajectories.png")
    curves = {
        name: [
            (int(str(r["nfe"])), float(str(r["sliced_wasserstein"])))
            for r in rows
            if r["solver"] == name
        ]
        for name in (*SOLVERS, "general plan")
    }
    metric = "sliced Wasserstein distance to held-out digits"
    quality_against_calls(curves, folder / "quality.png", floor=floor, metric=metric)
    # what lies in the run folder by now is in the report as well: tuned plans, a measured frontier
    path = report(folder / "run", folder / "report.html", data="digits-test", overwrite=True)
    console.print(f"done in {time.monotonic() - began:.0f} s; the pictures are in {folder}/")
    console.print(f"open in a browser: {path}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/demo.py FOLDER")
    main(Path(sys.argv[1]))
