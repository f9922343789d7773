r"""Translation between two data sets by the flow of a field whose noise end is data too.

For ``x_t = alpha x_0 + sigma x_1`` with data at both ends, the two means of the field give the ends
from any point between: ``x_0`` from the last time, and ``x_1`` from the first. A translation starts
at its data, goes to the nearest time of the grid by one such estimate, and leaves it by another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError
from scorefield.field import ScoreField
from scorefield.noise import Noise
from scorefield.process import check_times, uniform
from scorefield.sampling.adaptive import Adaptive
from scorefield.sampling.batching import batch_rows, batches, check_samples, filled, for_batch
from scorefield.sampling.codes import Decoded, apart
from scorefield.sampling.defaults import ROUND_TRIP, check_ode, resolve
from scorefield.sampling.integrate import count_calls, prepare
from scorefield.sampling.plan import Plan
from scorefield.solvers import Heun, Solver, State

_STEPS = 20


def translate(
    field: ScoreField,
    x: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | None = None,
    *,
    back: bool = False,
    check: bool = True,
    ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
) -> Decoded:
    """Carry data ``(B, *shape)`` of the noise end to the other one, in the field's units.

    Args:
        solver: of the ODE, or a `Plan`; `Heun` by default.
        times: a falling grid, or a number of steps of `uniform`, 20 by default.
        back: carry data of the other end to the noise end.
        check: go the other way too, and measure the error.
        ids, batch_size: as for `scorefield.encode`.

    Raises:
        ValueError: a field that starts at Gaussian noise; a solver with noise; adaptive steps; as
            `scorefield.encode`.
        NumericalError: a value is not finite.
    """
    if not field.between_data:
        raise ValueError(
            "field: starts at Gaussian noise, and so has one data set. Train a run between two, or "
            "pass the run of the second one, as target=RUN."
        )
    x, rows = check_samples(field, x, ids, batch_size)
    if not isinstance(solver, Plan):
        steps = _STEPS if times is None else times
        grid = steps if isinstance(steps, Tensor) else uniform(field.process, steps)
        solver, times = Plan(solver or Heun(), grid, finish=False), None
    plan = resolve(field, solver, times, default=ROUND_TRIP)
    check_ode(plan.solver)
    if isinstance(plan.times, Adaptive):
        raise ValueError(f"times={plan.times!r}: give a grid or a number of steps.")
    falling = check_times(field.process, plan.times)
    with count_calls(field) as calls:
        y = _carry(field, x, plan.solver, falling, rows, batch_size, back)
        error = x.new_full((len(x),), torch.nan, dtype=torch.float64)
        if check:
            again = _carry(field, y, plan.solver, falling, rows, batch_size, not back)
            error = apart(again, x, field.data_std)
    turns = sum(1 for _ in batches(rows, batch_rows(len(rows), batch_size))) if rows else 1
    return Decoded(y, error, round(calls.count / max(1, turns)))


def _carry(
    field: ScoreField,
    x: Tensor,
    solver: Solver,
    falling: Tensor,
    ids: Sequence[int],
    batch_size: int | None,
    back: bool,
) -> Tensor:
    times, out = falling.flip(0) if back else falling, torch.empty_like(x)
    size = batch_rows(len(ids), batch_size)
    for places, rows, slots in batches(ids, size):
        own = for_batch(field, places, rows, size, len(ids)) if field.rows > 1 else field
        start, end = own.instants(times[[0, -1]])
        begin = filled(x, places, rows, size)
        with torch.no_grad():
            estimate = own(begin, start)
            # the end that the path starts from is known, and the other one is estimated
            if back:
                begin = start.alpha * begin + start.sigma * estimate.eps
            else:
                begin = start.alpha * estimate.x0 + start.sigma * begin
            state = State(begin, times[0], Noise(0, slots.to(x.device)))
            last = own(prepare(own, solver, times)(state, rows).x, end)
        out[places] = (last.eps if back else last.x0)[rows]
    if not bool(out.isfinite().all()):
        raise NumericalError(f"a translation is not finite ({solver!r}): use more steps.")
    return out
