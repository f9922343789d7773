r"""The order of a solver of the ODE, against exact paths.

On a product of two mixtures on the line, turned by an angle, the probability flow is known in
closed form: along each axis it carries quantiles to quantiles, ``F_s(x_s) = F_t(x_t)``. The mean
distance to it, over five grids of ``n, 2n, ..., 16n`` steps, falls as ``n^-order``. A process with
one noise level per coordinate has such a form without the turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.evaluate.certify.subjects import Make
from scorefield.field import Mixture
from scorefield.noise import Noise
from scorefield.process import Process, even_log_snr
from scorefield.sampling import count_calls, prepare
from scorefield.solvers import Solver, State

_HIGH, _LOW = 6.0, 0.5  # sigma / alpha at the ends

_WEIGHTS = torch.tensor([[0.4, 0.6], [0.5, 0.5]], dtype=torch.float64)
_MEANS = torch.tensor([[-0.9, 0.6], [-0.5, 0.7]], dtype=torch.float64)
_STDS = torch.tensor([[0.6, 0.5], [0.5, 0.8]], dtype=torch.float64)
_TURN = torch.tensor(
    [[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]], dtype=torch.float64
)
# the starts of the paths, in standard deviations along the axes
_STARTS = 4 * torch.quasirandom.SobolEngine(2).draw(64, dtype=torch.float64) - 2  # type: ignore


def product(process: Process) -> Mixture:
    """Return the field of the product of two mixtures on the line, turned by an angle."""
    turn = _turn(process)
    pairs = [(i, j) for i in range(2) for j in range(2)]
    weights = torch.stack([_WEIGHTS[0, i] * _WEIGHTS[1, j] for i, j in pairs])
    means = torch.stack([turn @ torch.stack([_MEANS[0, i], _MEANS[1, j]]) for i, j in pairs])
    spreads = [torch.stack([_STDS[0, i], _STDS[1, j]]).square().diag() for i, j in pairs]
    covariances = torch.stack([turn @ spread @ turn.T for spread in spreads])
    return Mixture(process, weights, means, covariances)


def _turn(process: Process) -> Tensor:
    return torch.eye(2, dtype=torch.float64) if process.coordinates else _TURN


def exact_ends(process: Process, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return points ``x / alpha`` ``(64, 2)`` at two times that the exact flow connects."""
    alpha, sigma = process.coefficients(process.lift(times))
    (high, low), turn = (sigma / alpha).unbind(), _turn(process)
    begin = (1 + high**2) ** 0.5 * _STARTS
    below, above = torch.full_like(begin, -20.0), torch.full_like(begin, 20.0)
    for _ in range(80):
        middle = 0.5 * (below + above)
        short = _quantile(middle, low) < _quantile(begin, high)
        below, above = torch.where(short, middle, below), torch.where(short, above, middle)
    return begin @ turn.T, below @ turn.T


def _quantile(y: Tensor, ratio: Tensor) -> Tensor:
    """Return the distribution functions along the axes at ``y = x / alpha`` ``(K, 2)``."""
    z = (y[..., None] - _MEANS) / (_STDS**2 + ratio[..., None] ** 2).sqrt()
    quantile: Tensor = (_WEIGHTS * torch.special.ndtr(z)).sum(-1)
    return quantile


def measure_order(make: Make, process: Process, *, to_noise: bool) -> float:
    """Return the order of convergence to the end of the exact path, over halvings of the steps."""
    counts, errors = _counts(make(1), process), []
    field = product(process)
    ends = exact_ends(process, grid(process, 1, _HIGH, _LOW))
    begin, goal = reversed(ends) if to_noise else ends
    for steps in counts:
        times = grid(process, steps, _HIGH, _LOW)
        times = times.flip(0) if to_noise else times
        alpha = process.alpha(process.lift(times[[0, -1]]))
        run = prepare(field, make(steps), times)
        x = run(State(alpha[0] * begin, times[0], Noise(0, torch.arange(len(begin))))).x
        errors.append(float((x / alpha[1] - goal).norm(dim=1).mean()))
    return slope(counts, errors)


def _counts(solver: Solver, process: Process) -> list[int]:
    """Return the steps of the grids, so few that the finest grid's error is not rounding."""
    first, kind = 48 if solver.order == 1 else 32, type(process).__name__
    if solver.calls == 4:
        first = 12
    elif solver.calls == 6:
        first = 18 if kind == "EDM" else 8
    # the coefficients of LinearSDE are integrals, with rounding errors of their own
    return [first * 2**k for k in range(5 - (solver.calls == 6 and kind == "LinearSDE"))]


def grid(process: Process, steps: int, high: float, low: float) -> Tensor:
    """Return times even in log-SNR between two noise levels."""
    levels = torch.tensor([high, low], dtype=torch.float64)
    start, end = process.time(-levels.log()).tolist()
    return even_log_snr(process, steps, start=start, end=end)


def slope(counts: Sequence[int], errors: Sequence[float]) -> float:
    """Return ``p`` of the best fit ``C n^-p |1 + a / n|``; infinite if all error is rounding.

    The second term is the next order's, which on five grids is still visible, or cancels the first.
    Its penalty, ``a^2 / 100`` of squared residual, keeps it from fitting rounding errors.
    """
    if max(errors) < 1e-12:
        return math.inf
    n = torch.tensor(counts, dtype=torch.float64)
    y = torch.tensor(errors, dtype=torch.float64).clamp(min=1e-300).log()
    share = torch.linspace(-8, 8, 3201, dtype=torch.float64)[:, None]
    rest = y - (1 + share * n[0] / n).abs().clamp(min=1e-9).log()
    x = n.log() - n.log().mean()
    p = -(rest * x).sum(1) / (x * x).sum()
    residual = rest - rest.mean(1, keepdim=True) + p[:, None] * x
    best = (residual.square().sum(1) + 1e-2 * share[:, 0] ** 2).argmin()
    return float(p[best])


def calls_per_step(make: Make, process: Process) -> float:
    """Return the calls of the field per step, counted on a grid of 40."""
    field, times = product(process), grid(process, 40, 2.0, 0.5)
    with count_calls(field) as calls:
        x = torch.zeros(1, 2, dtype=torch.float64)
        prepare(field, make(40), times)(State(x, times[0], Noise(0, torch.arange(1))))
    return calls.count / 40
