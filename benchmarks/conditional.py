r"""Posteriors of three public tasks after 10,000 simulations, beside those of sbi.

The tasks are those of Lueckmann et al. (2021), written from the paper. The samples of a method for
an observation are compared with reference samples of the posterior by the accuracy of a classifier,
`sf.metrics.c2st`: 0.5 is no difference::

    python benchmarks/conditional.py                        # writes results/conditional.json
    python benchmarks/conditional.py slcp --methods npse    # one task, one method
    python benchmarks/conditional.py --seconds 40           # of CPU time for each training

Reference samples: of the exact posterior for two moons (by rejection) and Gaussian linear (closed
form), and of 5,000 particles by sequential Monte Carlo for SLCP. Draws outside the prior are drawn
again, by every method. ``npe`` and ``npse`` are the defaults of sbi, and are left out where it is
not installed. ``scorefield, small`` is a smaller network that is trained for more steps.

Reference: Lueckmann et al. (2021), arXiv:2101.04653; Tejero-Cantero et al. (2020), sbi.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts as machine_facts
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Uniform

import scorefield as sf

RESULTS = Path(__file__).parent / "results" / "conditional.json"
SIMULATIONS, OBSERVATIONS, SAMPLES = 10_000, 5, 1000
Sampler = Callable[[Tensor, int], Tensor]
Fit = Callable[..., tuple[Sampler, str, float]]  # and the CPU seconds of the training


# --- the tasks ------------------------------------------------------------------------------------


def box(limit: float, dim: int) -> Independent:
    """Return the uniform distribution on a cube."""
    return Independent(Uniform(-limit * torch.ones(dim), limit * torch.ones(dim)), 1)


@dataclass(frozen=True)
class Task:
    """A prior, a simulator and a sampler of the exact posterior."""

    prior: Any
    simulate: Callable[[Tensor], Tensor]
    reference: Sampler


def crescent(count: int) -> Tensor:
    """Return points of the crescent of two moons."""
    angle = math.pi * (torch.rand(count) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(count)
    return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)


def two_moons(theta: Tensor) -> Tensor:
    """Return simulations of two moons."""
    a, b = theta.T
    return crescent(len(theta)) + torch.stack([-(a + b).abs(), b - a], 1) / math.sqrt(2)


def two_moons_posterior(x: Tensor, count: int) -> Tensor:
    """Return exact draws: `two_moons` solved for theta, whose Jacobian is constant."""
    p = crescent(40 * count)
    total, difference = math.sqrt(2) * (p[:, 0] - x[0]), math.sqrt(2) * (x[1] - p[:, 1])
    possible = total >= 0
    total = total * (2 * torch.randint(0, 2, total.shape) - 1)
    theta = torch.stack([total - difference, total + difference], 1) / 2
    return theta[possible & (theta.abs() <= 1).all(1)][:count]


def gaussian(theta: Tensor) -> Tensor:
    """Return simulations of Gaussian linear."""
    return theta + math.sqrt(0.1) * torch.randn_like(theta)


def gaussian_posterior(x: Tensor, count: int) -> Tensor:
    """Return exact draws of Gaussian linear."""
    return x / 2 + math.sqrt(0.05) * torch.randn(count, len(x))


def slcp_points(theta: Tensor) -> MultivariateNormal:
    """Return the distribution of each of the four points of SLCP."""
    s1, s2, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, theta[:, 4].tanh()
    rest = s2 * (1 - rho**2).clamp(min=1e-12).sqrt()
    zero = torch.zeros_like(s1)
    tril = torch.stack([torch.stack([s1, zero], 1), torch.stack([rho * s2, rest], 1)], 1)
    return MultivariateNormal(theta[:, :2], scale_tril=tril + 1e-6 * torch.eye(2))


def slcp(theta: Tensor) -> Tensor:
    """Return simulations of SLCP, four points in the plane each."""
    return slcp_points(theta).sample((4,)).transpose(0, 1).flatten(1)


def slcp_posterior(x: Tensor, count: int) -> Tensor:
    """Return draws by sequential Monte Carlo: Metropolis moves while the likelihood is tempered.

    The signs of the third and the fourth coordinate have no effect on the likelihood, so they are
    drawn at random in the end.
    """
    points = x.reshape(4, 1, 2)

    def log_likelihood(theta: Tensor) -> Tensor:
        return slcp_points(theta).log_prob(points).sum(0)

    theta = box(3.0, 5).sample((5 * count,))
    theta[:, 2:4] = theta[:, 2:4].abs()
    value, powers = log_likelihood(theta), torch.linspace(0, 1, 61) ** 4
    for before, power in pairwise(powers.tolist()):
        rows = ((power - before) * value).softmax(0).multinomial(len(theta), replacement=True)
        theta, value = theta[rows], value[rows]
        for _ in range(200 if power == 1 else 10):
            spread = torch.linalg.cholesky(torch.cov(theta.T) + 1e-6 * torch.eye(5))
            scale = 2.38 / math.sqrt(5) * torch.rand(len(theta), 1)  # short moves, too
            moved = theta + scale * torch.randn_like(theta) @ spread.T
            inside = (moved.abs() <= 3).all(1) & (moved[:, 2:4] >= 0).all(1)
            new = log_likelihood(torch.where(inside[:, None], moved, theta))
            accepted = inside & (torch.rand(len(theta)).log() < power * (new - value))
            theta = torch.where(accepted[:, None], moved, theta)
            value = torch.where(accepted, new, value)
    theta[:, 2:4] *= 2.0 * torch.randint(0, 2, (len(theta), 2)) - 1
    return theta[torch.randperm(len(theta))[:count]]


TASKS = {
    "two_moons": Task(box(1.0, 2), two_moons, two_moons_posterior),
    "gaussian_linear": Task(
        MultivariateNormal(torch.zeros(10), 0.1 * torch.eye(10)), gaussian, gaussian_posterior
    ),
    "slcp": Task(box(3.0, 5), slcp, slcp_posterior),
}


# --- the methods ----------------------------------------------------------------------------------


def cpu_seconds(theta: Tensor, x: Tensor, settings: dict[str, Any]) -> float:
    """Return the CPU seconds of a training."""
    began = time.process_time()
    sf.train(theta, {"x": x}, **settings, end="last")
    return time.process_time() - began


def ours(**settings: Any) -> Fit:
    """Return our training, of as many steps as fill the time if there is one."""

    def fit(
        task: Task, theta: Tensor, x: Tensor, seconds: float, seed: int
    ) -> tuple[Sampler, str, float]:
        own = dict(settings)
        if seconds:
            fixed, more = (
                cpu_seconds(theta, x, {**own, "seed": seed, "steps": steps}) for steps in (20, 120)
            )
            each = (more - fixed) / 100
            own["steps"] = max(200, round((seconds - fixed + 20 * each) / each))
        began = time.process_time()
        run = sf.train(theta, {"x": x}, seed=seed, **own)
        trained = time.process_time() - began

        def draw(observed: Tensor, count: int) -> Tensor:
            return run.sample(count, given={"x": observed}, batch_size=500)

        return draw, f"{run.config.train.optim.steps} steps", trained

    return fit


def peer(name: str) -> Fit:
    """Return a method of sbi, with its defaults."""

    def fit(
        task: Task, theta: Tensor, x: Tensor, seconds: float, seed: int
    ) -> tuple[Sampler, str, float]:
        from sbi import inference

        torch.manual_seed(seed)
        trainer = getattr(inference, name.upper())(prior=task.prior, show_progress_bars=False)
        trainer.append_simulations(theta, x)
        began, epochs = time.process_time(), 0
        while True:  # its epochs, until it stops itself or the time is over
            epochs += 10
            trainer.train(max_num_epochs=epochs, resume_training=epochs > 10)
            done = trainer.summary["epochs_trained"][-1] < epochs
            if done or (seconds and time.process_time() - began > seconds):
                break
        trained = time.process_time() - began
        posterior = trainer.build_posterior()

        def draw(observed: Tensor, count: int) -> Tensor:
            sample: Tensor = posterior.sample((count,), x=observed, show_progress_bars=False)
            return sample

        epochs = trainer.summary["epochs_trained"][-1]
        return draw, f"{epochs} epochs, stopped itself: {done}", trained

    return fit


SMALL = {"kind": "mlp", "width": 96, "depth": 3}
METHODS = {
    "scorefield": ours(),
    "scorefield, small": ours(network=SMALL, steps=8000),
    "npe": peer("npe"),
    "npse": peer("npse"),
}


def inside(task: Task, draw: Sampler, observed: Tensor, count: int) -> tuple[Tensor, float]:
    """Return draws within the prior, and the share of all draws that are."""
    theta = draw(observed, count)
    within = task.prior.support.check(theta)
    share, more = float(within.double().mean()), 1
    theta = theta[within]
    while len(theta) < count and share > 0 and more < 5:
        new = draw(observed, (1 + more) * count)[-count:]  # ids that follow
        theta, more = torch.cat([theta, new[task.prior.support.check(new)]]), more + 1
    return theta[:count], share


def measured(name: str, method: str, seconds: float, seed: int) -> dict[str, Any]:
    """Train a method on a task, and return its accuracies, one for each observation."""
    task = TASKS[name]
    torch.manual_seed(seed)
    theta = task.prior.sample((SIMULATIONS,))
    x = task.simulate(theta)
    observed = task.simulate(task.prior.sample((OBSERVATIONS,)))
    references = [task.reference(row, 2 * SAMPLES).split(SAMPLES) for row in observed]
    draw, note, trained = METHODS[method](task, theta, x, seconds, seed)
    shares: list[float] = []
    values: list[float] = []
    floors: list[float] = []
    for row, (reference, other) in zip(observed, references, strict=True):
        draws, share = inside(task, draw, row, SAMPLES)
        shares.append(share)
        values.append(sf.metrics.c2st(draws, reference).value)
        floors.append(sf.metrics.c2st(other, reference).value)
    return {
        "c2st": values,
        "mean": float(np.mean(values)),
        "of two references": float(np.mean(floors)),
        "inside": float(np.mean(shares)),
        "training": note,
        "training_cpu_seconds": trained,
        "seed": seed,
    }


def installed(package: str) -> str | None:
    """Return the version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure the methods on the tasks, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[*TASKS])
    parser.add_argument("--methods", nargs="*", default=[*METHODS])
    parser.add_argument("--seconds", type=float, default=0.0, help="of CPU time for each training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.tasks:
        for method in arguments.methods:
            if method.startswith("np") and installed("sbi") is None:
                print(f"{name}, {method}: sbi is not installed, so this method is left out.")
                continue
            row = measured(name, method, arguments.seconds, arguments.seed)
            key = method if not arguments.seconds else f"{method}, {arguments.seconds:g} s"
            print(f"{name}, {key}: {json.dumps(row)}", flush=True)
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            results["machine"] = machine_facts()
            results["packages"] = {p: installed(p) for p in ("torch", "sbi")}
            results.setdefault(name, {})[key] = row
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
