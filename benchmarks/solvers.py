"""Few-step sampling against the exact path: one rule of ours, theirs at the best in hindsight.

    python benchmarks/solvers.py            all problems, about half an hour on two cores
    python benchmarks/solvers.py --quick    about two minutes
    python benchmarks/solvers.py --run DIR  with a trained run's folder instead of training one

Every sample starts at the same noise and is compared with the end, at no noise at all, of the exact
path of the probability-flow ODE from there. The error is the Euclidean distance divided by the root
of the dimension, averaged over samples. The process is VP with DDPM's linear schedule; diffusers'
schedulers get its table of 1000 steps, and the field at exactly the noise levels they hold.

*Theirs*: the installed schedulers of diffusers, driven through their own ``step``. For each number
of calls the best of their grids, of some of ours, and of their rules for the end is taken, chosen
with knowledge of the answer: first on a few samples, then among the three best on all. Beyond 20
calls only the eight best of 20 calls compete. Some of them round their state to float32.

*Ours*: `scorefield.default_plan`, a function of the number of calls and of the data's mean and
variance, as `scorefield.sample` uses it. Its constants were chosen in ``inexact.py``.

Writes results/solvers.json and results/solvers.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers
import numpy as np
import scipy
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import scorefield as sf
from scorefield.data import digits, read, toy
from scorefield.report import Axis, Chart, Figure, Series
from scorefield.report.style import INK

CALLS = (4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 75, 100)
QUICK = (5, 8, 12, 20, 50)
DISTANCE = "Mean distance to the end of the exact path"
PROBLEMS = ("ring2", "digits64", "narrow8", "network", "moons2", "mixture16")
PROCESS = sf.VP(t_min=1e-12)  # sigma / alpha = 3e-7: as good as none
TABLE = PROCESS.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000) ** 2
BETAS = (1 - TABLE / torch.cat([TABLE.new_ones(1), TABLE[:-1]])).numpy()
FLOOR = float(((1 - TABLE[0]) / TABLE[0]).sqrt())  # the table's lowest sigma / alpha
NUMBERS = 16384  # coordinates in one call of the field
SEED = 1

Run = Generator[tuple[Tensor, Tensor], Tensor, Tensor]  # yields (x, sigma/alpha), is sent eps


# The problems


@dataclass
class Problem:
    """A field, the noise to start from, and where the exact paths end."""

    name: str
    field: sf.ScoreField
    x: Tensor
    end: Tensor
    checks: dict[str, float]

    def errors(self, x: Tensor) -> Tensor:
        """Return the distance of each of the first samples to the end of its path."""
        return (x - self.end[: len(x)]).flatten(1).norm(dim=1) / math.sqrt(self.end[0].numel())


def ring2() -> sf.Mixture:
    """Return eight narrow ellipses on a ring, turned along it."""
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(8, 2, 2)
    shape = torch.diag(torch.tensor([0.05, 0.2], dtype=torch.float64) ** 2)
    weights = torch.tensor([3.0, 1, 2, 1, 3, 1, 2, 1])
    return sf.Mixture(PROCESS, weights, 1.3 * turn[:, :, 0], turn @ shape @ turn.mT)


def digits64() -> sf.Mixture:
    """Return a mixture of 20 full covariances fitted to the 8x8 digits, of unit deviation."""
    from sklearn.mixture import GaussianMixture

    data = digits()[0].flatten(1).double()
    data = data - data.mean(0)
    data = data / data.square().mean().sqrt()
    fit = GaussianMixture(20, reg_covar=1e-3, random_state=0, max_iter=60).fit(data.numpy())
    parts = (fit.weights_, fit.means_, fit.covariances_)
    return sf.Mixture(PROCESS, *(torch.from_numpy(np.asarray(a)) for a in parts))


def narrow8() -> sf.Mixture:
    """Return four components in 8-D with variances from 1 down to 1e-4 along turned axes."""
    draw = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(4, 8, 8, generator=draw, dtype=torch.float64)).Q
    scales = torch.logspace(0, -4, 8, dtype=torch.float64)
    means = torch.randn(4, 8, generator=draw, dtype=torch.float64)
    return sf.Mixture(PROCESS, torch.ones(4), means, turn * scales @ turn.mT)


def moons2() -> sf.Mixture:
    """Return two moons: a narrow Gaussian on each of 60 points."""
    points = toy("moons", 60).double()
    points = (points - points.mean(0)) / points.std(0)
    spread = 0.01 * torch.eye(2, dtype=torch.float64).expand(60, 2, 2)
    return sf.Mixture(PROCESS, torch.ones(60), points, spread)


def mixture16() -> sf.Mixture:
    """Return ten components in 16-D, wide apart, of deviation 3 in all."""
    draw = torch.Generator().manual_seed(5)
    turn = torch.linalg.qr(torch.randn(10, 16, 16, generator=draw, dtype=torch.float64)).Q
    scales = 2 * torch.rand(10, 16, generator=draw, dtype=torch.float64) ** 3 + 0.01
    means = 3 * torch.randn(10, 16, generator=draw, dtype=torch.float64)
    weights = torch.rand(10, generator=draw) + 0.2
    return sf.Mixture(PROCESS, weights, means, turn * scales[:, None] @ turn.mT)


def steep12() -> sf.Mixture:
    """Return six components in 12-D with variances from 4 down to 4e-6 along turned axes."""
    draw = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(6, 12, 12, generator=draw, dtype=torch.float64)).Q
    scales = 4 * torch.logspace(0, -6, 12, dtype=torch.float64)
    means = 1.5 * torch.randn(6, 12, generator=draw, dtype=torch.float64)
    return sf.Mixture(PROCESS, torch.ones(6), means, turn * scales @ turn.mT)


EXACT = {
    "ring2": ring2,
    "digits64": digits64,
    "narrow8": narrow8,
    "moons2": moons2,
    "mixture16": mixture16,
    "steep12": steep12,
}


def trained() -> sf.Run:
    """Return a small U-Net trained on the digits for two minutes."""
    from scorefield.training.config import OptimConfig, TrainConfig, UNetConfig

    optim = OptimConfig(steps=1200, lr=2e-3)
    return sf.train(read("digits"), config=TrainConfig(network=UNetConfig(width=16), optim=optim))


def network(folder: str | None) -> sf.ScoreField:
    """Return the field of a run, of the digits and trained for it if no folder is given."""
    run = sf.load(folder) if folder else trained()
    trained_field = run.field
    t_min = torch.tensor(trained_field.process.t_min, dtype=torch.float64)
    lowest = trained_field.label(trained_field.process, t_min)

    def label(process: sf.Process, t: Tensor) -> Tensor:
        return trained_field.label(process, t).clamp(min=float(lowest))

    # the same network down to no noise at all, where its paths end; below the noise of its training
    # it is given the lowest one
    return sf.Denoiser(
        trained_field.network,
        PROCESS,
        trained_field.parametrization,
        trained_field.shape,
        trained_field.mean,
        trained_field.variance,
        label,
    ).eval()


def fine(field: sf.ScoreField, x: Tensor, steps: int) -> Tensor:
    """Return the ends of the paths by order 4 on many steps."""
    c = field.data_std
    times = sf.balanced(PROCESS, steps, data_std=c, to_data=True)
    solver = sf.Multistep(4, sf.AnglePrediction(c), sf.Exact(sf.Growth(c)), corrector=True)
    return sf.prepare(field, solver, times)(
        sf.State(x, times[0], sf.Noise(0, torch.arange(len(x))))
    ).x


def dop853(field: sf.ScoreField, x: Tensor) -> Tensor:
    """Return the ends of the paths by scipy, in y = x / alpha and log(1 + sigma / alpha)."""
    first = float((-PROCESS.half_log_snr(torch.tensor(1.0, dtype=torch.float64))).exp())
    ends = []
    for one in x:

        def slope(u: float, y: np.ndarray, shape: torch.Size = one.shape) -> np.ndarray:
            s = max(math.expm1(u), 1e-6)
            state = torch.from_numpy(y).reshape(1, *shape)
            return (eps_at(field, state / math.hypot(1, s), s) * (1 + s)).flatten().numpy()

        y = (one * math.hypot(1, first)).flatten().numpy()
        path = solve_ivp(slope, (math.log1p(first), 0), y, "DOP853", rtol=1e-9, atol=1e-11)
        ends.append(torch.from_numpy(path.y[:, -1]).reshape(one.shape))
    return torch.stack(ends)


def eps_at(field: sf.ScoreField, x: Tensor, ratio: float | Tensor) -> Tensor:
    """Return the field's noise at a value of sigma / alpha, or at one for each sample."""
    ratio = torch.as_tensor(ratio, dtype=torch.float64)
    with torch.no_grad():
        return field(x, PROCESS.time(-ratio.log())).eps


def problem(name: str, samples: int, folder: str | None) -> Problem:
    """Return a problem with its reference, checked against twice the steps and another solver."""
    field = EXACT[name]() if name in EXACT else network(folder)
    x = sf.prior(field, samples, 1.0, seed=SEED, dtype=torch.float32).x.double()
    steps = 800 if name in EXACT else 400
    with torch.no_grad():
        coarse, end = fine(field, x, steps), fine(field, x, 2 * steps)
    found = Problem(name, field, x, end, {})
    found.checks["half the steps, mean"] = float(found.errors(coarse).mean())
    found.checks["half the steps, worst"] = float(found.errors(coarse).max())
    if name in EXACT:
        found.checks["DOP853, worst of 4"] = float(found.errors(dop853(field, x[:4])).max())
    return found


# Theirs


def drive(made: diffusers.SchedulerMixin, levels: Tensor, x: Tensor, last: str) -> Run:
    """Run a multistep scheduler along given values of sigma / alpha."""
    count = len(levels) - 1
    made.set_timesteps(count)
    made.set_begin_index(0)
    made.sigmas, made.timesteps = levels, torch.arange(count, 0, -1)
    for k in range(count):
        eps = yield x, levels[k]
        x = made.step(eps, made.timesteps[k], x).prev_sample
    if last == "denoise":
        eps = yield x, levels[-1]
        x = x * torch.hypot(levels[-1], torch.ones(())) - levels[-1] * eps
    return x * torch.hypot(levels[-1], torch.ones(())) if last == "stay" else x


def drive_unscaled(kind: str, levels: Tensor, x: Tensor) -> Run:
    """Run Euler's or Heun's scheduler, whose state is x / alpha."""
    made = getattr(diffusers, kind)(trained_betas=BETAS)
    made.set_timesteps(len(levels) - 1)
    made.set_begin_index(0)
    if kind == "HeunDiscreteScheduler":
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    count = len(levels) - 1
    made.sigmas, made.timesteps = levels, torch.arange(count, 0, -1, dtype=torch.float64)
    y = x * torch.hypot(levels[0], torch.ones(()))
    for k in range(count):
        seen = made.scale_model_input(y, made.timesteps[k])
        y = made.step((yield seen, levels[k]), made.timesteps[k], y).prev_sample
    return y


def drive_ipndm(levels: Tensor, x: Tensor) -> Run:
    """Run iPNDM, which is told alpha and sigma and wants v."""
    made = diffusers.IPNDMScheduler()
    count = len(levels) - 1
    made.set_timesteps(count)
    made.set_begin_index(0)
    norm = torch.hypot(levels, torch.ones(()))
    made.alphas, made.betas = 1 / norm, levels / norm
    for k in range(count):
        eps = yield x, levels[k]
        v = (eps - made.betas[k] * x) / made.alphas[k]
        x = made.step(v, made.timesteps[k], x).prev_sample
    return x * norm[-1] if levels[-1] > 0 else x


def drive_table(kind: str, steps: int, spacing: str, to_data: bool, x: Tensor) -> Run:
    """Run a scheduler that knows the table's own steps alone: DDIM and PNDM."""
    extra = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {"clip_sample": False}
    made = getattr(diffusers, kind)(
        trained_betas=BETAS, timestep_spacing=spacing, set_alpha_to_one=to_data, **extra
    )
    made.alphas_cumprod = TABLE.clone()
    made.final_alpha_cumprod = torch.tensor(1.0) if to_data else TABLE[0]
    made.set_timesteps(steps)
    for t in made.timesteps:
        abar = TABLE[t]
        eps = yield x, ((1 - abar) / abar).sqrt()
        x = made.step(eps, int(t), x).prev_sample
    return x if to_data else x / TABLE[0].sqrt()


def multistep(kind: str, last: str, levels: Tensor, x: Tensor, **options: object) -> Run:
    """Run one of the multistep schedulers with options."""
    if kind == "DPMSolverMultistepScheduler":
        options["final_sigmas_type"] = "zero" if last == "zero" else "sigma_min"
    made = getattr(diffusers, kind)(trained_betas=BETAS, **options)
    return drive(made, levels, x, last)


def their_grids(calls: int) -> Iterator[tuple[str, str, Tensor]]:
    """Yield grids by name: the rule for the end, and ``calls + 1`` values of sigma / alpha.

    "zero" steps from the last level to no noise at all, "stay" ends at a level and keeps its noise.
    """
    native: dict[str, dict[str, object]] = {
        "linspace": {"timestep_spacing": "linspace"},
        "leading": {"timestep_spacing": "leading"},
        "trailing": {"timestep_spacing": "trailing"},
        "karras": {"use_karras_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
        "lu": {"use_lu_lambdas": True},
    }
    for name, options in native.items():
        for last in ("zero", "stay"):
            rule = "zero" if last == "zero" else "sigma_min"
            made = diffusers.DPMSolverMultistepScheduler(
                trained_betas=BETAS, final_sigmas_type=rule, **options
            )
            made.set_timesteps(calls)
            levels = made.sigmas.double()
            if bool((levels.diff() < 0).all()):
                yield name, last, levels
            elif bool((levels[:-1].diff() < 0).all()) and last == "stay":
                yield name, "denoise", levels[:-1]

    def time_at(ratio: float) -> float:
        return float(PROCESS.time(-torch.tensor(ratio, dtype=torch.float64).log()))

    makers: list[tuple[str, Callable[..., Tensor], tuple[float, ...]]] = [
        ("uniform t", sf.uniform, (0.03, 0.01)),
        ("quadratic t", sf.quadratic, (0.1, 0.03, 0.01, 0.003, 0.001)),
        ("log-SNR", sf.even_log_snr, (0.2, 0.1, 0.03, 0.01, 0.003)),
        ("karras 7", sf.karras, (0.1, 0.03, 0.01, 0.002)),
        ("balanced", sf.balanced, (0.01, 0.001)),
    ]
    # named by the rule, which is the same at every number of calls, not by what it gives
    ruled = [(f"{share:g}/calls", share / calls) for share in (0.4, 0.1)]
    for name, make, fixed in makers:
        ends = [(f"{end:g}", end) for end in fixed] + (ruled if make is sf.balanced else [])
        for rule, end in ends:
            for last in ("zero", "stay") if end < 0.02 else ("zero",):
                times = make(PROCESS, calls - (last == "zero"), end=time_at(end))
                levels = (-PROCESS.half_log_snr(times)).exp()
                levels = torch.cat([levels, levels.new_zeros(1)]) if last == "zero" else levels
                yield f"{name} to {rule}", last, levels


def their_runs(calls: int, x: Tensor) -> dict[str, dict[str, Run]]:
    """Return, for each peer, its runs of a number of calls by the name of their setting."""
    dpm, uni, dei = (f"{k}MultistepScheduler" for k in ("DPMSolver", "UniPC", "DEIS"))
    runs: dict[str, dict[str, Run]] = {}

    def add(peer: str, setting: str, run: Run) -> None:
        runs.setdefault(peer, {})[setting] = run

    for spacing in ("linspace", "leading", "trailing"):
        for to_data in (True, False):
            end = f"{spacing}, {'zero' if to_data else 'sigma_min'}"
            if spacing != "linspace" or calls > 1:
                add("DDIM", end, drive_table("DDIMScheduler", calls, spacing, to_data, x))
            if calls > 2:
                add("PNDM", end, drive_table("PNDMScheduler", calls - 1, spacing, to_data, x))
    for name, last, levels in their_grids(calls):
        label = f"{name}, {last}"
        if last != "denoise":
            add("DDIM", label, multistep(dpm, last, levels, x, solver_order=1))
            add("Euler", label, drive_unscaled("EulerDiscreteScheduler", levels, x))
            add("iPNDM", label, drive_ipndm(levels, x))
        lowers = (True, False) if calls <= 15 else (True,)  # from 15 steps on it does nothing
        for order in (2, 3):
            for lower in lowers:
                options = {"solver_order": order, "lower_order_final": lower}
                end = f"{label}, lower order {'last' if lower else 'never'}"
                if last != "denoise":
                    add(f"DPM++{order}M", end, multistep(dpm, last, levels, x, **options))
                if last == "zero":  # DEIS cannot step to no noise: the denoiser finishes
                    add(f"DEIS-{order}", end, multistep(dei, "denoise", levels[:-1], x, **options))
                else:
                    add(f"DEIS-{order}", end, multistep(dei, last, levels, x, **options))
            for lower in (True, False) if last == "stay" else (True,):
                options = {"solver_order": order, "lower_order_final": lower}
                end = f"{label}, lower order {'last' if lower else 'never'}"
                for kind in ("bh1", "bh2"):
                    if last != "denoise":
                        options["solver_type"] = kind
                        add(
                            f"UniPC-{order} {kind}", end, multistep(uni, last, levels, x, **options)
                        )
    for name, last, levels in their_grids((calls + 1) // 2):
        if last == "zero":
            add("Heun", f"{name}, zero", drive_unscaled("HeunDiscreteScheduler", levels, x))
    return runs


def together(
    field: sf.ScoreField, runs: dict[tuple[str, str], Run]
) -> dict[tuple[str, str], Tensor]:
    """Advance many runs at once, with one call of the field for all of them; return their ends."""
    ends: dict[tuple[str, str], Tensor] = {}
    answers: dict[tuple[str, str], Tensor | None] = dict.fromkeys(runs)
    while answers:
        asked = {}
        for key, answer in answers.items():
            try:
                asked[key] = next(runs[key]) if answer is None else runs[key].send(answer)
            except StopIteration as stop:
                ends[key] = stop.value
        answers = {}
        keys = list(asked)
        width = max(1, NUMBERS // max((x.numel() for x, _ in asked.values()), default=1))
        for k in range(0, len(keys), width):
            part = keys[k : k + width]
            x = torch.cat([asked[key][0] for key in part]).double()
            levels = torch.stack([asked[key][1].double() for key in part])
            found = eps_at(field, x, levels.repeat_interleave(len(x) // len(part)))
            answers.update(zip(part, found.chunk(len(part)), strict=True))
    return ends


def theirs(made: Problem, counts: tuple[int, ...], few: int) -> dict[str, dict[int, dict]]:
    """Return for each peer and number of calls its best setting and what that reaches."""
    best: dict[str, dict[int, dict]] = {}
    kept: dict[str, set[str]] = {}
    for calls in counts:
        print(f"{made.name}: {calls} calls", file=sys.stderr, flush=True)
        runs = their_runs(calls, made.x[:few])
        flat = {
            (peer, setting): run
            for peer, settings in runs.items()
            for setting, run in settings.items()
            if calls <= 20 or peer not in kept or setting in kept[peer]
        }
        mean = {k: float(made.errors(v).mean()) for k, v in together(made.field, flat).items()}
        ranks = {
            peer: sorted(
                (k for k in mean if k[0] == peer and math.isfinite(mean[k])), key=mean.__getitem__
            )
            for peer in runs
        }
        if calls <= 20:
            kept = {peer: {setting for _, setting in rank[:8]} for peer, rank in ranks.items()}
        again = their_runs(calls, made.x)
        final = {key: again[key[0]][key[1]] for rank in ranks.values() for key in rank[:3]}
        for (peer, setting), x in together(made.field, final).items():
            row = {"setting": setting, **summary(made.errors(x))}
            rows = best.setdefault(peer, {})
            if calls not in rows or row["mean"] < rows[calls]["mean"]:
                rows[calls] = row
    return best


# Ours


def ours(made: Problem, counts: tuple[int, ...]) -> dict[str, dict[int, dict]]:
    """Return what the default plan reaches on the library's own process; every call is counted."""
    field, rows = made.field.under(sf.VP()), {}
    for calls in counts:
        with sf.count_calls(field) as counted:
            x = sf.sample(
                field,
                len(made.x),
                sf.default_plan(field, calls),
                seed=SEED,
                batch_size=len(made.x),
                dtype=torch.float64,
            )
        assert counted.count == calls
        rows[calls] = {"setting": "default_plan", **summary(made.errors(x))}
    return {"scorefield": rows}


# The report


def summary(errors: Tensor) -> dict[str, float]:
    """Return the mean, median, root mean square and 99th percentile of the samples' errors."""
    return {
        "mean": float(errors.mean()),
        "median": float(errors.median()),
        "rms": float(errors.square().mean().sqrt()),
        "p99": float(errors.quantile(0.99)),
    }


def solve(name: str, counts: tuple[int, ...], samples: int, few: int, folder: str | None) -> dict:
    """Return everything measured on one problem."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    made = problem(name, samples, folder)
    return {
        "problem": name,
        "dimension": made.end[0].numel(),
        "data_std": made.field.data_std,
        "samples": samples,
        "reference": made.checks,
        "theirs": theirs(made, counts, few),
        "ours": ours(made, counts),
        "seconds": round(time.monotonic() - began, 1),
    }


def best_peer(result: dict, calls: int) -> tuple[str, dict]:
    """Return the peer with the smallest mean error."""
    rows = {peer: row[calls] for peer, row in result["theirs"].items() if calls in row}
    peer = min(rows, key=lambda name: rows[name]["mean"])
    return peer, rows[peer]


def show(result: dict, counts: tuple[int, ...]) -> None:
    """Print the table of one problem."""
    print(f"\n{result['problem']}: {result['samples']} samples, d = {result['dimension']}, "
          f"data_std = {result['data_std']:.3f}, {result['seconds']:.0f} s")  # fmt: skip
    print("reference: " + ", ".join(f"{k} {v:.1e}" for k, v in result["reference"].items()))
    print(f"{'mean error':24s}" + "".join(f"{n:>9d}" for n in counts))
    for name, rows in {**result["theirs"], **result["ours"]}.items():
        cells = (f"{rows[n]['mean']:9.2g}" if n in rows else f"{'-':>9s}" for n in counts)
        print(f"{name:24s}" + "".join(cells))
    for name, rows in result["ours"].items():
        ratios = (rows[n]["mean"] / best_peer(result, n)[1]["mean"] for n in counts)
        print(f"{name + ' / best':24s}" + "".join(f"{r:9.2f}" for r in ratios))
    for n in counts:
        peer, row = best_peer(result, n)
        print(f"  best of theirs at {n}: {peer} ({row['setting']})")


def show_ratios(results: list[dict], counts: tuple[int, ...]) -> None:
    """Print our mean error over that of the best of theirs, everywhere."""
    print(f"\n{'ours / best of theirs':24s}" + "".join(f"{n:>7d}" for n in counts))
    for result in results:
        rows = result["ours"]["scorefield"]
        ratios = [rows[n]["mean"] / best_peer(result, n)[1]["mean"] for n in counts]
        cells = "".join(f"{ratio:7.2f}" for ratio in ratios)
        print(f"  {result['problem']:22s}{cells}   worst {max(ratios):.2f}")


def plot(results: list[dict], counts: tuple[int, ...], path: Path) -> None:
    """Draw error against calls, one chart a problem."""
    charts = []
    for result in results:
        series = [
            Series("schedulers of diffusers", means(rows, counts), INK, faint=True)
            for rows in result["theirs"].values()
        ]
        best = [(n, best_peer(result, n)[1]["mean"]) for n in counts]
        series.append(Series("best of diffusers in hindsight", best, INK, dashed=True))
        for tone, (name, rows) in enumerate(result["ours"].items()):
            points = means(rows, counts)
            series.append(Series(name, points, tone, titles=[f"{y:.3g}" for _, y in points]))
        charts.append(error_chart(result["problem"], series, counts))
    Figure(charts, columns=3, title=DISTANCE).save(path)


def error_chart(problem: str, series: list[Series], counts: tuple[int, ...]) -> Chart:
    """Return a chart of errors against calls, both logarithmic."""
    x = replace(Axis.around("network calls", counts, log=True), ticked=counts)
    y = Axis.around(DISTANCE, [y for one in series for _, y in one.points], log=True)
    return Chart(f"{DISTANCE} for {problem}", x, y, series, title=problem)


def means(rows: dict, counts: tuple[int, ...]) -> list[tuple[float, float]]:
    """Return the mean error for each number of calls that was measured."""
    return [(n, rows[n]["mean"]) for n in counts if n in rows]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer budgets and samples")
    parser.add_argument("--run", help="folder of a trained run for the network problem")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--workers", type=int, default=2, help="problems at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    counts = QUICK if options.quick else CALLS
    names = [n for n in PROBLEMS if n in options.only]
    if options.quick and not options.run:
        names = [n for n in names if n != "network"]
    sizes = {"ring2": 512, "moons2": 512, "narrow8": 384, "mixture16": 256}
    few = 8 if options.quick else 24
    order = sorted(names, key=("network", "digits64", *EXACT).index)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        jobs = {
            n: pool.submit(
                solve, n, counts, sizes.get(n, 128) // (4 if options.quick else 1), few, options.run
            )
            for n in order
        }
        results = [jobs[n].result() for n in names]
    for result in results:
        show(result, counts)
    show_ratios(results, counts)
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "scipy": scipy.__version__,
        "scorefield": sf.__version__,
    }
    written = {"versions": versions, "calls": counts, "results": results}
    (options.out / "solvers.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    plot(results, counts, options.out / "solvers.png")


if __name__ == "__main__":
    main()
