"""The posterior of a linear Gaussian model in d dimensions, learned and in closed form.

Prints the largest errors of means and covariances of 2,000 draws for five observations, in standard
errors, and the mean error of the log-density of held-out pairs::

    python benchmarks/linear_posterior.py --dim 8 --width 256 --depth 2
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import scorefield as sf

NOISE, DRAWS, OBSERVATIONS, HELD_OUT = 0.5, 2000, 5, 256


def simulations(matrix: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return theta from a standard normal distribution, and x = matrix theta + noise."""
    g = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, len(matrix), generator=g)
    return theta, theta @ matrix.T + NOISE * torch.randn(count, len(matrix), generator=g)


def main() -> None:
    """Train, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {
        "dim": 8,
        "pairs": 40_000,
        "steps": 1500,
        "width": 256,
        "depth": 2,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=4e-3)
    options = parser.parse_args()
    g, dim = torch.Generator().manual_seed(0), options.dim
    matrix = torch.randn(dim, dim, generator=g) / dim**0.5 + torch.eye(dim)
    covariance = torch.linalg.inv(torch.eye(dim) + matrix.T @ matrix / NOISE**2)
    slope = covariance @ matrix.T / NOISE**2
    theta, x = simulations(matrix, options.pairs, 1)
    began = time.process_time()
    run = sf.train(
        theta,
        {"x": x},
        steps=options.steps,
        batch_size=512,
        lr=options.lr,
        network={"kind": "mlp", "width": options.width, "depth": options.depth},
        end="last",
        held_out=0.0,
    )
    print(f"trained in {time.process_time() - began:.0f} s of the processor")
    truth, seen = simulations(matrix, 512, 2)
    truth, seen = truth[:HELD_OUT], seen[:HELD_OUT]
    exact = MultivariateNormal(seen @ slope.T, covariance).log_prob(truth)
    value = run.log_prob(truth, nfe=30, given={"x": seen}).value
    variance, means, spreads = covariance.diag(), [0.0], [0.0]
    spread = ((variance[:, None] * variance + covariance**2) / DRAWS).sqrt()
    for observed in seen[:OBSERVATIONS]:
        z = run.sample(DRAWS, nfe=20, given={"x": observed}, batch_size=500)
        off = (z.mean(0) - slope @ observed) / (variance / DRAWS).sqrt()
        means.append(float(off.abs().max()))
        off = (torch.cov(z.T).reshape(dim, dim) - covariance) / spread
        spreads.append(float(off.abs().max()))
    print(f"means: {max(means):.1f} standard errors; covariances: {max(spreads):.1f}")
    print(f"log-density: {float((value - exact).mean()):+.4f} nats in the mean")


if __name__ == "__main__":
    main()
