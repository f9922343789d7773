"""Log-densities against the truth: ours, and the classic procedure beside it.

    python benchmarks/likelihood.py            about ten minutes on two cores
    python benchmarks/likelihood.py --run DIR  with a trained run's folder instead of training one
    python benchmarks/likelihood.py --only coverage    of ``solver_error`` alone, a minute

*Classic* is what the papers and their code do: the probability-flow ODE of the whole batch, made
one vector, by scipy's RK45 at rtol = atol = 1e-5 from t_min to t_max; a prior N(0, I); the
divergence exact, one product with the Jacobian per coordinate, or by one probe of random signs,
fixed along the path.

*Ours* is `scorefield.log_prob` as it is, with the field's own mean and variances for the prior.

Four fields are exact mixtures, and the truth is their closed form. The fifth is a small U-Net
trained on the digits; its truth is ours with 512 calls. That has the data's moments for a prior, so
the error of the classic procedure holds what N(0, I) costs; the column "same prior" is without.

Errors are means of absolute values over the samples, in nats. With probes, also over 8 seeds.

*Coverage* is the share of items whose true error is at most ``solver_error``, on exact fields. The
factors of the estimates were chosen on `TUNED`; `HELD_OUT` had no part in it. ``prior_mismatch`` is
added to the values, and 1e-5 nats are allowed for what it leaves.

Writes results/likelihood.json beside this file; parts that were not run stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
import solvers as problems
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import scorefield as sf
from scorefield.data import digits

CALLS = (8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 40, 44, 48, 56, 64, 80)
PROBLEMS = ("ring2", "mixture16", "narrow8", "digits64", "network")
TUNED = ("steep12", "ring2", "modes3", "gaussian24", "corners6")
HELD_OUT = ("tails4", "arc2", "funnel3", "spikes2", "sheets8", "line16")
ITEMS, FLOOR = 128, 1e-5  # of the coverage
ALL = (*PROBLEMS, "coverage")
PRIORS = ("moments", "standard")
SEEDS = 8
FINE = 512  # calls for the network's truth
MANY = 32  # probes


class Classic:
    """The classic procedure, counting its calls."""

    def __init__(self, field: sf.ScoreField, probe: Tensor | None) -> None:
        self.field, self.probe, self.calls = field, probe, 0

    def __call__(self, x: Tensor) -> Tensor:
        process, shape, count = self.field.process, x.shape, len(x)

        def slope(t: float, state: np.ndarray) -> np.ndarray:
            self.calls += 1
            at = torch.tensor(t, dtype=torch.float64)
            f, g = float(process.drift(at)), float(process.diffusion(at))
            here = torch.from_numpy(state[:-count].copy()).reshape(shape)
            with torch.enable_grad():
                seen = here.requires_grad_()
                drift = f * seen - 0.5 * g**2 * self.field(seen, at).score
                divergence = self.trace(drift, seen)
            return np.concatenate([drift.detach().flatten().numpy(), divergence.numpy()])

        begin = np.concatenate([x.double().flatten().numpy(), np.zeros(count)])
        path = solve_ivp(slope, (process.t_min, process.t_max), begin, "RK45", rtol=1e-5, atol=1e-5)
        end = torch.from_numpy(path.y[:, -1])
        return sf.Prior(torch.zeros(()), torch.ones(())).log_prob(
            end[:-count].reshape(shape)
        ) + torch.as_tensor(end[-count:])

    def trace(self, drift: Tensor, x: Tensor) -> Tensor:
        if self.probe is not None:
            return (torch.autograd.grad(drift, x, self.probe)[0] * self.probe).flatten(1).sum(1)
        total, unit = torch.zeros(len(x), dtype=x.dtype), torch.zeros_like(x).flatten(1)
        for k in range(unit.shape[1]):
            unit[:, k] = 1
            pulled = torch.autograd.grad(drift, x, unit.reshape(x.shape).clone(), retain_graph=True)
            total += pulled[0].flatten(1)[:, k]
            unit[:, k] = 0
        return total


def exact(name: str, count: int) -> tuple[sf.ScoreField, Tensor, Tensor]:
    """Return a mixture, samples of it, and their log-densities at the process's lowest noise."""
    made = problems.EXACT[name]()
    means = made.means
    if name == "digits64":  # not centred by pixel, as standardised images are not
        data = digits()[0].flatten(1).double()
        spread = (data - data.mean(0)).square().mean().sqrt()
        means = means + (data.mean(0) - data.mean()) / spread
    field = sf.Mixture(sf.VP(), made.weights, means, made.covariances)
    return field, *sampled(field, count)


def sampled(field: sf.Mixture, count: int) -> tuple[Tensor, Tensor]:
    """Return samples of a mixture, and their log-densities at the process's lowest noise."""
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(count, *field.shape, generator=g, dtype=torch.float64)
    x = field.data(eps, torch.rand(count, generator=g, dtype=torch.float64))
    process = field.process
    alpha = float(process.alpha(torch.tensor(process.t_min, dtype=torch.float64)))
    return x, field.log_prob(alpha * x, process.t_min) + x[0].numel() * np.log(alpha)


def modes3() -> sf.Mixture:
    """Return three modes in 2-D, wide apart."""
    draw = torch.Generator().manual_seed(11)
    means = 2.0 * torch.randn(3, 2, generator=draw, dtype=torch.float64)
    variance = 0.02 + 0.1 * torch.rand(3, 2, generator=draw, dtype=torch.float64)
    return sf.Mixture(sf.VP(), torch.tensor([0.5, 0.3, 0.2]), means, torch.diag_embed(variance))


def gaussian24() -> sf.Mixture:
    """Return one Gaussian in 24-D, its variances from 10 down to 1e-6 along turned axes."""
    draw = torch.Generator().manual_seed(21)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=draw, dtype=torch.float64)).Q
    scales = torch.logspace(1, -6, 24, dtype=torch.float64)
    return sf.Gaussian(sf.VP(), torch.ones(24), turn * scales @ turn.T)


def tails4() -> sf.Mixture:
    """Return a heavy-tailed distribution in 4-D: Gaussians of five widths on one point."""
    width = torch.tensor([0.05, 0.2, 0.6, 1.5, 4.0], dtype=torch.float64)
    shape = width[:, None, None] ** 2 * torch.eye(4, dtype=torch.float64)
    return sf.Mixture(sf.Flow(), torch.tensor([1.0, 2, 4, 2, 1]), torch.zeros(5, 4).double(), shape)


def corners6() -> sf.Mixture:
    """Return the 64 corners of a cube in 6-D, narrow and of unequal weights."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6)
    weights = torch.rand(64, generator=torch.Generator().manual_seed(22)) + 0.1
    shape = (0.1**2 * torch.eye(6, dtype=torch.float64)).expand(64, 6, 6)
    return sf.Mixture(sf.EDM(), weights, corners, shape)


def arc2() -> sf.Mixture:
    """Return a thin parabola in 2-D of 80 Gaussians."""
    u = torch.linspace(-2, 2, 80, dtype=torch.float64)
    shape = (0.06**2 * torch.eye(2, dtype=torch.float64)).expand(80, 2, 2)
    return sf.Mixture(sf.VP(), torch.ones(80), torch.stack([u, u**2 - 1], 1), shape)


def funnel3() -> sf.Mixture:
    """Return a funnel in 3-D: the further along the first axis, the narrower the two others."""
    v = torch.linspace(-2, 2, 25, dtype=torch.float64)
    shape = torch.diag_embed(torch.stack([0 * v + 0.03, (-2 * v).exp() / 20, (-v).exp() / 5], 1))
    means = torch.stack([v, 0 * v, 0 * v], 1)
    return sf.Mixture(sf.Flow(), (-(v**2) / 2).exp(), means, shape)


def spikes2() -> sf.Mixture:
    """Return five spikes in 2-D on a wide Gaussian."""
    draw = torch.Generator().manual_seed(31)
    means = torch.cat([torch.zeros(1, 2), torch.randn(5, 2, generator=draw)]).double()
    width = torch.tensor([1.0, 0.02, 0.04, 0.06, 0.08, 0.1], dtype=torch.float64)
    shape = width[:, None, None] ** 2 * torch.eye(2, dtype=torch.float64)
    return sf.Mixture(sf.EDM(), torch.tensor([5.0, 1, 1, 1, 1, 1]), means, shape)


def sheets8() -> sf.Mixture:
    """Return three thin sheets in 8-D that cross each other at random angles."""
    draw = torch.Generator().manual_seed(32)
    turn = torch.linalg.qr(torch.randn(3, 8, 8, generator=draw, dtype=torch.float64)).Q
    scales = torch.tensor([1.0, 1, 1, 1, 1e-3, 1e-3, 1e-3, 1e-3], dtype=torch.float64)
    means = 0.5 * torch.randn(3, 8, generator=draw, dtype=torch.float64)
    return sf.Mixture(sf.VP(), torch.ones(3), means, turn * scales @ turn.mT)


def line16() -> sf.Mixture:
    """Return one Gaussian in 16-D that is a line, and nearly nothing across it."""
    draw = torch.Generator().manual_seed(33)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=draw, dtype=torch.float64)).Q
    scales = torch.tensor([9.0] + [1e-4] * 15, dtype=torch.float64)
    return sf.Gaussian(sf.Flow(), torch.zeros(16), turn * scales @ turn.T)


def coverage(name: str) -> list[dict]:
    """Return the coverage of ``solver_error`` on one field, by quadrature and by steps."""
    field = globals().get(name, problems.EXACT.get(name))()
    if field.process == problems.PROCESS:
        field = sf.Mixture(sf.VP(), field.weights, field.means, field.covariances)
    mean = field.weights @ field.means
    apart = field.means - mean
    spread = torch.einsum("k,kij->ij", field.weights, field.covariances)
    spread = spread + torch.einsum("k,ki,kj->ij", field.weights, apart, apart)
    prior = sf.Moments(mean, *torch.linalg.eigh(spread))
    x, truth = sampled(field, ITEMS)
    settings = {f"{n} calls": {"nfe": n} for n in (12, 20, 40, 60, 120, 240)}
    settings |= {f"Adaptive({t:g})": {"times": sf.Adaptive(t, t)} for t in (1e-2, 1e-3, 1e-4)}
    settings |= {
        f"{solver!r}, {n} steps": {"solver": solver, "times": n}
        for solver, n in ((sf.Heun(), 20), (sf.Bosh3(), 20), (sf.Dopri5(), 12), (sf.Dopri5(), 24))
    }
    rows = []
    for label, how in settings.items():
        result = sf.log_prob(field, x, probes=0, prior=prior, batch_size=ITEMS, **how)
        error = (result.value + result.prior_mismatch - truth).abs()
        covered = error <= result.solver_error + FLOOR
        share = (result.solver_error + FLOOR) / (error + FLOOR)
        rows.append(
            {
                "field": name,
                "held out": name in HELD_OUT,
                "settings": label,
                "calls": float(result.nfe.median()),
                "covered": float(covered.double().mean()),
                "within twice": float((error <= 2 * result.solver_error + FLOOR).double().mean()),
                "error": float(error.median()),
                "solver_error": float(result.solver_error.median()),
                "reported over true": float(share.median()),
                "worst": float(1 / share.min()),
            }
        )
    return rows


def timed(act: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float]:
    """Return a result and the least time it took."""
    least, value = np.inf, None
    for _ in range(repeats):
        began = time.perf_counter()
        value = act()
        least = min(least, time.perf_counter() - began)
    return value, least


def ours(field: sf.ScoreField, x: Tensor, **settings: object) -> Tensor:
    """Return our log-densities."""
    return sf.log_prob(field, x, batch_size=len(x), **settings).value


def compare(name: str, count: int, folder: str | None) -> dict:
    """Return what both reach on one field."""
    if name == "network":
        run = sf.load(folder) if folder else problems.trained()
        field, x = run.field, run.transform.forward(digits("test")[0][:count]).double()
        same = truth = None
    else:
        field, x, truth = exact(name, count)
        same = None
    repeats = 1 if name == "network" else 3
    row: dict = {"field": name, "dimension": x[0].numel(), "samples": count}

    classic = Classic(field, None)
    value, seconds = timed(lambda: classic(x), repeats)
    calls = classic.calls // repeats
    if truth is None:
        truth, same = (ours(field, x, nfe=FINE, probes=0, prior=p) for p in PRIORS)
        half = ours(field, x, nfe=FINE // 2, probes=0)
        row["truth changes by"] = float((truth - half).abs().mean())
    error = float((value - truth).abs().mean())
    row["classic"] = {"calls": calls, "error": error, "seconds": seconds}
    if same is not None:
        row["classic"]["same prior"] = float((value - same).abs().mean())
    row["ours"] = {}
    for nfe in (*[n for n in CALLS if n < calls], calls):
        value, seconds = timed(lambda nfe=nfe: ours(field, x, nfe=nfe, probes=0), repeats)
        row["ours"][nfe] = {"error": float((value - truth).abs().mean()), "seconds": seconds}

    errors, seconds, calls = [], np.inf, 0
    for seed in range(SEEDS):
        g = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, x.shape, generator=g).double() * 2 - 1
        classic = Classic(field, signs)
        value, least = timed(lambda classic=classic: classic(x), 1)
        errors.append(float((value - truth).abs().mean()))
        seconds, calls = min(seconds, least), classic.calls
    row["classic, one probe"] = {
        "calls": calls,
        "error": float(np.mean(errors)),
        "seconds": seconds,
    }
    for label, probes in (("ours, 2 probes", 2), (f"ours, {MANY} probes", MANY)):
        row[label] = {}
        for nfe in (8, 12, 16, 20, 24, 28, 32, calls):
            errors, seconds = [], np.inf
            for seed in range(SEEDS):
                value, least = timed(
                    lambda n=nfe, s=seed, k=probes: ours(field, x, nfe=n, probes=k, seed=s), 1
                )
                errors.append(float((value - truth).abs().mean()))
                seconds = min(seconds, least)
            row[label][nfe] = {"error": float(np.mean(errors)), "seconds": seconds}
    return row


def ratios(row: dict, classic: str, mine: str, at_calls: str) -> dict[str, float]:
    """Return shares of theirs: calls and time for the classic error, error at its calls."""
    theirs = row[classic]
    enough = [int(n) for n, found in row[mine].items() if found["error"] <= theirs["error"]]
    at = row[at_calls][str(theirs["calls"])]
    least = min(enough, default=None)
    return {
        "calls": least / theirs["calls"] if least else np.inf,
        "error": at["error"] / theirs["error"],
        "time": row[mine][str(least)]["seconds"] / theirs["seconds"] if least else np.inf,
        "nfe": least or 0,
    }


def show(rows: list[dict]) -> None:
    """Print the tables."""
    for classic, mine, at_calls in (
        ("classic", "ours", "ours"),
        ("classic, one probe", "ours, 2 probes", f"ours, {MANY} probes"),
    ):
        print(f"\n{classic} (RK45, 1e-5, N(0, I)), and {mine}")
        print(
            "| field | calls | error | same prior | calls for its error | share of calls | "
            "share of its time | share of its error at its calls |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for row in rows:
            theirs, found = row[classic], ratios(row, classic, mine, at_calls)
            same = f"{theirs['same prior']:.1e}" if "same prior" in theirs else "-"
            print(
                f"| {row['field']}, d = {row['dimension']} | {theirs['calls']} | "
                f"{theirs['error']:.1e} | {same} | {found['nfe']} | {found['calls']:.2f} | "
                f"{found['time']:.2f} | {found['error']:.4f} |"
            )


def show_coverage(rows: list[dict]) -> None:
    """Print the coverage of each setting: on the fields that were held out, and on all."""
    print("| settings | calls | covered, held out | least on one field | all | reported / true |")
    print("|---|---|---|---|---|---|")
    for label in dict.fromkeys(row["settings"] for row in rows):
        every = [row for row in rows if row["settings"] == label]
        held = [row["covered"] for row in every if row["held out"]]
        calls = np.median([row["calls"] for row in every])
        ratio = np.median([row["reported over true"] for row in every])
        print(
            f"| {label} | {calls:.0f} | {np.mean(held):.3f} | {min(held):.3f} | "
            f"{np.mean([row['covered'] for row in every]):.3f} | {ratio:.1f} |"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="folder of a trained run for the network")
    parser.add_argument("--only", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts = {"ring2": 256, "mixture16": 128, "narrow8": 128, "digits64": 32, "network": 16}
    written = options.out / "likelihood.json"
    parts = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {"rows": []}
    rows = {row["field"]: row for row in parts["rows"]}
    for name in options.only:
        if name == "coverage":
            parts["coverage"] = [row for kind in (*TUNED, *HELD_OUT) for row in coverage(kind)]
            show_coverage(parts["coverage"])
        else:
            rows[name] = json.loads(json.dumps(compare(name, counts[name], options.run)))
        print(f"{name} done", flush=True)
    show([row for name, row in rows.items() if name in options.only])
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scipy": scipy.__version__,
        "scorefield": sf.__version__,
    }
    parts |= {"versions": versions, "threads": 1, "rows": list(rows.values())}
    written.write_text(json.dumps(parts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
