"""The plans of fields on a space, whose solvers follow geodesics."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import balanced
from scorefield.sampling.adaptive import Adaptive
from scorefield.sampling.defaults import (
    DEFAULT_CALLS,
    ROUND_TRIP,
    ROUND_TRIP_CALLS,
    SAMPLING,
    Defaults,
    resolve,
    within,
)
from scorefield.sampling.plan import Plan
from scorefield.solvers import RK4, Geodesic, Singlestep, Solver


def _plan(field: ScoreField, nfe: int = DEFAULT_CALLS) -> Plan:
    return within(field, Singlestep(), nfe, _SAMPLING)


def _round_trip(field: ScoreField, nfe: int = 2 * ROUND_TRIP_CALLS) -> Plan:
    return within(field, RK4(), nfe, _ROUND_TRIP)


def _grid(field: ScoreField, steps: int) -> Tensor:
    return balanced(field.process, steps, end=field.process.t_min, data_std=field.data_std)


_SAMPLING = SAMPLING._replace(plan=_plan, solver=lambda _: Singlestep(), flat=False)
_ROUND_TRIP = ROUND_TRIP._replace(plan=_round_trip, solver=lambda _: RK4(), grid=_grid, flat=False)


def resolve_on_space(
    field: ScoreField,
    solver: Solver | Plan | None,
    times: Tensor | int | Adaptive | None,
    nfe: int | None,
    default: Defaults,
) -> Plan:
    """Return the plan of `resolve` for a field on a space.

    Raises:
        ValueError: as `resolve`, or a solver that `Geodesic` does not take.
    """
    space = _SAMPLING if default.finish else _ROUND_TRIP
    if default.grid not in (SAMPLING.grid, ROUND_TRIP.grid):  # from another time
        space = space._replace(grid=default.grid)
    plan = resolve(field, solver, times, nfe, space)
    own = plan.solver
    return plan if isinstance(own, Geodesic) else replace(plan, solver=Geodesic(own))
