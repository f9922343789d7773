"""Tuned plans against the best of diffusers in hindsight, at 4 to 20 calls.

    python benchmarks/plans.py            all parts, about half an hour on two cores
    python benchmarks/plans.py --quick    about three minutes, and less sure
    python benchmarks/plans.py --run DIR  with a run of the digits instead of training one

The problems, the peers and the error are those of ``benchmarks/solvers.py``: every sample is
compared with the end of the exact path from its own noise. The best peer at a number of calls is
chosen with knowledge of the answer, among all of diffusers' schedulers, their settings, grids and
ends. The least median, root mean square and worst percentile of any peer are beside, of its setting
of least mean. A tuned plan is fitted to other noise than it is judged by, and knows no answer.

Beside: what plans make of five more seeds, the time that fitting took, and, for the network of
the digits, the sliced Wasserstein distance to held-out digits of 8 calls by a plan and of 1,000
steps of ancestral DDPM.

Writes results/plans.json and results/plans.png beside this file, and exits with 1 if a target is
missed: on the mixtures half of the best peer's mean error at 4 and 5 calls and a third from 6 on;
on the network half from 5 to 10 calls and two thirds above.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import solvers as peers
import torch
from machine import facts
from torch import Tensor

import scorefield as sf
from scorefield.data import read
from scorefield.evaluate.metrics import SlicedWasserstein, compare
from scorefield.report import Figure, Series
from scorefield.report.style import BLUE, INK, ORANGE
from scorefield.tuning.noises import distances, draw
from scorefield.tuning.teacher import ends

CALLS = (4, 5, 6, 8, 10, 15, 20)
QUICK = (5, 8, 15)
PROBLEMS = ("ring2", "digits64", "narrow8", "network", "moons2", "mixture16")
SAMPLES = {"ring2": 512, "moons2": 512, "narrow8": 512, "digits64": 512, "mixture16": 512}
SEEDS = range(101, 106)
POLISH = 30  # rounds
FEATURES = ("mean", "median", "rms", "p99")


def target(name: str, calls: int) -> float | None:
    """Return what part of the best peer's mean error a plan should leave at the most."""
    if name in ("ring2", "digits64", "narrow8"):
        return 1 / 2 if calls < 6 else 1 / 3
    if name == "network" and calls >= 5:
        return 1 / 2 if calls <= 10 else 2 / 3
    return None


def tuned(made: peers.Problem, counts: tuple[int, ...]) -> dict:
    """Fit a plan for every number of calls, without and with a polish, and measure each."""
    field, count = made.field.under(sf.VP()), len(made.x)
    others = [draw(field, min(count, 256), {}, seed, 64) for seed in SEEDS]
    truths = [ends(noises, 384) for noises in others]
    began = time.monotonic()
    tuner, rows = sf.Tuner(field), {}
    for calls in counts:
        tried: dict[tuple[float, ...], float] = {}
        plan = tuner.tune(calls, tried=tried)
        seconds, began = time.monotonic() - began, time.monotonic()
        polished = tuner.tune(calls, tried=tried, polish=POLISH)
        more, began = time.monotonic() - began, time.monotonic()
        rows[calls] = {
            **peers.summary(made.errors(ends_of(field, plan, count))),
            "polished": float(made.errors(ends_of(field, polished, count)).mean()),
            "seconds": seconds,
            "polish_seconds": more,
            "said": plan.tuning.error,
            "said_stderr": plan.tuning.stderr,
            "default": plan.tuning.default,
            "fresh": [
                float(distances(noises.carried(plan), truth).mean())
                for noises, truth in zip(others, truths, strict=True)
            ],
        }
    return rows


def ends_of(field: sf.ScoreField, plan: sf.Plan, count: int) -> Tensor:
    """Return the samples that a plan makes of the noises that all are judged by."""
    with sf.count_calls(field) as counted:
        x = sf.sample(field, count, plan, seed=peers.SEED, batch_size=count, dtype=torch.float64)
    assert plan.tuning is not None
    assert counted.count == plan.tuning.nfe
    return x


def solve(name: str, counts: tuple[int, ...], samples: int, few: int, folder: str | None) -> dict:
    """Return everything measured on one problem."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    made = peers.problem(name, samples, folder)
    found = peers.theirs(made, counts, few)
    best = {
        calls: {
            feature: min((rows[calls][feature], peer) for peer, rows in found.items())
            for feature in FEATURES
        }
        for calls in counts
    }
    return {
        "problem": name,
        "dimension": made.end[0].numel(),
        "samples": samples,
        "reference": made.checks,
        "best_peer": best,
        "tuned": tuned(made, counts),
    }


def held_out(folder: str, quick: bool) -> dict:
    """Compare 8 calls by a plan with 1,000 steps of DDPM, by the distance to held-out digits."""
    torch.set_num_threads(1)
    run = sf.load(folder)
    real = read("digits-test").x
    other = read("digits").x
    count = 256 if quick else len(real)
    plan = sf.tune(run.field, 8)
    steps = 100 if quick else 1000
    long = sf.Plan(sf.DDPM(), sf.uniform(run.field.process, steps - 1))  # the denoiser is the last

    def measured(x: Tensor) -> dict:
        found = compare(
            run.transform.forward(x.float()),
            run.transform.forward(real.float()),
            other=run.transform.forward(other.float()),
            metrics=[SlicedWasserstein()],
        )
        (name,) = found.values
        value, floor = found.values[name], found.floors[name]
        return {"value": value.value, "low": value.low, "high": value.high, "floor": floor.value}

    rows = {"plan of 8 calls": plan, f"DDPM, {steps} steps": long}
    found = {name: measured(run.sample(count, p, seed=peers.SEED)) for name, p in rows.items()}
    found["default plan of 8 calls"] = measured(
        run.sample(count, sf.default_plan(run.field, 8), seed=peers.SEED)
    )
    return {"samples": count, "distances": found}


def show(result: dict, counts: tuple[int, ...]) -> list[str]:
    """Print the table of one problem and return the targets that were missed."""
    name, missed = result["problem"], []
    print(f"\n{name}: d = {result['dimension']}, {result['samples']} samples, "
          f"tuned in {sum(r['seconds'] for r in result['tuned'].values()):.0f} s")  # fmt: skip
    print(f"{'calls':28s}" + "".join(f"{n:>9d}" for n in counts))
    for feature in FEATURES:
        for title, rows in (("best peer", result["best_peer"]), ("tuned", result["tuned"])):
            of = [rows[n][feature][0] if title != "tuned" else rows[n][feature] for n in counts]
            print(f"{feature + ', ' + title:28s}" + "".join(f"{v:9.2g}" for v in of))
        ratios = [result["tuned"][n][feature] / result["best_peer"][n][feature][0] for n in counts]
        print(f"{feature + ', tuned / best peer':28s}" + "".join(f"{v:9.2f}" for v in ratios))
        if feature == "mean":
            aims = [target(name, n) for n in counts]
            print(
                f"{'target':28s}" + "".join(f"{'-' if a is None else f'{a:.2f}':>9s}" for a in aims)
            )
            missed += [
                f"{name} at {n}: {r:.2f} of {a:.2f}"
                for n, r, a in zip(counts, ratios, aims, strict=True)
                if a is not None and r > a
            ]
    polished = [result["tuned"][n]["polished"] for n in counts]
    print(f"{'mean, polished':28s}" + "".join(f"{v:9.2g}" for v in polished))
    least = [result["best_peer"][n]["mean"][0] for n in counts]
    ratios = [v / best for v, best in zip(polished, least, strict=True)]
    print(f"{'polished / best peer':28s}" + "".join(f"{v:9.2f}" for v in ratios))
    for title, value in (
        ("on five more seeds, least", min),
        ("on five more seeds, most", max),
    ):
        cells = "".join(f"{value(result['tuned'][n]['fresh']):9.2g}" for n in counts)
        print(f"{title:28s}{cells}")
    print(
        f"{'said when tuned':28s}" + "".join(f"{result['tuned'][n]['said']:9.2g}" for n in counts)
    )
    print(
        f"{'best peer':28s}"
        + "".join(f"{result['best_peer'][n]['mean'][1][:8]:>9s}" for n in counts)
    )
    return missed


def plot(results: list[dict], counts: tuple[int, ...], path: Path) -> None:
    """Draw error against calls, one chart a problem."""
    charts = []
    for result in results:
        lines = {
            "best of diffusers in hindsight": [result["best_peer"][n]["mean"][0] for n in counts],
            "default plan": [result["tuned"][n]["default"] for n in counts],
            "tuned plan": [result["tuned"][n]["mean"] for n in counts],
        }
        series = [
            Series(name, list(zip(counts, values, strict=True)), tone, titles=["" for _ in counts])
            for (name, values), tone in zip(lines.items(), (INK, ORANGE, BLUE), strict=True)
        ]
        charts.append(peers.error_chart(result["problem"], series, counts))
    Figure(charts, columns=3, title=peers.DISTANCE).save(path)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer budgets and samples")
    parser.add_argument("--run", help="folder of a run of the digits")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--workers", type=int, default=2, help="problems at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    counts, few = (QUICK, 8) if options.quick else (CALLS, 24)
    names = [n for n in PROBLEMS if n in options.only]
    folder = options.run
    if folder is None and "network" in names:
        folder = str(options.out / "digits-run")
        if not Path(folder).exists():
            print("training the network of the digits", file=sys.stderr, flush=True)
            peers.trained().save(folder)
    sizes = {n: SAMPLES.get(n, 128) // (4 if options.quick else 1) for n in names}
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        order = sorted(names, key=("network", "digits64", *peers.EXACT).index)
        jobs = {n: pool.submit(solve, n, counts, sizes[n], few, folder) for n in order}
        digits = pool.submit(held_out, folder, options.quick) if "network" in names else None
        results = [jobs[n].result() for n in names]
        distances = None if digits is None else digits.result()
    missed = [miss for result in results for miss in show(result, counts)]
    if distances is not None:
        print(f"\nsliced Wasserstein distance of {distances['samples']} samples to held-out digits")
        for name, row in distances["distances"].items():
            print(f"{name:28s}{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f}), floor "
                  f"{row['floor']:.4f}")  # fmt: skip
    written = {"machine": facts(), "calls": counts, "results": results, "held_out": distances}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "plans.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    plot(results, counts, options.out / "plans.png")
    print("\ntargets missed: " + ("; ".join(missed) or "none"))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
