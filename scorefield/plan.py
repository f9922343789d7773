r"""Plans: a solver and its times; and what to do with a field that nobody has measured yet.

`default_plan` is one rule for every field. With ``N`` calls and the data's deviation ``c``, in
``r = sigma / alpha`` and its growth ``g = log(1 + (r / c)^2)``:

- it starts at ``r = 0.75 N^2 c``, if the process goes higher, from the Gaussian of the data's mean
  and variance: above, the path is nearly that of the Gaussian, and so few calls do not see more;
- its times are equally spaced in ``g^(1/q)``, with ``q`` from 3 to 4; from 5 calls on its last step
  goes to the data, with no call at its end, and below the denoiser finishes;
- it follows the probability-flow ODE by `Multistep` on the noise angle, the order rising with ``N``
  from 2 to 5, by polynomials in the noise angle itself below 5 calls and in a power of ``g`` from
  there on.

The constants were chosen by the distance to the ends of exact paths on four fields, three mixtures
and a network, and checked on two others: ``benchmarks/solvers.py``.
"""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.adaptive import Adaptive
from scorefield.field import ScoreField
from scorefield.grid import balanced, check_positive, time_near
from scorefield.solvers import AnglePrediction, Exact, Growth, Multistep, Solver, check_solver

DEFAULT_CALLS = DEFAULT_STEPS = 20
ROUND_TRIP_CALLS = 80


class Plan(NamedTuple):
    """A solver, the times it visits, and how a run ends.

    Attributes:
        solver: the rule of a step.
        times: the grid, falling, ``(N + 1,)``; or `Adaptive`.
        finish: whether the denoiser is called at the last time, to take away what noise is left;
            by `scorefield.sample`, since a solver's run ends at its last time.
    """

    solver: Solver
    times: Tensor | Adaptive
    finish: bool = True


def default_plan(field: ScoreField, nfe: int = DEFAULT_CALLS) -> Plan:
    """Return the general plan of ``nfe`` calls of a field.

    The denoiser's call is the last one below 5 calls, where the times come down to ``t_min``, and
    where a process cannot be continued to the data. What the data has that is narrower than the
    process's lowest noise is lost.

    Raises:
        ValueError: ``nfe < 2``; a field of data without deviation, or with one so small that the
            process's lowest noise hides it.
    """
    process, c = field.process, _scale(field, nfe)
    start = time_near(process, 0.75 * nfe**2 * c)
    lowest = torch.tensor(process.t_min, dtype=torch.float64)
    if start <= process.t_min:
        raise ValueError(
            f"data of deviation {c:g} disappears in the lowest noise of {process!r}, where sigma / "
            f"alpha is {float((-process.half_log_snr(lowest)).exp()):.2g}: give the data unit "
            "deviation, or the process a smaller t_min."
        )
    spacing = 3.0 if nfe < 5 else 3.5 if nfe < 8 else 4.0
    order = 2 if nfe < 5 else 3 if nfe < 12 else 4 if nfe < 20 else 5
    power = 0.25 if 8 <= nfe < 12 else 0.375
    exact = Exact() if nfe < 5 else Exact(Growth(c, power))
    solver = Multistep(order, AnglePrediction(c), exact, start="rising")
    grid = partial(balanced, process, start=start, data_std=c, power=spacing)
    if process.t_data is None:
        return Plan(solver, grid(nfe - 1))
    times = grid(nfe, to_data=True)
    # not beyond what a network was trained on by more than another step
    at_min = process.half_log_snr(lowest) - process.half_log_snr(times[-2]) < 1e-3
    if nfe < 5 or bool(at_min):
        return Plan(solver, times[:-1])
    return Plan(solver, times, finish=False)


def round_trip_plan(field: ScoreField, nfe: int = ROUND_TRIP_CALLS) -> Plan:
    """Return the plan to carry data to the prior and back, ``nfe`` calls of a field each way.

    It goes from ``t_min`` all the way to ``t_max``, or where no signal is left there, to a noise of
    200 deviations of the data; by `Multistep` of order 4 with its corrector.

    Raises:
        ValueError: ``nfe < 2``; a field of data without deviation.
    """
    process, c = field.process, _scale(field, nfe)
    lost = bool(process.alpha(torch.tensor(process.t_max, dtype=torch.float64)) == 0)
    start = time_near(process, 200 * c) if lost else process.t_max
    times = balanced(process, nfe, start=start, end=process.t_min, data_std=c, power=6.0)
    return Plan(round_trip_solver(c), times, finish=False)


def round_trip_solver(data_std: float) -> Multistep:
    """Return the solver that goes between data of a deviation and the prior."""
    prediction, quadrature = AnglePrediction(data_std), Exact(Growth(data_std, 0.25))
    return Multistep(4, prediction, quadrature, start="rising", corrector=True)


def _scale(field: ScoreField, nfe: int) -> float:
    """Return the deviation of a field's data, or refuse what no plan can be made of."""
    if not isinstance(nfe, Integral) or nfe < 2:
        raise ValueError(f"nfe = {nfe!r}: a plan needs a number of calls of the field, at least 2.")
    check_positive(data_std=field.data_std)
    return field.data_std


def resolve(
    field: ScoreField, solver: Solver | Plan | None, times: Tensor | Adaptive | None
) -> Plan:
    """Return the plan that the arguments of `scorefield.sample` stand for.

    Raises:
        ValueError: times beside a plan; what is no solver in the place of one.
    """
    if isinstance(solver, Plan):
        if times is not None:
            raise ValueError("a plan has its own times: leave one of them out.")
        return solver
    if solver is None and times is None:
        return default_plan(field)
    if solver is not None:
        check_solver("solver", solver)
    c = field.data_std
    solver = Multistep(3, AnglePrediction(c)) if solver is None else solver
    times = balanced(field.process, DEFAULT_STEPS, data_std=c) if times is None else times
    return Plan(solver, times)
