"""Pairs by optimal transport against independent pairs: errors of few calls, and the cost.

    python benchmarks/transport.py [--steps 3000] [--data rings digits] [--reflow]

The same network, steps and seeds. The error is the root mean square distance to the end of the
exact path from the same noise (RK4 of 100 steps), in deviations of the data. Also the energy
distance of samples of 12 calls to held-out data, next to that of data to data, and the CPU time of
an assignment as a share of a training step.
"""

import argparse
import json
import time

import torch

import scorefield as sf
from scorefield._internal.assignment import assignment

FLOW = {
    "process": "flow",
    "parametrization": "velocity",
    "weighting": "flow-matching",
    "times": "uniform",
}
CALLS = (4, 6, 8, 12)
BATCH = 256


def data(name):
    """Return vectors of a built-in set, those to learn and those to compare with."""
    x = sf.read(name).x.float().flatten(1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x = x[order]
    return x[: -(len(x) // 4)], x[-(len(x) // 4) :]


def plans(field, calls):
    """Return the plans of a number of calls."""
    process = field.process
    return {
        "default": sf.default_plan(field, calls),
        "Heun": sf.Plan(sf.Heun(), sf.uniform(process, calls // 2), finish=False),
        "Euler": sf.Plan(sf.Euler(), sf.uniform(process, calls), finish=False),
    }


def errors(run, n=1024):
    """Return the error of each plan, by name and calls."""
    field = run.field
    exact = sf.sample(field, n, sf.Plan(sf.RK4(), sf.uniform(field.process, 100)))
    return {
        f"{name} {calls}": float((sf.sample(field, n, plan) - exact).square().mean().sqrt())
        for calls in CALLS
        for name, plan in plans(field, calls).items()
    }


def train(x, coupling, steps, **settings):
    settings = {**FLOW, "steps": steps, "batch_size": BATCH, "held_out": 0.0, **settings}
    network = {"kind": "mlp", "width": 128, "depth": 4}
    began = time.process_time()
    run = sf.train(x, coupling=coupling, network=network, **settings)
    return run, (time.process_time() - began) / steps


def assignment_seconds(x):
    z = torch.randn(BATCH, x.shape[1])
    began = time.process_time()
    for _ in range(10):
        assignment(x[:BATCH], z, torch.zeros(BATCH))
    return (time.process_time() - began) / 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--data", nargs="*", default=["rings", "digits"])
    parser.add_argument("--reflow", action="store_true")
    options = parser.parse_args()
    for name in options.data:
        x, held_out = data(name)
        runs, seconds = {}, {}
        for coupling in ("independent", "ot"):
            runs[coupling], seconds[coupling] = train(x, coupling, options.steps)
        if options.reflow:
            pairs = runs["independent"].sample(8192, nfe=40, seed=7)
            runs["reflow"], _ = train(pairs, "reflow", options.steps, coupling_seed=7)
        table = {kind: errors(run) for kind, run in runs.items()}
        distance = sf.metrics.energy_distance
        for key in table["independent"]:
            row = {kind: round(values[key], 4) for kind, values in table.items()}
            ratio = table["independent"][key] / table["ot"][key]
            print(f"{name} {key:12s} {row}  independent/ot {ratio:.2f}", flush=True)
        count = min(len(held_out), 1024)
        print(name, "energy distance, 12 calls:", end=" ")
        for kind, run in runs.items():
            samples = run.sample(count, nfe=12)
            print(kind, f"{distance(samples, held_out[:count]):.4f}", end=" ")
        floor = distance(x[:count], held_out[:count])
        print("data to data", f"{floor:.4f}")
        share = assignment_seconds(x) / seconds["independent"]
        print(name, json.dumps({"seconds a step": seconds, "assignment share": round(share, 3)}))


if __name__ == "__main__":
    main()
