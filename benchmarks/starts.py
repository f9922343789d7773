"""Starts at lower noise, from a Gaussian with the whole covariance of the data.

    python benchmarks/starts.py            all problems, a minute on one core
    python benchmarks/starts.py steep12    some of them

Far above the data every distribution is nearly a Gaussian, and the path of a Gaussian is known. So
a run could begin at lower noise and save a call. Here runs begin where the path of the Gaussian of
the data's mean and covariance is, from the same noise. The covariance of a mixture is exact, that
of a network is of 512 samples of 20 calls.

First table: the error of the start alone, by ``sigma / alpha`` in deviations ``c`` of the data. A
solver of 60 steps carries on from a Gaussian of independent coordinates, as plans have it, and from
that of the whole covariance.

Second table: the default plan of ``N`` calls, and the same solver and spacing from ``k N c`` down,
from the Gaussian of the whole covariance.

The errors are those of ``benchmarks/solvers.py``. Nothing is written.
"""

from __future__ import annotations

import argparse

import inexact
import solvers as peers
import torch
from torch import Tensor

import scorefield as sf
from scorefield.process import time_near

NAMES = ("mixture16", "steep12", "narrow8", "narrow8, eps 2.5 %", "fashion")
LEVELS = (20.0, 10.0, 5.0, 3.0, 2.0, 1.0)
CALLS = (4, 5, 6, 8)
FACTORS = (5.0, 2.0, 1.0, 0.5)
SAMPLES, STEPS = 128, 60
DRAWN, FEW = 512, 32  # for a network: samples of the covariance, and of the error


def whole(name: str) -> Tensor:
    """Return the covariance ``(d, d)`` of the data."""
    base = inexact.base_of(name)
    if name in inexact.NETWORKS:
        with torch.no_grad():
            return torch.cov(sf.sample(base.under(sf.VP()), DRAWN, seed=1).double().flatten(1).T)
    weights, means = base.weights / base.weights.sum(), base.means.flatten(1)
    centred = means - weights @ means
    within = torch.einsum("k,kde->de", weights, base.covariances)
    return within + (weights[:, None] * centred).T @ centred


def begin(z: Tensor, r: float, mean: Tensor, covariance: Tensor) -> Tensor:
    """Return ``x / alpha`` of the Gaussian's paths at a noise ``r``, from ``z`` ``(N, d)``."""
    values, basis = torch.linalg.eigh(covariance)
    return mean + (z @ basis * (values.clamp(min=0) + r**2).sqrt()) @ basis.T


def carried(made: peers.Problem, plan: sf.Plan, covariance: Tensor, z: Tensor) -> float:
    """Return the mean error of a plan from the Gaussian of a covariance."""
    field = made.field.under(sf.VP())
    alpha, sigma = (float(v) for v in field.process.coefficients(plan.times[0]))
    x = alpha * begin(z, sigma / alpha, torch.as_tensor(field.mean).flatten(), covariance)
    state = sf.State(x.reshape(made.x.shape), plan.times[0], sf.Noise(0, torch.arange(len(x))))
    with torch.no_grad():
        return float(made.errors(sf.prepare(field, plan)(state).x).mean())


def show(name: str) -> None:
    """Print both tables of a mixture."""
    made = inexact.problem(name, FEW if name in inexact.NETWORKS else SAMPLES)
    field, covariance = made.field.under(sf.VP()), whole(name)
    ids, like = torch.arange(len(made.x)), torch.empty(0, dtype=torch.float64)
    z = sf.Noise(peers.SEED, ids).draw(field.shape, like)[0].flatten(1)

    def plan(level: float, calls: int) -> sf.Plan:
        start, c = time_near(field.process, level * field.data_std), field.data_std
        times = sf.balanced(field.process, calls, start=start, data_std=c, power=3, to_data=True)
        return sf.Plan(sf.default_plan(field, calls).solver, times, finish=False)

    print(f"\n{name}\n{'sigma / alpha in c':22s}" + "".join(f"{v:>9g}" for v in LEVELS))
    for title, of in (("independent", covariance.diag().diag()), ("whole covariance", covariance)):
        errors = [carried(made, plan(level, STEPS), of, z) for level in LEVELS]
        print(f"{title:22s}" + "".join(f"{error:9.4f}" for error in errors))
    print(f"{'calls':22s}" + "".join(f"{v:>9d}" for v in CALLS))
    usual = [sf.default_plan(field, n) for n in CALLS]
    errors = [float(made.errors(inexact.ends_of(field, made.x, p)).mean()) for p in usual]
    print(f"{'default plan':22s}" + "".join(f"{error:9.4f}" for error in errors))
    for k in FACTORS:
        errors = [carried(made, plan(k * n, n), covariance, z) for n in CALLS]
        print(f"{f'from {k:g} N c':22s}" + "".join(f"{error:9.4f}" for error in errors), flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    torch.set_num_threads(1)
    for name in parser.parse_args().names:
        show(name)


if __name__ == "__main__":
    main()
