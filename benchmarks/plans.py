"""Tuned plans against the best of diffusers in hindsight, at 4 to 20 calls.

    python benchmarks/plans.py            all parts, about an hour on two cores
    python benchmarks/plans.py --quick    a few minutes, and less sure
    python benchmarks/plans.py --run DIR  with a run of the digits instead of training one
    python benchmarks/plans.py --only ring2 fashion --calls 5 8 --fitted 5     a part of it

A part replaces the results of its problems, and keeps those of the others. The schedulers of
diffusers are not run again where the results have them for the same paths (``--again`` does).

The problems, the peers and the error are those of ``benchmarks/solvers.py``: every sample is
compared with the end of the exact path from its own noise. steep12 is an ill-conditioned mixture,
and fashion a network of Fashion-MNIST that is part of the repository. The best peer at a number of
calls is chosen with knowledge of the answer, among all of diffusers' schedulers, their settings,
grids and ends. The least median, root mean square and worst percentile of any peer are given too,
of its setting of least mean. A tuned plan is fitted to other noise than it is judged by, and knows
no answer. A plan begins also at that of the next smaller number of calls.

LD3, BNS and S4S are those of ``benchmarks/fitted.py``. They learn from the same noises and paths,
by as many evaluations of the field as ``tune`` needed, and are judged by the same noises.

Plans of as many rounds of two calls at once (``--parallel``) are compared twice: with the best peer
of as many calls as they have rounds, and with the best peer of as many calls.

Further: plans before their levels and steps move together, three more sets of noises, the interval
that ``tune`` reports, the time that it took, and, for the network of the digits, the sliced
Wasserstein distance to held-out digits of 8 calls by a plan and of 1,000 steps of ancestral DDPM.

Writes results/plans.json and results/plans.png beside this file, and exits with 1 if a target is
missed: from 5 to 10 calls a mean error of 1/5 of the best peer's on the mixtures and of 1/4 on the
networks, and at most that of every fitted method; from 5 to 10 rounds of several calls 1/5 of the
best peer of as many calls as rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import solvers as peers
import torch
from fitted import METHODS, fitted
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
QUICK = (5, 8)
FITTED = (5, 8)  # calls of the methods of the literature
NETWORKS = ("network", "fashion")
MIXTURES = ("ring2", "digits64", "narrow8", "moons2", "mixture16", "steep12")
PROBLEMS = (*MIXTURES, *NETWORKS)
SEEDS = range(101, 104)
FEATURES = ("mean", "median", "rms", "p99")
FASHION = str(Path(__file__).parent / "networks" / "fashion")


def target(name: str, calls: int, parallel: int = 1) -> float | None:
    """Return what part of the best peer's mean error a plan should leave at the most."""
    if not 5 <= calls <= 10:
        return None
    return 1 / 4 if name in NETWORKS and parallel == 1 else 1 / 5


class Fits(NamedTuple):
    """Measurements by calls, and of plans of rounds by the rounds."""

    rows: dict
    literature: dict
    rounds: dict


def tuned(made: peers.Problem, task: Task) -> Fits:
    """Fit a plan for every number of calls, and the methods of the literature; measure each."""
    field, count = made.field.under(sf.VP()), len(made.x)
    others = [draw(field, min(count, 256), {}, seed, 64) for seed in SEEDS]
    truths = [ends(noises) for noises in others]
    tuner, rows, literature, rounds = sf.Tuner(field), {}, {}, {}
    tuner.tune(task.counts[0], tries=1, polish=0)  # the paths, which all share
    paths = ends(tuner.learned)

    def measured(plan: sf.Plan, seconds: float, evaluations: int) -> dict:
        return {
            **peers.summary(made.errors(ends_of(field, plan, count))),
            "seconds": seconds,
            "evaluations": evaluations,
            "reported": [plan.tuning.low, plan.tuning.error, plan.tuning.high],
            "default": plan.tuning.default,
            "fresh": [
                float(distances(noises.carried(plan), truth).mean())
                for noises, truth in zip(others, truths, strict=True)
            ],
        }

    plans: dict[int, sf.Plan] = {}
    for before, calls in itertools.pairwise((0, *task.counts)):
        tried: dict[tuple[float, ...], float] = {}
        began = time.monotonic()
        plans[calls] = plan = tuner.tune(calls, tried=tried, shorter=plans.get(before))
        seconds = time.monotonic() - began
        plain = tuner.tune(calls, tried=tried, polish=0)
        evaluations = tuner.cost(calls, shorter=plans.get(before)).evaluations
        searched = float(made.errors(ends_of(field, plain, count)).mean())
        rows[calls] = {**measured(plan, seconds, evaluations), "searched": searched}
        if calls in task.compared:
            literature[calls] = learned(made, calls, tuner.learned.z, paths, evaluations)
        if task.parallel > 1:
            every = task.parallel * calls
            began = time.monotonic()  # the steps of one call are fitted already
            plan = tuner.tune(every, rounds=calls, shorter=plans.get(before))
            seconds += time.monotonic() - began
            evaluations = tuner.cost(every, rounds=calls).evaluations
            rounds[calls] = measured(plan, seconds, evaluations)
    return Fits(rows, literature, rounds)


def learned(made: peers.Problem, calls: int, z: Tensor, paths: Tensor, evaluations: int) -> dict:
    """Measure the methods of the literature, fitted to the same paths at the same cost."""
    first = sf.prior(made.field, len(made.x), 1.0, seed=peers.SEED, dtype=torch.float32).x
    spread = (made.field.variance * peers.TABLE[-1] + 1 - peers.TABLE[-1]) ** 0.5
    normal = (first - made.field.mean * peers.TABLE[-1] ** 0.5) / spread
    rows = {}
    for method in METHODS:
        began = time.monotonic()
        samples = fitted(method, made.field, calls, z.flatten(1).double(), paths, evaluations)
        x = samples(normal.flatten(1).double()).reshape(made.end.shape)
        rows[method] = {**peers.summary(made.errors(x)), "seconds": time.monotonic() - began}
    return rows


def ends_of(field: sf.ScoreField, plan: sf.Plan, count: int) -> Tensor:
    """Return the samples that a plan makes of the noises that all are judged by."""
    with sf.count_calls(field) as counted:
        x = sf.sample(field, count, plan, seed=peers.SEED, batch_size=count, dtype=torch.float64)
    assert plan.tuning is not None
    assert counted.rows == count * plan.tuning.nfe
    assert counted.count == plan.rounds
    return x


class Task(NamedTuple):
    """A problem, and how much of it to measure; ``known`` is an earlier result, or empty."""

    name: str
    counts: tuple[int, ...]
    compared: tuple[int, ...]
    parallel: int
    samples: int
    few: int
    folder: str | None
    known: dict


def solve(task: Task) -> dict:
    """Return everything measured on one problem."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name, counts = task.name, task.counts
    made = peers.problem(name, task.samples, FASHION if name == "fashion" else task.folder)
    for parameter in made.field.parameters():
        parameter.requires_grad_(False)
    fits = tuned(made, task)
    return {
        "problem": name,
        "dimension": made.end[0].numel(),
        "samples": task.samples,
        "calls": counts,
        "reference": made.checks,
        "best_peer": best_peers(made, task),
        "tuned": fits.rows,
        "literature": fits.literature,
        "parallel": task.parallel,
        "rounds": fits.rounds,
    }


def best_peers(made: peers.Problem, task: Task) -> dict:
    """Return the least of each feature among the peers; known ones of the same paths stay."""
    key = "half the steps, mean"
    before = task.known.get("reference", {}).get(key, 0.0)
    same = math.isclose(before, made.checks[key], rel_tol=1e-3)
    best = task.known["best_peer"] if same and task.known["samples"] == task.samples else {}
    every = {calls * k for calls in task.counts for k in (1, task.parallel)}
    missing = tuple(calls for calls in sorted(every) if str(calls) not in best)
    found = peers.theirs(made, missing, task.few) if missing else {}
    for calls in missing:
        best[str(calls)] = {
            feature: min((rows[calls][feature], peer) for peer, rows in found.items())
            for feature in FEATURES
        }
    return best


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


def show(result: dict) -> list[str]:
    """Print the table of one problem and return the targets that were missed."""
    name, counts, missed = result["problem"], [str(n) for n in result["calls"]], []
    rows, best, literature = result["tuned"], result["best_peer"], result["literature"]
    took = sum(row["seconds"] for row in rows.values())
    print(
        f"\n{name}: d = {result['dimension']}, {result['samples']} samples, tuned in {took:.0f} s"
    )

    def line(title: str, values: list[float | None]) -> None:
        print(f"{title:28s}" + "".join("        -" if v is None else f"{v:9.2g}" for v in values))

    print(f"{'calls':28s}" + "".join(f"{n:>9s}" for n in counts))
    for feature in FEATURES:
        ours, theirs = ([r[n][feature] for n in counts] for r in (rows, best))
        least = [value for value, _ in theirs]
        line(f"{feature}, best peer", least)
        line(f"{feature}, tuned", ours)
        line(f"{feature}, tuned / best peer", [a / b for a, b in zip(ours, least, strict=True)])
    ratios = {n: rows[n]["mean"] / best[n]["mean"][0] for n in counts}
    aims = {n: target(name, int(n)) for n in counts}
    line("target", list(aims.values()))
    missed += [f"{name} at {n}: {ratios[n]:.2f} of {a:.2f}" for n, a in aims.items()
               if a is not None and ratios[n] > a]  # fmt: skip
    line("mean, searched only", [rows[n]["searched"] for n in counts])
    line("mean, default plan", [rows[n]["default"] for n in counts])
    for title, pick in (("least", min), ("most", max)):
        line(f"mean, three more sets, {title}", [pick(rows[n]["fresh"]) for n in counts])
    for k, title in enumerate(("low", "error", "high")):
        line(f"reported, {title}", [rows[n]["reported"][k] for n in counts])
    for method in METHODS:
        for feature in ("mean", "median", "p99"):
            if literature:
                cells = [literature.get(n, {}).get(method, {}).get(feature) for n in counts]
                line(f"{feature}, {method}", cells)
        missed += [f"{name} at {n}: {method} is better" for n, found in literature.items()
                   if found[method]["mean"] < rows[n]["mean"]]  # fmt: skip
    if result["rounds"]:
        missed += show_rounds(result, line)
    peers_of = "".join(f"{best[n]['mean'][1][:8]:>9s}" for n in counts)
    print(f"{'best peer':28s}{peers_of}")
    return missed


def show_rounds(result: dict, line: Callable[[str, list[float | None]], None]) -> list[str]:
    """Print the rows of plans of rounds and return the targets that were missed."""
    name, counts, parallel = result["problem"], result["rounds"], result["parallel"]
    best, title = result["best_peer"], f"rounds of {parallel}"
    for feature in FEATURES:
        values = [row[feature] for row in counts.values()]
        line(f"{feature}, {title}", values)
        for of, k in (("rounds", 1), ("calls", parallel)):
            least = [best[str(k * int(n))][feature][0] for n in counts]
            parts = [a / b for a, b in zip(values, least, strict=True)]
            line(f"{feature} / peer, same {of}", parts)
    for which, pick in (("least", min), ("most", max)):
        line(f"three more sets, {which}", [pick(row["fresh"]) for row in counts.values()])
    shares = {n: row["mean"] / best[n]["mean"][0] for n, row in counts.items()}
    aims = {n: target(name, int(n), parallel) for n in counts}
    return [f"{name} at {n} {title}: {shares[n]:.2f} of {a:.2f}" for n, a in aims.items()
            if a is not None and shares[n] > a]  # fmt: skip


def plot(results: list[dict], path: Path) -> None:
    """Draw error against calls, one chart a problem."""
    charts = []
    for result in results:
        counts = tuple(result["calls"])
        rows, best = result["tuned"], result["best_peer"]
        lines = {
            "best of diffusers in hindsight": [best[str(n)]["mean"][0] for n in counts],
            "default plan": [rows[str(n)]["default"] for n in counts],
            "tuned plan": [rows[str(n)]["mean"] for n in counts],
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
    parser.add_argument("--calls", nargs="+", type=int, help="numbers of calls")
    parser.add_argument("--fitted", nargs="*", type=int, default=FITTED, help="calls of LD3, ...")
    parser.add_argument("--parallel", type=int, default=2, help="calls at once; 1 for none")
    parser.add_argument("--again", action="store_true", help="run diffusers again")
    parser.add_argument("--workers", type=int, default=2, help="problems at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    counts, few = (QUICK, 8) if options.quick else (options.calls or CALLS, 24)
    names = [n for n in PROBLEMS if n in options.only]
    folder = options.run
    if folder is None and "network" in names:
        folder = str(options.out / "digits-run")
        if not Path(folder).exists():
            print("training the network of the digits", file=sys.stderr, flush=True)
            peers.trained().save(folder)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "plans.json"
    written = json.loads(path.read_text()) if path.exists() else {"results": [], "held_out": None}
    results = {result["problem"]: result for result in written["results"]}
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        jobs = []
        for name in names:
            samples = (512 if name in MIXTURES else 128) // (4 if options.quick else 1)
            known = {} if options.again else results.get(name, {})
            of_calls = tuple(sorted(counts)), tuple(options.fitted), options.parallel
            task = Task(name, *of_calls, samples, few, folder, known)
            jobs.append(pool.submit(solve, task))
        whole = len(names) == len(PROBLEMS)
        digits = pool.submit(held_out, folder, options.quick) if whole else None
        missed = []
        for job in as_completed(jobs):
            result = json.loads(json.dumps(job.result()))  # with the keys of the file
            results[result["problem"]] = result
            missed += show(result)
            sys.stdout.flush()
            written |= {
                "machine": facts(),
                "results": [results[n] for n in PROBLEMS if n in results],
            }
            path.write_text(json.dumps(written, indent=1), encoding="utf-8")
        if digits is not None:
            written["held_out"] = digits.result()
    if digits is not None:
        found = written["held_out"]
        print(f"\nsliced Wasserstein distance of {found['samples']} samples to held-out digits")
        for name, row in found["distances"].items():
            print(f"{name:28s}{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f}), floor "
                  f"{row['floor']:.4f}")  # fmt: skip
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    plot(written["results"], options.out / "plans.png")
    print("\ntargets missed: " + ("; ".join(missed) or "none"))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
