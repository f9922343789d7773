r"""Certificates: every solver against exact truths, on every process.

*Order.* On a product of two mixtures on the line, turned by an angle, the probability flow is known
in closed form: along each axis it carries quantiles to quantiles, ``F_s(x_s) = F_t(x_t)``. The
mean distance to it, over five grids of steps ``n, 2n, ..., 16n``, falls as ``n^-order``.

*Weak order.* On a Gaussian field a solver is an affine map of the state and of its noise. Carrying
unit vectors instead of samples gives the mean and covariance of its law without sampling error;
their distance to the exact ones falls as ``n^-order``. A Langevin corrector has a law of its own,
``V (1 - delta V^-1 / 2)^-1`` instead of ``V``, and tends to that.

*Law.* 20,000 samples of the solver and as many of the exact law, of a Gaussian and of the mixture,
by the test of Kolmogorov and Smirnov along eight directions; at the end of a grid, and after a
single step. One step changes the law by little, so there only what is grossly wrong shows; how much
noise a step adds is seen exactly by the weak order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field as attribute
from functools import cache
from typing import Any

import torch
from torch import Tensor

from scorefield import solvers
from scorefield._internal.statistics import kolmogorov_smirnov
from scorefield.field import Gaussian, Mixture
from scorefield.noise import Noise
from scorefield.process import LinearSDE, Process, builtin as processes, even_log_snr
from scorefield.sampling import count_calls, prepare
from scorefield.solvers import (
    AnglePrediction,
    DataPrediction,
    Exact,
    Growth,
    Multistep,
    NoisePrediction,
    Power,
    Singlestep,
    Solver,
    State,
)

ORDER_TOLERANCE, WEAK_TOLERANCE, LEVEL = 0.15, 0.25, 1e-3
_HIGH, _LOW = 6.0, 0.5  # sigma / alpha where the order is measured
_COUNT, _DIRECTIONS = 20_000, 8
_LARGE, _SMALL = (0.5, 4), (0.1, 1)  # Langevin moves: their size and number

Make = Callable[[int], Solver]


def _always(solver: Solver) -> Make:
    return lambda steps: solver


_A, _D, _N = AnglePrediction(), DataPrediction(), NoisePrediction()

# name: a solver, for a grid of so many steps
ODE_SOLVERS: dict[str, Make] = {
    "Euler": _always(solvers.Euler()),
    "Midpoint": _always(solvers.Midpoint()),
    "Heun": _always(solvers.Heun()),
    "Bosh3": _always(solvers.Bosh3()),
    "RK4": _always(solvers.RK4()),
    "Dopri5": _always(solvers.Dopri5()),
    "Tsit5": _always(solvers.Tsit5()),
    "EulerMaruyama(0)": _always(solvers.EulerMaruyama(0.0)),
    "DDIM": _always(solvers.DDIM()),
    "Singlestep(2, data)": _always(Singlestep(2)),
    "Singlestep(3, data)": _always(Singlestep(3)),
    "Singlestep(2, noise)": _always(Singlestep(2, _N)),
    "Singlestep(3, noise)": _always(Singlestep(3, _N)),
    "Singlestep(3, angle)": _always(Singlestep(3, _A)),
    **{
        f"Multistep({order}, {name})": _always(Multistep(order, kind))
        for order in range(1, 6)
        for name, kind in (("angle", _A), ("data", _D), ("noise", _N))
    },
    "Multistep(4, angle, growth)": _always(Multistep(4, _A, Exact(Growth()))),
    "Multistep(5, angle, growth)": _always(Multistep(5, _A, Exact(Growth()))),
    "Multistep(3, data, power)": _always(Multistep(3, _D, Exact(Power(7.0)))),
    "DEIS(3)": _always(solvers.deis(3)),
    "UniPC(1)": _always(solvers.unipc(1)),
    "UniPC(2)": _always(solvers.unipc(2)),
    "UniPC(3)": _always(solvers.unipc(3)),
    "UniPC(2, noise)": _always(solvers.unipc(2, prediction=_N)),
    "UniPC(4, angle)": _always(solvers.unipc(4, prediction=_A)),
    "DPM-Solver++(2M), published": _always(solvers.dpm_solver_pp(2, published=True)),
    "UniPC(2, bh1), published": _always(solvers.unipc(2, variant="bh1", published=True)),
    "Reversible(DDIM)": _always(solvers.Reversible(solvers.DDIM())),
    "Reversible(Singlestep(2))": _always(solvers.Reversible(Singlestep(2))),
    "Program(Heun, Singlestep(2), Multistep(2))": _always(
        solvers.Program((solvers.Heun(), Singlestep(2), Multistep(2)), (5.0, 1.5))
    ),
}
# by the size of the moves: the order is measured with large ones, the law with small ones
_BIASED: dict[str, Callable[[tuple[float, int]], Solver]] = {
    "PredictorCorrector(DDIM, Langevin)": lambda size: solvers.PredictorCorrector(
        solvers.DDIM(), solvers.Langevin(*size)
    ),
    "PredictorCorrector(Multistep(2), Langevin)": lambda size: solvers.PredictorCorrector(
        Multistep(2), solvers.Langevin(*size)
    ),
    "AnnealedLangevin": lambda size: solvers.annealed_langevin(*size),
}


SDE_SOLVERS: dict[str, Make] = {
    "EulerMaruyama": _always(solvers.EulerMaruyama()),
    "EulerMaruyama(0.5)": _always(solvers.EulerMaruyama(0.5)),
    "StochasticHeun": _always(solvers.StochasticHeun()),
    "ReverseDiffusion": _always(solvers.ReverseDiffusion()),
    "DDIM(0.5)": _always(solvers.DDIM(0.5)),
    "DDIM(1)": _always(solvers.DDIM(1.0)),
    "DDPM(forward)": _always(solvers.DDPM("forward")),
    "SDE-DPM-Solver++(1)": _always(solvers.dpm_solver_pp(1, sde=True)),
    "SDE-DPM-Solver++(2M)": _always(solvers.dpm_solver_pp(2, sde=True)),
    "Multistep(2, noise, 0.5)": _always(Multistep(2, _N, eta=0.5)),
    "Multistep(2, angle, 1)": _always(Multistep(2, _A, eta=1.0)),
    "Ancestral(DDIM)": _always(solvers.Ancestral(solvers.DDIM())),
    "Ancestral(Heun, 0.5)": _always(solvers.Ancestral(solvers.Heun(), 0.5)),
    "Ancestral(Singlestep(2))": _always(solvers.Ancestral(Singlestep(2))),
    "Churn(Heun)": lambda steps: solvers.Churn(solvers.Heun(), churn=1.0, steps=steps),
    "Restart(Heun)": lambda steps: solvers.Restart(
        solvers.Heun(), low=0.6, high=1.5, repeats=2, steps=max(1, steps // 2)
    ),
    "Program(Heun, EulerMaruyama, Multistep(2))": _always(
        solvers.Program((solvers.Heun(), solvers.EulerMaruyama(), Multistep(2)), (2.0, 0.8))
    ),
    **{name: _always(make(_LARGE)) for name, make in _BIASED.items()},
}


def _alpha_bar() -> Tensor:
    return (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


PROCESSES: dict[str, Callable[[], Process]] = {
    "VP": processes.VP,
    "SubVP": processes.SubVP,
    "VE": processes.VE,
    "Cosine": processes.Cosine,
    "Flow": processes.Flow,
    "EDM": processes.EDM,
    "LinearSDE": lambda: LinearSDE(
        lambda t: -0.5 * (0.1 + 19.9 * t), lambda t: (0.1 + 19.9 * t).sqrt()
    ),
    "Tabulated": lambda: processes.Tabulated(_alpha_bar()),
}


@dataclass(frozen=True)
class Certificate:
    """What was claimed of a solver on a process, and what was seen.

    Attributes:
        solver, process: their names.
        claim: the order of convergence, weak for a solver of the SDE.
        observed: the orders seen: to data and to noise, or of mean and covariance; infinite where
            the error is rounding.
        law: p-values of the law's tests; empty for solvers of the ODE.
        calls: of the field, per step.
        passed: the observed orders lie within 0.15 of the claim (0.25 for a weak order), and no
            p-value, corrected for the number of directions, is below 0.001.
    """

    solver: str
    process: str
    claim: int
    observed: tuple[float, ...]
    calls: float
    law: tuple[float, ...] = ()
    tolerance: float = attribute(default=ORDER_TOLERANCE, repr=False)

    @property
    def cell(self) -> str:
        """What was seen, in short: both orders, or the orders and the smallest p-value."""
        seen = " ".join("exact" if o == math.inf else f"{o:.2f}" for o in self.observed)
        law = f", p {min(self.law):.2g}" if self.law else ""
        return seen + law + ("" if self.passed else " FAIL")

    @property
    def passed(self) -> bool:
        near = all(abs(o - self.claim) <= self.tolerance or o == math.inf for o in self.observed)
        return near and all(p > LEVEL for p in self.law)


def choose(what: str) -> tuple[list[str], list[str]]:
    """Return the names of solvers and processes that a word stands for.

    Args:
        what: ``"all"``, the name of a process, or a solver's name or its beginning; in any case.

    Raises:
        ValueError: it is none of them.
    """
    solver_names, process_names = [*ODE_SOLVERS, *SDE_SOLVERS], list(PROCESSES)
    word = what.lower()
    if word == "all":
        return solver_names, process_names
    named = [name for name in process_names if name.lower() == word]
    if named:
        return solver_names, named
    begun = [name for name in solver_names if name.lower().startswith(word)]
    exact = [name for name in begun if name.lower() == word]
    if not begun:
        raise ValueError(
            f"{what!r} is no solver or process that is certified. Processes: "
            f"{', '.join(process_names)}. Solvers: {', '.join(solver_names)}."
        )
    return exact or begun, process_names


def certify(solver: str, process: str) -> Certificate:
    """Return the certificate of a solver on a process."""
    return certify_ode(solver, process) if solver in ODE_SOLVERS else certify_sde(solver, process)


def header(process_names: Sequence[str]) -> list[str]:
    """Return the two lines that begin a Markdown table of certificates."""
    titles = ["solver", "order", "calls", *process_names]
    return [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]


def line(certificates: Sequence[Certificate]) -> str:
    """Return one solver's line of the table, from its certificates on the processes in turn."""
    first = certificates[0]
    claim = f"{first.claim}" + (" weak" if first.law else "")
    claim += ", its own distribution" if first.solver in _BIASED else ""
    cells = [first.solver, claim, f"{first.calls:g}", *(c.cell for c in certificates)]
    return f"| {' | '.join(cells)} |"


def certify_ode(solver: str, process: str) -> Certificate:
    """Measure the order of a solver of the ODE, in both directions."""
    make, on = ODE_SOLVERS[solver], PROCESSES[process]()
    # coarse enough that the finest grid's error is not rounding
    first = {1: 48, 2: 32, 3: 32, 4: 32, 5: 32}[make(1).order]
    first = {4: 12, 6: 18 if process == "EDM" else 8}.get(make(1).calls, first)
    observed = tuple(order_seen(make, on, up, first) for up in (False, True))
    return Certificate(solver, process, make(1).order, observed, calls_per_step(make, on))


def certify_sde(solver: str, process: str) -> Certificate:
    """Measure the weak order of a solver of the SDE, and test its law."""
    make, on = SDE_SOLVERS[solver], PROCESSES[process]()
    kinds = [(kind, steps) for kind in ("gaussian", "mixture") for steps in (20, 1)]
    law = tuple(law_seen(solver, on, kind, steps) for kind, steps in kinds)
    claim = make(1).weak_order
    assert claim is not None
    observed = weak_order_seen(solver, on)
    return Certificate(
        solver, process, claim, observed, calls_per_step(make, on), law, WEAK_TOLERANCE
    )


# --- order ---------------------------------------------------------------------------------------

_WEIGHTS = torch.tensor([[0.4, 0.6], [0.5, 0.5]], dtype=torch.float64)
_MEANS = torch.tensor([[-0.9, 0.6], [-0.5, 0.7]], dtype=torch.float64)
_STDS = torch.tensor([[0.6, 0.5], [0.5, 0.8]], dtype=torch.float64)
_TURN = torch.tensor(
    [[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]], dtype=torch.float64
)
# where paths start, in standard deviations along the axes
_STARTS = 4 * torch.quasirandom.SobolEngine(2).draw(64, dtype=torch.float64) - 2  # type: ignore


def product(process: Process) -> Mixture:
    """Return the field of the product of two mixtures on the line, turned by an angle."""
    pairs = [(i, j) for i in range(2) for j in range(2)]
    weights = torch.stack([_WEIGHTS[0, i] * _WEIGHTS[1, j] for i, j in pairs])
    means = torch.stack([_TURN @ torch.stack([_MEANS[0, i], _MEANS[1, j]]) for i, j in pairs])
    spreads = [torch.stack([_STDS[0, i], _STDS[1, j]]).square().diag() for i, j in pairs]
    covariances = torch.stack([_TURN @ spread @ _TURN.T for spread in spreads])
    return Mixture(process, weights, means, covariances)


@cache
def exact_ends(high: float, low: float) -> tuple[Tensor, Tensor]:
    """Return points ``x / alpha`` ``(64, 2)`` at two noise levels that the exact flow connects."""
    begin = (1 + high**2) ** 0.5 * _STARTS
    below, above = torch.full_like(begin, -20.0), torch.full_like(begin, 20.0)
    for _ in range(80):
        middle = 0.5 * (below + above)
        short = _quantile(middle, low) < _quantile(begin, high)
        below, above = torch.where(short, middle, below), torch.where(short, above, middle)
    return begin @ _TURN.T, below @ _TURN.T


def _quantile(y: Tensor, ratio: float) -> Tensor:
    """Return the distribution functions along the axes at ``y = x / alpha`` ``(K, 2)``."""
    z = (y[..., None] - _MEANS) / (_STDS**2 + ratio**2).sqrt()
    quantile: Tensor = (_WEIGHTS * torch.special.ndtr(z)).sum(-1)
    return quantile


def order_seen(make: Make, process: Process, up: bool, first: int) -> float:
    """Return the order at which the end of the exact path is met, over four halvings."""
    errors, counts = [], [first * 2**k for k in range(5)]
    field, ends = product(process), exact_ends(_HIGH, _LOW)
    begin, goal = reversed(ends) if up else ends
    for steps in counts:
        times = _times(process, steps, _HIGH, _LOW, up)
        alpha = process.alpha(times[[0, -1]])
        run = prepare(field, make(steps), times)
        x = run(State(alpha[0] * begin, times[0], Noise(0, torch.arange(len(begin))))).x
        errors.append(float((x / alpha[1] - goal).norm(dim=1).mean()))
    return _slope(counts, errors)


# --- weak order ----------------------------------------------------------------------------------

_MEAN = torch.tensor([0.8, -0.5], dtype=torch.float64)
_COVARIANCE = torch.tensor([[0.9, 0.4], [0.4, 0.5]], dtype=torch.float64)
_IDENTITY = torch.eye(2, dtype=torch.float64)


@dataclass(frozen=True)
class _Probe:
    """Noise that is a unit vector of its own in each draw, to read off what a solver does with it.

    The batch holds the state's constant part, its unit vectors, and those of each draw.
    """

    draws: list[int]
    dim: int

    def normal(self, like: Tensor) -> tuple[Tensor, _Probe]:
        z, first = torch.zeros_like(like), 1 + self.dim * (1 + len(self.draws))
        rows = torch.arange(first, first + self.dim)
        if len(like) > first:
            z[rows, torch.arange(self.dim)] = 1
        self.draws.append(first)
        return z, self

    def increment(self, start: Any, end: Any, like: Tensor) -> tuple[Tensor, _Probe]:
        return self.normal(like)


def affine_law(field: Gaussian, solver: Solver, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and covariance of a solver's law at the end of a grid, exactly."""
    mean, covariance = _gaussian_at(field.process, times[0])
    dim, run = len(mean), prepare(field, solver, times)
    draws: list[int] = []
    run(State(mean[None], times[0], _Probe(draws, dim)))  # type: ignore[arg-type]
    x = mean.expand(1 + dim * (1 + len(draws)), dim).clone()
    x[1 : 1 + dim] += torch.linalg.cholesky(covariance).T
    x = run(State(x, times[0], _Probe([], dim))).x  # type: ignore[arg-type]
    columns = x[1:] - x[0]
    return x[0], columns.T @ columns


def weak_order_seen(name: str, process: Process) -> tuple[float, float]:
    """Return the orders at which mean and covariance of a Gaussian are met, over four halvings."""
    counts, errors = [16 * 2**k for k in range(5)], []
    field = Gaussian(process, _MEAN, _COVARIANCE)
    for steps in counts:
        times = _times(process, steps, 4.0, 0.5, up=False)
        mean, covariance = affine_law(field, SDE_SOLVERS[name](steps), times)
        exact_mean, exact_covariance = _gaussian_at(process, times[-1])
        if name in _BIASED:
            alpha, sigma = process.coefficients(times[-1])
            delta = 2 * alpha * (_LARGE[0] * sigma) ** 2
            bias = _IDENTITY - 0.5 * delta * exact_covariance.inverse()
            exact_covariance = exact_covariance @ bias.inverse()
        scale = exact_covariance.norm()
        gaps = (mean - exact_mean).norm() / scale.sqrt(), (covariance - exact_covariance).norm()
        errors.append([float(gaps[0]), float(gaps[1] / scale)])
    of_mean, of_covariance = zip(*errors, strict=True)
    return _slope(counts, of_mean), _slope(counts, of_covariance)


def _gaussian_at(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = process.coefficients(t)
    return alpha * _MEAN, alpha**2 * _COVARIANCE + sigma**2 * _IDENTITY


# --- law -----------------------------------------------------------------------------------------


def law_seen(name: str, process: Process, kind: str, steps: int) -> float:
    """Return the p-value of a solver's samples against as many of the exact law.

    Args:
        kind: the field, ``"gaussian"`` or ``"mixture"``.
        steps: of the grid; 1 for a single, shorter step.
    """
    field = Gaussian(process, _MEAN, _COVARIANCE) if kind == "gaussian" else product(process)
    solver = SDE_SOLVERS[name](steps)
    if name in _BIASED:
        solver = _BIASED[name]((0.3, 10) if name == "AnnealedLangevin" else _SMALL)
    high, low = (2.0, 0.5) if steps > 1 else (1.0, 0.9)
    times = _times(process, steps, high, low, up=False)
    ids = torch.arange(_COUNT)
    begin, exact = (
        _exact(field, t, Noise(seed, ids)) for seed, t in ((2, times[0]), (3, times[-1]))
    )
    noise: Any = _Walked(Noise(1, ids))
    x = prepare(field, solver, times)(State(begin, times[0], noise)).x
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * math.pi / _DIRECTIONS
    directions = torch.stack([angles.cos(), angles.sin()])
    p = [
        kolmogorov_smirnov(a, b)
        for a, b in zip((x @ directions).T, (exact @ directions).T, strict=True)
    ]
    return min(1.0, min(p) * _DIRECTIONS)


@dataclass(frozen=True)
class _Walked:
    """Noise whose path is looked up: certificates walk it between the same levels many times."""

    noise: Noise

    def normal(self, like: Tensor) -> tuple[Tensor, _Walked]:
        z, noise = self.noise.normal(like)
        return z, _Walked(noise)

    def increment(self, start: float, end: float, like: Tensor) -> tuple[Tensor, _Walked]:
        return _increment(self.noise.seed, round(start, 9), round(end, 9)), self


@cache
def _increment(seed: int, start: float, end: float) -> Tensor:
    """Return the paths' way between two places, `_COUNT` samples in two dimensions."""
    like = torch.empty(_COUNT, 2, dtype=torch.float64)
    return Noise(seed, torch.arange(_COUNT)).increment(start, end, like)[0]


def _exact(field: Mixture, t: Tensor, noise: Noise) -> Tensor:
    """Return samples of the exact law at ``t``."""
    like = torch.empty(0, dtype=torch.float64)
    choice, noise = noise.uniform(like)
    spread, noise = noise.draw(field.shape, like)
    eps, _ = noise.draw(field.shape, like)
    return field.process.perturb(field.data(spread, choice), t, eps)


# --- shared --------------------------------------------------------------------------------------


def _times(process: Process, steps: int, high: float, low: float, up: bool) -> Tensor:
    """Return times even in log-SNR between two noise levels."""
    levels = torch.tensor([high, low], dtype=torch.float64)
    start, end = process.time(-levels.log()).tolist()
    times = even_log_snr(process, steps, start=start, end=end)
    return times.flip(0) if up else times


def _slope(counts: Sequence[int], errors: Sequence[float]) -> float:
    """Return ``p`` of the best fit ``C n^-p |1 + a / n|``; infinite if all error is rounding.

    The second term is the next order's, which at five grids is still seen, or cancels the first. It
    has a price, ``a^2 / 100`` of squared misfit, so that it does not follow rounding.
    """
    if max(errors) < 1e-12:
        return math.inf
    n = torch.tensor(counts, dtype=torch.float64)
    y = torch.tensor(errors, dtype=torch.float64).clamp(min=1e-300).log()
    share = torch.linspace(-8, 8, 3201, dtype=torch.float64)[:, None]
    rest = y - (1 + share * n[0] / n).abs().clamp(min=1e-9).log()
    x = n.log() - n.log().mean()
    p = -(rest * x).sum(1) / (x * x).sum()
    miss = rest - rest.mean(1, keepdim=True) + p[:, None] * x
    best = (miss.square().sum(1) + 1e-2 * share[:, 0] ** 2).argmin()
    return float(p[best])


def calls_per_step(make: Make, process: Process) -> float:
    """Return the calls of the field per step, counted on a grid of 40."""
    field, times = product(process), _times(process, 40, 2.0, 0.5, up=False)
    with count_calls(field) as calls:
        x = torch.zeros(1, 2, dtype=torch.float64)
        prepare(field, make(40), times)(State(x, times[0], Noise(0, torch.arange(1))))
    return calls.count / 40
