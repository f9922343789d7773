r"""Held-out log-densities on the sphere and the torus, next to mixtures of the space.

Positions of 3,376 airports of the USA, from vega_datasets, as points of the sphere; a tenth is held
out, and never trained on. A mixture of von Mises–Fisher distributions is fitted to the same rows
by EM, with the number of components that is best on a tenth of them::

    python benchmarks/manifolds.py airports    # about three minutes on two cores

Torsion angles are drawn from a known mixture of wrapped Gaussians in which three conformations of a
backbone are correlated, so that the true log-density is known::

    python benchmarks/manifolds.py torsions    # about two minutes

Densities are relative to the area of the unit sphere, and to radians. Standard errors are over the
held-out items.

Peers: pip install vega_datasets
"""

from __future__ import annotations

import math
import sys
import time

import torch
from torch import Tensor

import scorefield as sf

STEPS, WIDTH, DEPTH, BATCH = 3000, 128, 3, 256
ENOUGH = 300  # held-out items that are measured


def split(x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the rows to learn from and the held-out rows."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    count = len(x) // 10
    return x[order[count:]], x[order[:count]]


def trained(x: Tensor, **space: str) -> sf.Run:
    network = {"kind": "mlp", "width": WIDTH, "depth": DEPTH}
    return sf.train(x, network=network, steps=STEPS, batch_size=BATCH, **space)


class VonMisesFisher:
    """A mixture of von Mises–Fisher distributions on the sphere, fitted by EM."""

    def __init__(self, x: Tensor, count: int, steps: int = 200) -> None:
        g = torch.Generator().manual_seed(0)
        self.centres = x[torch.randperm(len(x), generator=g)[:count]]
        self.kappa = torch.full((count,), 50.0, dtype=torch.float64)
        self.weights = torch.full((count,), 1 / count, dtype=torch.float64)
        for _ in range(steps):
            share = self.terms(x).softmax(1)
            total = share.sum(0) + 1e-9
            mean = (share.mT @ x) / total[:, None]
            r = mean.norm(dim=1).clamp(max=1 - 1e-7)
            self.centres, self.weights = mean / r[:, None], total / total.sum()
            # Banerjee et al. (2005), JMLR 6, equation 4.4
            self.kappa = (r * (3 - r**2) / (1 - r**2)).clamp(max=1e5)

    def terms(self, x: Tensor) -> Tensor:
        k = self.kappa
        log_scale = k.log() - math.log(2 * math.pi) - (-(-2 * k).expm1()).log() - k
        return self.weights.log() + log_scale + k * (x @ self.centres.mT)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.terms(x).logsumexp(1)


def shown(name: str, value: Tensor) -> None:
    print(f"{name:34} {value.mean():7.3f} ± {value.std() / len(value) ** 0.5:.3f} nats")


def airports() -> None:
    from vega_datasets import local_data

    table = local_data.airports()
    x = torch.tensor(table[["latitude", "longitude"]].to_numpy())
    learned, held_out = split(x)
    began = time.monotonic()
    run = trained(learned.float(), space="sphere")
    seconds = time.monotonic() - began
    print(f"{len(learned)} airports, {len(held_out)} held out; trained in {seconds:.0f} s")
    items = held_out[:ENOUGH]
    result = run.log_prob(items.float())
    shown("uniform", torch.full((len(items),), -math.log(4 * math.pi)))
    points = [run.encoding.base(rows) for rows in (learned, items)]
    fit, choose = split(points[0], 1)
    scores = {k: VonMisesFisher(fit, k).log_prob(choose).mean() for k in (1, 4, 16, 32, 64, 128)}
    best = max(scores, key=lambda k: float(scores[k]))
    mixture = VonMisesFisher(points[0], best).log_prob(points[1])
    shown(f"von Mises–Fisher, {best} components", mixture)
    shown("scorefield", result.value)
    shown("scorefield minus the mixture", result.value - mixture)
    print(f"errors of an item: solver {result.solver_error.mean():.1e}")


def torsions() -> None:
    """Fit three conformations, (phi, psi) in degrees: alpha, beta and left-handed."""
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-63.0, -43.0], [-120.0, 135.0], [57.0, 45.0]], dtype=torch.float64)
    factors = torch.tensor(
        [[[10.0, 0.0], [-7.0, 7.0]], [[25.0, 0.0], [12.0, 20.0]], [[8.0, 0.0], [-5.0, 9.0]]],
        dtype=torch.float64,
    )
    weights = torch.tensor([0.5, 0.42, 0.08], dtype=torch.float64)

    def draw(count: int) -> Tensor:
        k = torch.multinomial(weights, count, replacement=True, generator=g)
        z = torch.randn(count, 2, 1, generator=g, dtype=torch.float64)
        x = centres[k] + (factors[k] @ z)[..., 0]
        return x - 360 * (x / 360).round()

    def log_prob(x: Tensor) -> Tensor:
        turns = 360 * torch.cartesian_prod(*2 * [torch.arange(-2.0, 3)]).double()
        covariances = (factors @ factors.mT) * (math.pi / 180) ** 2
        normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariances)
        gap = (x[:, None, None] + turns[:, None] - centres) * math.pi / 180
        return (normal.log_prob(gap) + weights.log()).flatten(1).logsumexp(1)

    learned, held_out = draw(5000), draw(ENOUGH)
    began = time.monotonic()
    run = trained(learned.float(), space="torus:2", angles="degrees")
    print(f"5,000 pairs of angles; trained in {time.monotonic() - began:.0f} s")
    value, truth = run.log_prob(held_out.float()).value, log_prob(held_out)
    shown("uniform", torch.full((len(truth),), -2 * math.log(2 * math.pi)))
    shown("the true mixture", truth)
    shown("scorefield", value)
    shown("scorefield minus the truth", value - truth)


if __name__ == "__main__":
    {"airports": airports, "torsions": torsions}[sys.argv[1]]()
