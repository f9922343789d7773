r"""Default plans, and the plan that the arguments of `scorefield.sample` stand for.

`default_plan` is one rule for every field. With ``N`` calls and the data's deviation ``c``, in
``r = sigma / alpha`` and its growth ``g = log(1 + (r / c)^2)``:

- it starts at ``r = 10 N c``, if the process goes higher, from the Gaussian of the data's mean and
  variance: above, the path is nearly that of the Gaussian. Where nobody measured the moments of
  each coordinate, it starts at twice that noise, in which the mean matters less. A field without a
  score starts at the process's last time: its data and noise are correlated, so that Gaussian is
  off by a share ``c / r`` of its width, not by its square;
- its times are equally spaced in ``g^(1/3)``, or ``g^(1/3.5)`` from 30 calls on; its last step goes
  to the data, with no call at its end, or the denoiser finishes where a process has no time of the
  data;
- it follows the probability-flow ODE by `Multistep` on the noise angle, with polynomials in
  ``g^(1/2)``, from 16 calls on ``g^(3/8)``, of order 2 below 8 calls and of order 4 from there on.

A network is off by some part of eps at each call, and so by ``sigma / alpha`` times as much in x0.
Polynomials in the noise angle multiply that: near pure noise the angle hardly moves, so they
extrapolate far beyond their nodes. In a root of ``g`` the nodes lie almost evenly, and no weight
is large.

The constants were chosen by the distance to the ends of exact paths, on exact fields, on fields
with smooth errors (`scorefield.Inexact`) and on a network, and judged on others:
``benchmarks/inexact.py``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import (
    balanced,
    check_instance,
    check_positive,
    check_whole,
    time_near,
    wrong_kind,
)
from scorefield.sampling.adaptive import Adaptive
from scorefield.sampling.plan import Plan, count_calls_on
from scorefield.solvers import AnglePrediction, Exact, Growth, Multistep, Solver, check_noise

DEFAULT_CALLS = DEFAULT_STEPS = 20
ROUND_TRIP_CALLS = 80


def default_plan(field: ScoreField, nfe: int = DEFAULT_CALLS) -> Plan:
    """Return the default plan of ``nfe`` calls of a field.

    The denoiser's call is the last one where the times come down to ``t_min``, and where a process
    cannot be continued to the data. Details of the data that are narrower than the process's
    lowest noise are lost.

    Raises:
        ValueError: ``nfe < 2``; a field of data without deviation, or with one so small that the
            process's lowest noise hides it.
    """
    check_instance("field", field, ScoreField, "a field, such as run.field")
    if field.process.space is not None:
        return resolve(field, None, None, nfe)
    process, c = field.process, _scale(field, nfe)
    start = time_near(process, (10 if _measured(field) else 20) * nfe * c)
    # the clock of a process with several noise levels hides that of the least noisy coordinate
    start = start if field.has_score and not process.coordinates else noisiest(field)
    lowest = torch.tensor(process.t_min, dtype=torch.float64)
    if start <= process.t_min:
        raise ValueError(
            f"data of deviation {c:g} disappears in the lowest noise of {process!r}, where sigma / "
            f"alpha is {float((-process.half_log_snr(lowest)).exp()):.2g}: give the data unit "
            "deviation, or the process a smaller t_min."
        )
    solver = _sampling_solver(c, 2 if nfe < 8 else 4, 0.5 if nfe < 16 else 0.375)
    spacing = 3.0 if nfe < 30 else 3.5
    grid = partial(balanced, process, start=start, data_std=c, power=spacing)
    if process.t_data is None:
        return Plan(solver, grid(nfe - 1))
    times = grid(nfe, to_data=True)
    # one step beyond the noise levels of the training at most
    at_min = process.half_log_snr(lowest) - process.half_log_snr(times[-2]) < 1e-3
    if bool(at_min):
        return Plan(solver, times[:-1])
    return Plan(solver, times, finish=False)


def _sampling_solver(data_std: float, order: int = 4, power: float = 0.5) -> Multistep:
    """Return the solver of default plans, and that of steps without a solver."""
    prediction, quadrature = AnglePrediction(data_std), Exact(Growth(data_std, power))
    return Multistep(order, prediction, quadrature, start="rising")


def _measured(field: ScoreField) -> bool:
    """Return whether the moments are those of each coordinate, not one number for all."""
    moments = (torch.as_tensor(value).flatten() for value in (field.mean, field.variance))
    return any(bool((values != values[0]).any()) for values in moments)


def round_trip_plan(field: ScoreField, nfe: int = ROUND_TRIP_CALLS) -> Plan:
    """Return the plan to carry data to the prior and back, ``nfe`` calls of a field each way.

    It goes from ``t_min`` to `noisiest`, by `Multistep` of order 4 with its corrector.

    Raises:
        ValueError: ``nfe < 2``; a field of data without deviation.
    """
    if field.process.space is not None:
        return resolve(field, None, None, nfe, ROUND_TRIP)
    c = _scale(field, nfe)
    return Plan(round_trip_solver(c), _round_trip_grid(field, nfe), finish=False)


def noisiest(field: ScoreField) -> float:
    """Return the time that whole paths reach: ``t_max``, or where ``alpha`` is still above 0.

    Where no signal is left at ``t_max``, that is the time of a noise of 200 deviations of the data.
    """
    process = field.process
    lost = bool((process.alpha(torch.tensor(process.t_max, dtype=torch.float64)) == 0).all())
    return time_near(process, 200 * field.data_std) if lost else process.t_max


def round_trip_solver(data_std: float) -> Multistep:
    """Return the solver that goes between data of a deviation and the prior."""
    prediction, quadrature = AnglePrediction(data_std), Exact(Growth(data_std, 0.25))
    return Multistep(4, prediction, quadrature, start="rising", corrector=True)


def _scale(field: ScoreField, nfe: int) -> float:
    """Return the deviation of a field's data, after the checks that both plans share."""
    check_whole(2, nfe=nfe)
    check_positive(data_std=field.data_std)
    return field.data_std


def check_ode(solver: Solver) -> None:
    """Raise an error if a solver does not follow the probability-flow ODE, which goes both ways."""
    if solver.weak_order is not None or solver.order < 1:
        raise ValueError(
            f"solver={solver!r}: adds noise or stays in place, and nothing leads back; use a "
            "solver of the ODE, such as Multistep(), Heun() or Reversible(Singlestep())."
        )


class Defaults(NamedTuple):
    """The parts of a plan that the caller of a function leaves out.

    Attributes:
        plan: from a number of calls, without solver and times.
        solver: from the data's standard deviation, for times without a solver.
        grid: from a number of steps, for a solver without times.
        steps: of that grid.
        finish: `Plan.finish` of a solver with times.
        flat: they are for fields of vectors.
    """

    plan: Callable[..., Plan]
    solver: Callable[[float], Solver]
    grid: Callable[[ScoreField, int], Tensor]
    steps: int
    finish: bool
    flat: bool = True


def _sampling_grid(field: ScoreField, steps: int, start: float | None = None) -> Tensor:
    return balanced(field.process, steps, start=start, data_std=field.data_std)


def _round_trip_grid(field: ScoreField, steps: int) -> Tensor:
    start, end = noisiest(field), field.process.t_min
    return balanced(field.process, steps, start=start, end=end, data_std=field.data_std, power=6.0)


SAMPLING = Defaults(default_plan, _sampling_solver, _sampling_grid, DEFAULT_STEPS, True)
ROUND_TRIP = Defaults(round_trip_plan, round_trip_solver, _round_trip_grid, ROUND_TRIP_CALLS, False)


def sampling_from(start: float) -> Defaults:
    """Return the defaults of sampling, with a grid that starts at another time than ``t_max``."""
    return SAMPLING._replace(grid=partial(_sampling_grid, start=start))


def resolve(
    field: ScoreField,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    nfe: int | None = None,
    default: Defaults = SAMPLING,
) -> Plan:
    """Return the plan that the arguments of `scorefield.sample` stand for.

    On a space its solver is `Geodesic`.

    Args:
        solver, times, nfe: as for `scorefield.sample`.
        default: the parts that are left out.

    Raises:
        ValueError: arguments that exclude each other; a value that is not a field or a solver; an
            ``nfe`` that is too small for the solver; a solver that adds noise, for a field without
            a score.
    """
    if default.flat and field.process.space is not None:
        from scorefield.sampling.on_space import resolve_on_space  # for such fields alone

        return resolve_on_space(field, solver, times, nfe, default)
    if nfe is not None and times is not None:
        raise ValueError(
            f"nfe={nfe}: cannot be combined with times, which set the calls. Omit one."
        )
    if isinstance(solver, Plan):
        if times is not None:
            raise ValueError("times cannot be combined with a plan, which has its own times.")
        if nfe is not None and nfe != solver.nfe:
            raise ValueError(f"nfe={nfe}: the plan makes {solver.nfe} calls. Omit nfe.")
        solver.check(field)
        check_noise(solver.solver, field)
        return solver
    if solver is None and times is None:
        return default.plan(field) if nfe is None else default.plan(field, nfe)
    if solver is None:
        solver = default.solver(field.data_std)
    if not isinstance(solver, Solver):
        raise wrong_kind("solver", solver, Solver, "one such as Heun()")
    if not field.has_score:
        check_noise(solver, field)
    if nfe is not None:
        return within(field, solver, nfe, default)
    if times is None or isinstance(times, int):
        times = default.grid(field, default.steps if times is None else times)
    return Plan(solver, times, default.finish)


def within(field: ScoreField, solver: Solver, nfe: int, default: Defaults) -> Plan:
    """Return the plan of a solver with as many steps as make at most ``nfe`` calls."""
    check_whole(2, nfe=nfe)

    def plan(steps: int) -> Plan:
        return Plan(solver, default.grid(field, steps), default.finish)

    def calls(steps: int) -> int:
        return count_calls_on(field.process, plan(steps))

    steps = bisect_right(range(1, nfe + 1), nfe, key=calls)
    if steps == 0:
        raise ValueError(f"nfe={nfe}: must be at least {calls(1)}, for one step of {solver!r}.")
    return plan(steps)
