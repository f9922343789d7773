r"""Log-densities of data under a score field.

With ``y = x / alpha``, ``r = sigma / alpha`` and ``eps = E[eps | x]``, the probability-flow ODE of
every process is ``dy/dr = eps``, the score of ``y`` is ``-eps / r``, and the density ``q`` of ``y``
obeys ``dq/dr + div(q eps) = 0``. So along *any* path ``y(r)`` from the data to the prior::

    log q(y_0, r_0) = log q(y_1, r_1) + int [Q + eps . (dy/dr - eps)] dlog r        (1)
    Q = sigma tr(d eps / d x) = d - tr(d E[x_0 | x] / d y)                          (2)

The second term of (1) vanishes on the ODE's own path, where this is the change of variables of
continuous flows. On the path of a solver, which is only close, it is the first order of the effect
of the solver's error. A learned score is not quite the gradient of a density, least of all close to
the data, where the term is faded out; with 48 nodes or more, where the first order dominates, the
faded term is added to the value. The rest of the whole term is reported as an error.

The Gaussian part is done in closed form. For data of covariance eigenvalues ``e_k``, ``Q`` is near
``sum_k r^2 / (e_k + r^2)``, which is taken out of the integral and integrated exactly, and the
distribution at ``r_1`` is near ``N(mean, covariance + r_1^2)``, from which `Moments`
starts. The rest is summed over fixed `scorefield.likelihood.nodes`, or by a solver's
`scorefield.likelihood.steps`.

Reference: Chen et al. (2018), arXiv:1806.07366; Grathwohl et al. (2019), arXiv:1810.01367
(probes); Song et al. (2021), arXiv:2011.13456, appendix D.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from numbers import Integral

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError
from scorefield.field import ScoreField, check_starts_at_noise
from scorefield.likelihood.coordinates import Coordinates
from scorefield.likelihood.divergence import PROBE_BITS, Directions
from scorefield.likelihood.moments import Moments, PriorName, resolved
from scorefield.likelihood.nodes import Nodes
from scorefield.likelihood.result import Likelihood
from scorefield.likelihood.steps import END_CALLS, Steps
from scorefield.noise import PROBES, Noise
from scorefield.process import balanced, check_positive, time_near, widest
from scorefield.sampling import (
    ROUND_TRIP,
    Adaptive,
    Plan,
    batch_rows,
    batches,
    check_ode,
    check_samples,
    filled,
    for_batch,
    not_finite,
    resolve,
)
from scorefield.solvers import Dopri5, Solver

DEFAULT_CALLS = 40
_FEWEST, _MOST = 8, 2**10
_TOP = 200.0  # the noise at the prior's end, in the data's deviations
_EXACT = 128  # coordinates up to which the trace is exact by default
_PROBES = 8


def log_prob(
    field: ScoreField,
    x: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    *,
    nfe: int | None = None,
    probes: int | None = None,
    stderr: float | None = None,
    max_probes: int = 4096,
    prior: Moments | PriorName = "moments",
    ids: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Likelihood:
    """Return the log-density of each sample of ``x`` ``(B, *field.shape)``, in the field's units.

    The value of a sample depends on the sample, its id, ``seed`` and the settings, not on the
    others: at one ``batch_size`` it is the same to the last bit alone and in any batch. It carries
    no gradient, and an ``x`` that asks for one is rejected: the log-density's gradient is the
    field's score, ``alpha field(alpha * x, t_min).score``.

    A field with one noise level per coordinate takes a grid, by the default solver as well, without
    an estimate of its error.

    Args:
        solver: a solver of the ODE, or a `Plan` of one, that integrates sample and log-density
            together. Without it, and without times, a quadrature along the path; on a space
            adaptive steps of `Dopri5`.
        times: as for `scorefield.encode`, a grid or a number of steps; ``x`` is the data at its
            last time. Or `Adaptive`: each sample chooses its steps, so that the error of a step is
            within the tolerances, for the integral in nats; by `Dopri5` without a solver.
        nfe: calls of the field for each sample, 8 or more; 40 by default.
        probes: for the trace, 2 or more; 0 for an exact trace. By default exact up to 128
            coordinates and 8 probes beyond.
        stderr: instead of probes: double them until each sample's standard error is within this,
            at ``nfe`` more calls every time; exact where that costs no more products.
        max_probes: how far ``stderr`` may go.
        prior: the distribution at the noisiest end: the data's moments, from field or `Moments`;
            or "standard", for data of zero mean and unit variance.
        ids: which samples these are, as the probes' key; by default ``0 .. B-1``.
        batch_size: as for `scorefield.sample`; with the nodes and ``d`` it makes up the memory.

    Raises:
        ValueError: settings out of range, or that exclude each other; a shape that is not the
            field's, a value that is not finite, an ``x`` that requires a gradient, a network in
            training, a `Product`, which has no density.
        NumericalError: ``stderr`` is not met with ``max_probes``; a log-density is not finite; more
            adaptive steps than ``max_steps``.
    """
    x, rows = check_samples(field, x, ids, batch_size)
    check_density(field)
    check_no_gradient(x)
    _check(nfe, probes, stderr, max_probes)
    dim = math.prod(field.shape)
    exact = probes == 0 or (probes is None and dim <= (_EXACT if stderr is None else _PROBES))
    directions = Directions(0 if exact else _PROBES if probes is None else probes)
    if field.process.space is not None and prior != "moments":
        raise ValueError("prior: on a space it is uniform, with the moments of Euclidean parts.")
    moments = resolved(field, prior).to(x.device)
    top = last_time(field, moments)
    goal, most = (math.inf, 0) if stderr is None else (stderr, max_probes)
    with torch.inference_mode(False):  # whose tensors no gradient could be taken of
        rule: Callable[[ScoreField], Nodes | Steps | Coordinates]
        if field.process.coordinates:
            plan = _plan(field, solver, times, nfe, field.process.t_max, stderr)
            rule = partial(Coordinates, plan=plan, moments=moments, directions=directions)
        elif solver is None and times is None and field.process.space is None:
            count = DEFAULT_CALLS if nfe is None else nfe
            rule = partial(Nodes, count=count, moments=moments, top=top, directions=directions)
        else:
            plan = _plan(field, solver, times, nfe, top, stderr)
            rule = partial(Steps, plan=plan, moments=moments, top=top, directions=directions)
        along = rule(field)
        x = x.clone()
        dtype = widest(x.device)
        out = x.new_zeros(len(fields(Likelihood)), len(x), dtype=dtype)
        size = batch_rows(len(rows), batch_size)
        for places, at, slots in batches(rows, size):
            batch = filled(x, places, at, size).to(dtype)
            noise = Noise(seed, slots.to(x.device), stream=PROBES)
            if field.rows > 1:
                along = rule(for_batch(field, places, at, size, len(x)))
            out[:, places] = along.solve(batch, noise, at, goal, most)
    result = Likelihood(*out)
    if not bool((result.stderr <= goal).all()):
        worst = int(result.stderr.argmax())
        raise NumericalError(
            f"stderr={goal:g} is not met with {max_probes} probes: sample {rows[worst]} has "
            f"{float(result.stderr[worst]):.2g}. Give a larger stderr or max_probes, or probes=0."
        )
    if bad := [rows[k] for k in not_finite(result.value)]:
        raise NumericalError(f"the log-density of samples {bad[:5]} is not finite.")
    return result


def check_density(field: ScoreField) -> None:
    """Reject a field whose scores are not those of one distribution, noised."""
    check_starts_at_noise(field)
    if not field.has_density:
        raise ValueError(
            "field: a Product has no density, since its scores are not those of noised data. "
            "Compute the log-density of each of its fields."
        )


def check_no_gradient(x: Tensor) -> None:
    """Reject samples whose gradient is recorded, for results that carry none."""
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "x requires a gradient, and a likelihood carries none: pass x.detach(). The gradient "
            "of the log-density is alpha * field(alpha * x, t_min).score."
        )


def last_time(field: ScoreField, moments: Moments) -> float:
    """Return the time of the prior: where the noise is 200 deviations of the data, or ``t_max``."""
    check_positive(data_std=moments.deviation)
    return time_near(field.process, _TOP * moments.deviation)


def _plan(
    field: ScoreField,
    solver: Solver | Plan | None,
    times: Tensor | int | Adaptive | None,
    nfe: int | None,
    top: float,
    stderr: float | None,
) -> Plan:
    """Return the plan of a solver or times, or raise an error if they cannot give a likelihood."""
    if stderr is not None:
        raise ValueError(f"stderr={stderr:g}: cannot be combined with solver or times; use probes.")

    def grid(field: ScoreField, steps: int) -> Tensor:
        end, c = field.process.t_min, field.data_std
        return balanced(field.process, steps, start=top, end=end, data_std=c, power=6.0)

    space = field.process.space
    if solver is None and (isinstance(times, Adaptive) or space):
        solver = Dopri5()
        if times is None and nfe is None:
            times = Adaptive(1e-5, 1e-5)
    if nfe is not None and times is None and not isinstance(solver, Plan):
        nfe -= END_CALLS
    default = ROUND_TRIP._replace(grid=grid, steps=DEFAULT_CALLS)
    plan = resolve(field, solver, times, nfe, default)
    if isinstance(plan.times, Adaptive) and (plan.times.start, plan.times.end) != (None, None):
        raise ValueError("a likelihood goes from t_min to the prior: leave start and end out.")
    check_ode(plan.solver)
    return plan


def _check(
    nfe: int | None,
    probes: int | None,
    stderr: float | None,
    max_probes: int,
) -> None:
    """Refuse settings out of range."""
    if nfe is not None and (not isinstance(nfe, Integral) or not _FEWEST <= nfe < _MOST):
        raise ValueError(f"nfe={nfe!r}: give a number of calls from {_FEWEST} to {_MOST - 1}.")
    if probes is not None and stderr is not None:
        raise ValueError(f"probes={probes} and stderr={stderr:g}: leave one of them out.")
    if probes is not None and (
        not isinstance(probes, Integral) or probes == 1 or not 0 <= probes < 2**PROBE_BITS
    ):
        raise ValueError(
            f"probes={probes!r}: give 0 for an exact trace, or 2 to {2**PROBE_BITS - 1}, for "
            "a standard error."
        )
    if stderr is not None:
        check_positive(stderr=stderr)
    if not isinstance(max_probes, Integral) or not _PROBES <= max_probes < 2**PROBE_BITS:
        raise ValueError(f"max_probes={max_probes!r}: give {_PROBES} to {2**PROBE_BITS - 1}.")
