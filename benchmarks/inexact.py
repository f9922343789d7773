"""Defaults on exact fields, on fields that are off, and on three trained networks.

    python benchmarks/inexact.py            all problems, about an hour on one core
    python benchmarks/inexact.py --quick    three problems and four numbers of calls
    python benchmarks/inexact.py --only moons2 fashion

An exact field flatters solvers that extrapolate, and a network is not exact. Here fields have
smooth errors of eps, x0 or the velocity (`scorefield.Inexact`), or are networks. Every sample is
compared with the end of its own field's exact path from the same noise, as in
``benchmarks/solvers.py``; the error is the mean distance, divided by the root of the dimension.

*Theirs*: 38 settings of diffusers' multistep schedulers, each with the spacings of timesteps that
they have. The best at a number of calls is chosen with knowledge of the answer.

*Ours*: `scorefield.default_plan`, and the default solver of `SolverScheduler` on the timesteps of a
pipeline, "trailing" and "linspace", beside DPM-Solver++(2M) there.

*Sensitivity*: how far samples of a field that is off are from those of the exact one with the same
plan, relative to the same distance for DPM-Solver++(2M) on the pipeline's timesteps: for the
default plan, on those of "trailing". Medians: the mean is that of few samples that change modes.

The constants of the defaults were chosen on the problems of `CHOICE` alone; those of `JUDGED` had
no part in it. Writes results/inexact.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import solvers as peers
import torch
from machine import facts
from torch import Tensor

import scorefield as sf
from scorefield.interop.scheduler import _DEFAULT as SCHEDULER_DEFAULT

CALLS = (4, 5, 6, 8, 10, 15, 20, 40)
QUICK = (5, 8, 10, 20)
HERE = Path(__file__).parent
VP = sf.VP()


def ring7() -> sf.Mixture:
    """Return seven narrow round components on a ring."""
    angle = torch.arange(7, dtype=torch.float64) * (2 * math.pi / 7)
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], -1)
    return sf.Mixture(peers.PROCESS, torch.ones(7), means, 0.01 * torch.eye(2).expand(7, 2, 2))


def ill16() -> sf.Mixture:
    """Return three components in 16-D whose variances reach from 4 down to 1e-4."""
    draw = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(3, 16, 16, generator=draw, dtype=torch.float64)).Q
    scales = torch.logspace(math.log10(4), -4, 16, dtype=torch.float64)
    means = torch.randn(3, 16, generator=draw, dtype=torch.float64)
    return sf.Mixture(peers.PROCESS, torch.ones(3), means, turn * scales @ turn.mT)


def denoiser(base: sf.Denoiser, mean: Tensor | float, variance: Tensor | float) -> sf.Denoiser:
    """Return a network as a field down to no noise: below its own noise, with its lowest label."""
    process = base.process
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    high, low = process.half_log_snr(ends)

    def label(other: sf.Process, t: Tensor) -> Tensor:
        return base.label(process, process.time(other.half_log_snr(t).clamp(low, high)))

    parts = base.parametrization, base.shape, mean, variance, label
    return sf.Denoiser(base.network, peers.PROCESS, *parts).eval()


def of_run(name: str) -> sf.ScoreField:
    """Return the field of a run in the folder of networks, with the moments of its data."""
    field = sf.load(HERE / "networks" / name).field
    return denoiser(field, field.mean, field.variance)


def tutorial() -> sf.ScoreField:
    """Return the network trained by diffusers' recipe, whose data's moments nobody measured."""
    field = sf.interop.diffusers.load(HERE / "networks" / "tutorial").field
    return denoiser(field, field.mean, field.variance)


FIELDS: dict[str, Callable[[], sf.ScoreField]] = {
    **peers.EXACT,
    "ring7": ring7,
    "ill16": ill16,
    "mnist": lambda: of_run("mnist"),
    "fashion": lambda: of_run("fashion"),
    "tutorial": tutorial,
}
NETWORKS = ("mnist", "fashion", "tutorial")
CHOICE = (
    "ring2",
    "ring2, eps 2.5 %",
    "digits64",
    "digits64, eps 0.5 %",
    "narrow8, eps 2.5 %",
    "narrow8, bf16",
    "mnist",
)
JUDGED = (
    "ring7",
    "ring7, eps 0.5 %",
    "moons2, eps 2.5 %",
    "mixture16, velocity 0.5 %",
    "ill16",
    "ill16, eps 2.5 % around 10",
    "mixture16, x0 0.2 %",
    "fashion",
    "tutorial",
)


@cache
def base_of(name: str) -> sf.ScoreField:
    """Return the field by its name, without an error."""
    return FIELDS[name.partition(",")[0]]()


def field_of(name: str) -> sf.ScoreField:
    """Return a field by a name such as "ring2, eps 2.5 % around 10" or "narrow8, bf16"."""
    base, (_, _, error) = base_of(name), name.partition(", ")
    if not error:
        return base
    if error == "bf16":
        return sf.Inexact(base, 0.0, dtype=torch.bfloat16)
    of, size, _, *where = error.split()
    around = (float(where[1]), 1.0) if where else None
    return sf.Inexact(base, float(size) / 100, of, around=around)


def problem(name: str, samples: int) -> peers.Problem:
    """Return a problem with the ends of its field's own exact paths."""
    field = field_of(name)
    x = sf.prior(field, samples, 1.0, seed=peers.SEED, dtype=torch.float32).x.double()
    steps = 200 if name in NETWORKS else 800
    with torch.no_grad():
        coarse, end = peers.fine(field, x, steps // 2), peers.fine(field, x, steps)
    made = peers.Problem(name, field, x, end, {})
    made.checks["half the steps, mean"] = float(made.errors(coarse).mean())
    return made


# Theirs


def their_runs(calls: int, x: Tensor) -> dict[tuple[str, str], peers.Run]:
    """Return diffusers' multistep schedulers by name and spacing."""
    runs: dict[tuple[str, str], peers.Run] = {}
    dpm, uni, dei = (f"{k}MultistepScheduler" for k in ("DPMSolver", "UniPC", "DEIS"))
    for name, last, levels in peers.their_grids(calls):
        if name.split(" ")[0] not in SPACINGS or " to " in name or last != "zero":
            continue
        for order in (1, 2, 3):
            runs[f"DPM++{order}M", name] = peers.multistep(dpm, last, levels, x, solver_order=order)
        runs["UniPC-2", name] = peers.multistep(uni, last, levels, x, solver_order=2)
        runs["DEIS-2", name] = peers.multistep(dei, "denoise", levels[:-1], x, solver_order=2)
        if name in ("linspace", "leading", "trailing"):
            runs["iPNDM", name] = peers.drive_ipndm(levels, x)
    return runs


SPACINGS = ("linspace", "leading", "trailing", "karras", "exponential", "beta", "lu")


def theirs(made: peers.Problem, calls: int) -> dict[str, float]:
    """Return the mean error of every setting of theirs."""
    ends = peers.together(made.field, their_runs(calls, made.x))
    return {" ".join(key): float(made.errors(x).mean()) for key, x in ends.items()}


# Ours


def timesteps(calls: int, spacing: str) -> Tensor:
    """Return the times of a pipeline: those of a table of 1,000 steps."""
    scheduler = sf.interop.scheduler.SolverScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(calls)
    return (scheduler.timesteps.double() + 1) / 1000


def plans(field: sf.ScoreField, calls: int) -> dict[str, sf.Plan]:
    """Return our defaults at a number of calls."""
    return {
        "default_plan": sf.default_plan(field, calls),
        "scheduler, trailing": sf.Plan(SCHEDULER_DEFAULT, timesteps(calls, "trailing")),
        "scheduler, linspace": sf.Plan(SCHEDULER_DEFAULT, timesteps(calls, "linspace")),
    }


def ends_of(field: sf.ScoreField, x: Tensor, plan: sf.Plan) -> Tensor:
    """Return the samples of a plan from noise at the process's end."""
    with sf.count_calls(field) as counted:
        out = sf.sample(
            field, len(x), plan, seed=peers.SEED, batch_size=len(x), dtype=torch.float64
        )
    assert counted.count == len(plan.times) - (not plan.finish)
    return out


def moved(name: str, x: Tensor, calls: int) -> dict[str, float]:
    """Return how far the error of a field moves the samples of each plan."""
    exact, off = (f.under(VP) for f in (base_of(name), field_of(name)))
    solver, out = sf.dpm_solver_pp(2, published=True), {}
    peer = {f"DPM++2M {s}": sf.Plan(solver, timesteps(calls, s)) for s in ("trailing", "linspace")}
    every = {**plans(exact, calls), **peer}
    for key, plan in every.items():
        difference = ends_of(exact, x, plan) - ends_of(off, x, plan)
        out[key] = float(difference.flatten(1).norm(dim=1).median()) / math.sqrt(x[0].numel())
    return out


def solve(name: str, counts: tuple[int, ...], samples: int) -> dict:
    """Return everything measured on one problem."""
    began = time.monotonic()
    made = problem(name, samples)
    field, rows = made.field.under(VP), {}
    for calls in counts:
        ours = {}
        for key, plan in plans(field, calls).items():
            ours[key] = float(made.errors(ends_of(field, made.x, plan)).mean())
        rows[calls] = {"theirs": theirs(made, calls), "ours": ours}
        if "," in name and "bf16" not in name:
            rows[calls]["moved"] = moved(name, made.x, calls)
    result = {"problem": name, "samples": samples, "reference": made.checks, "calls": rows}
    show(result, time.monotonic() - began)
    return result


def show(result: dict, seconds: float) -> None:
    """Print ours over the best of theirs, and sensitivities over that of DPM++ 2M."""
    rows = result["calls"]
    print(f"\n{result['problem']}: {result['samples']} samples, {seconds:.0f} s, reference "
          f"{result['reference']['half the steps, mean']:.1e}")  # fmt: skip
    print(f"{'':28s}" + "".join(f"{n:>8}" for n in rows))
    best = {n: min(row["theirs"].values()) for n, row in rows.items()}
    print(f"{'best of theirs':28s}" + "".join(f"{v:8.2g}" for v in best.values()))
    trailing = {n: row["theirs"]["DPM++2M trailing"] / best[n] for n, row in rows.items()}
    print(f"{'DPM++2M trailing / best':28s}" + "".join(f"{v:8.2f}" for v in trailing.values()))
    for key in next(iter(rows.values()))["ours"]:
        ratios = (row["ours"][key] / best[n] for n, row in rows.items())
        print(f"{key + ' / best':28s}" + "".join(f"{v:8.2f}" for v in ratios), flush=True)
        if "moved" in next(iter(rows.values())):
            peer = f"DPM++2M {key.partition(', ')[2] or 'trailing'}"
            moves = (row["moved"][key] / row["moved"][peer] for row in rows.values())
            print(f"{'  sensitivity':28s}" + "".join(f"{v:8.2f}" for v in moves), flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer problems and budgets")
    parser.add_argument("--only", nargs="+", help="problems by name")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = options.only or (CHOICE[1:2] + JUDGED[1:3] if options.quick else JUDGED + CHOICE)
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in names:
        print(name, file=sys.stderr, flush=True)
        samples = 12 if name in NETWORKS else 64 if "64" in name else 128
        results.append(solve(name, QUICK if options.quick else CALLS, samples))
        written = {"machine": facts(), "choice": CHOICE, "judged": JUDGED, "results": results}
        (options.out / "inexact.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
