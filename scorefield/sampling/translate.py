r"""Translation between two data sets by the flow of a field whose noise end is data too.

For ``x_t = alpha x_0 + sigma x_1`` with data at both ends, the two means of the field give the ends
from any point between: ``x_0`` from the last time, and ``x_1`` from the first. A translation starts
at its data, goes to the nearest time of the grid by one such estimate, and leaves it by another.
With noise between the ends, see `scorefield.field.bridge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError
from scorefield.field import Bridge, ScoreField, bridge_std
from scorefield.noise import Noise
from scorefield.process import check_times, check_whole, mix, uniform
from scorefield.sampling.adaptive import Adaptive
from scorefield.sampling.batching import batch_rows, batches, check_samples, filled, for_batch
from scorefield.sampling.codes import Decoded, apart
from scorefield.sampling.defaults import ROUND_TRIP, check_ode, resolve
from scorefield.sampling.integrate import count_calls, prepare
from scorefield.sampling.plan import Plan
from scorefield.solvers import Heun, Solver, State, StochasticHeun

_STEPS = 20


def translate(
    field: ScoreField,
    x: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | None = None,
    *,
    back: bool = False,
    eta: float = 0.0,
    seed: int = 0,
    check: bool = True,
    ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
) -> Decoded:
    """Carry data ``(B, *shape)`` of the noise end to the other one, in the field's units.

    Args:
        solver: of the ODE, or a `Plan`; `Heun` by default. With ``eta`` one that adds as much
            noise; ``StochasticHeun(eta)`` by default.
        times: a falling grid, or a number of steps, 20 by default: uniform, or for a field with
            `ScoreField.bridge` those of a cosine, which are smaller towards both ends.
        back: carry data of the other end to the noise end.
        eta: noise of the SDE between the ends, relative to that of the bridges.
        seed: of that noise.
        check: go the other way too, and measure the error; only without noise.
        ids, batch_size: as for `scorefield.encode`.

    Raises:
        ValueError: a field that starts at Gaussian noise; ``eta`` for a field without noise between
            its ends; a solver of another ``eta``; adaptive steps; as `scorefield.encode`.
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
        grid = steps if isinstance(steps, Tensor) else _grid(field, steps)
        usual = StochasticHeun(eta) if eta else Heun()
        solver, times = Plan(solver or usual, grid, finish=False), None
    plan = resolve(Bridge(field, eta) if eta else field, solver, times, default=ROUND_TRIP)
    if eta:
        _check_noise(plan.solver, eta)
    else:
        check_ode(plan.solver)
    if isinstance(plan.times, Adaptive):
        raise ValueError(f"times={plan.times!r}: give a grid or a number of steps.")
    falling = check_times(field.process, plan.times)
    way = partial(_carry, field, solver=plan.solver, falling=falling, ids=rows, seed=seed, eta=eta)
    with count_calls(field) as calls:
        y = way(x, batch_size=batch_size, back=back)
        error = x.new_full((len(x),), torch.nan, dtype=torch.float64)
        if check and not eta:
            again = way(y, batch_size=batch_size, back=not back)
            error = apart(again, x, field.data_std)
    turns = sum(1 for _ in batches(rows, batch_rows(len(rows), batch_size))) if rows else 1
    return Decoded(y, error, round(calls.count / max(1, turns)))


def _grid(field: ScoreField, steps: int) -> Tensor:
    if not field.bridge:
        return uniform(field.process, steps)
    check_whole(steps=steps)
    # the noise of the bridges, a root of the time at both ends, is smooth in the angle
    angle = torch.linspace(0.0, math.pi, steps + 1, dtype=torch.float64)
    first, last = field.process.t_min, field.process.t_max
    return first + (last - first) * (0.5 + 0.5 * angle.cos())


def _check_noise(solver: Solver, eta: float) -> None:
    other = getattr(solver, "eta", eta)
    if solver.weak_order is None or other != eta:
        raise ValueError(
            f"solver={solver!r}: must add the noise of eta={eta:g}, as EulerMaruyama({eta:g}) does."
        )


def _carry(
    field: ScoreField,
    x: Tensor,
    *,
    solver: Solver,
    falling: Tensor,
    ids: Sequence[int],
    batch_size: int | None,
    back: bool,
    eta: float,
    seed: int,
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
            noise = Noise(seed, slots.to(x.device))
            way, clock = own, times
            if eta:
                way, clock = Bridge(own, eta, back), 1 - times if back else times
                z, noise = noise.normal(begin)
                begin = mix((1.0, begin), (bridge_std(start, own.bridge), z))
            state = State(begin, clock[0], noise)
            last = own(prepare(way, solver, clock)(state, rows).x, end)
        out[places] = (last.eps if back else last.x0)[rows]
    if not bool(out.isfinite().all()):
        raise NumericalError(f"a translation is not finite ({solver!r}): use more steps.")
    return out
