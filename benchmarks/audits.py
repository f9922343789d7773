r"""The readings of `scorefield.audit` on trained networks whose true errors are known.

Four networks, of two widths on mixtures in two and in eight dimensions, are trained briefly and
audited on 2,048 data. The exact field of the mixture gives the true error of eps at each level::

    python benchmarks/audits.py    # about two minutes; prints tables, writes results/audits.json

For each network: the bound at each level beside the true root mean square error per coordinate;
and the nats lost by the lower bound of the likelihood, ``E[log p - elbo]``, beside the integral of
the true errors that the theorem of Song et al. (2021), arXiv:2101.09258, equates with it::

    E[log p - elbo] = int E|eps_hat - eps|^2 dlog r

over the distribution of noised data.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

import scorefield as sf
from scorefield.training.objective import Objective, Simple, UniformTimes

RESULTS = Path(__file__).parent / "results" / "audits.json"
STEPS, BATCH, COUNT, NODES = 600, 128, 2048, 48


def mixture(dim: int) -> sf.Mixture:
    """Return three Gaussians with turned covariances, of about unit variance."""
    g = torch.Generator().manual_seed(dim)
    factors = 0.4 * torch.randn(3, dim, dim, generator=g) / dim**0.5
    covariances = factors @ factors.mT + 0.05 * torch.eye(dim)
    means = torch.randn(3, dim, generator=g)
    return sf.Mixture(sf.VP(t_min=1e-3), torch.tensor([0.5, 0.3, 0.2]), means, covariances)


def draw(exact: sf.Mixture, count: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    eps = torch.randn(count, *exact.shape, generator=g)
    return exact.data(eps, torch.rand(count, generator=g))


def train(exact: sf.Mixture, width: int) -> sf.Denoiser:
    """Return a denoiser trained on fresh samples of the mixture."""
    torch.manual_seed(0)
    network = sf.MLP(exact.shape[0], width, 2)
    field = sf.Denoiser(
        network, exact.process, sf.V(), exact.shape, exact.mean.float(), exact.variance.float()
    )
    objective, optimizer = (
        Objective(Simple(), UniformTimes()),
        torch.optim.Adam(network.parameters(), 2e-3),
    )
    for step in range(STEPS):
        x = draw(exact, BATCH, 1000 + step)
        t = exact.process.t_min + torch.rand(BATCH).double() * (1 - exact.process.t_min)
        loss = objective.loss(field, x, t, torch.randn_like(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return field.eval()


@torch.no_grad()
def true_error(field: sf.Denoiser, exact: sf.Mixture, x: Tensor, ratio: float) -> float:
    """Return the root mean square error of eps per coordinate at ``sigma / alpha``."""
    t = exact.process.time(-torch.tensor(ratio, dtype=torch.float64).log())
    noised = exact.process.perturb(x, t, torch.randn_like(x))
    gap = field(noised, t).eps - exact(noised, t).eps
    return float(gap.square().mean().sqrt())


def measure(dim: int, width: int) -> dict[str, object]:
    """Return the bounds and the true errors of one network."""
    exact = mixture(dim)
    field, x = train(exact, width), draw(exact, COUNT, 1)
    audit = sf.audit(field, x)
    levels = [
        {"ratio": a.ratio, "bound": a.at_least, "true": true_error(field, exact, x, a.ratio)}
        for a in audit.levels
    ]
    process = exact.process
    low, high = (-process.half_log_snr(torch.tensor([process.t_min, 1.0]).double())).tolist()
    nodes = torch.linspace(low, high, NODES).exp().tolist()
    errors = torch.tensor([true_error(field, exact, x, ratio) ** 2 * dim for ratio in nodes])
    theorem = float(torch.trapezoid(errors, dx=(high - low) / (NODES - 1)))
    start = torch.tensor(process.t_min, dtype=torch.float64)
    alpha = process.alpha(start)
    log_p = exact.log_prob((alpha * x).double(), start) + dim * alpha.log()
    lost = log_p - sf.elbo(field, x).value
    return {
        "dim": dim,
        "width": width,
        "levels": levels,
        "theorem": theorem,
        "lost": float(lost.mean()),
        "stderr": float(lost.std() / len(x) ** 0.5),
        "gap": audit.gap,
        "gap_stderr": audit.stderr,
    }


def main() -> None:
    rows = [measure(dim, width) for dim in (2, 8) for width in (16, 64)]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print("| dim | width | bound / true error by level | nats lost | integral | ODE - bound |")
    for row in rows:
        pairs = ", ".join(f"{a['bound']:.3f}/{a['true']:.3f}" for a in row["levels"])  # type: ignore
        print(
            f"| {row['dim']} | {row['width']} | {pairs} | {row['lost']:.3f} ± {row['stderr']:.3f} "
            f"| {row['theorem']:.3f} | {row['gap']:.3f} ± {row['gap_stderr']:.3f} |"
        )


if __name__ == "__main__":
    main()
