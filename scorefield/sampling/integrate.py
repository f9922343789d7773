"""Integration: a solver walked along a grid or by adaptive steps, state by state or as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident

import torch
from torch import Tensor, nn

from scorefield.field import ScoreField
from scorefield.process import align, check_instance, check_times
from scorefield.sampling.adaptive import Adaptive, check_estimate, walk
from scorefield.sampling.defaults import resolve, sampling_from
from scorefield.sampling.plan import Plan
from scorefield.solvers import Move, Solver, State


def integrate(
    field: ScoreField,
    solver: Solver | Plan,
    state: State,
    times: Tensor | int | Adaptive | None = None,
) -> Iterator[State]:
    """Yield the state at every time of a grid, or after every adaptive step, from ``state`` on.

    Do not change its ``x`` in place, since solvers with a memory cannot notice. To change a state,
    continue from ``state._replace(x=...)``.

    Args:
        solver: a solver, or a `Plan`, which has times of its own.
        state: a state at the first time, such as one of `prior`.
        times: strictly falling (towards data) or rising (towards noise), ``(N + 1,)``; the last may
            be `Process.t_data`. Or a number of steps of `balanced` from the state's time on. Or
            `Adaptive`: each sample chooses its steps, and so has times of its own.

    Raises:
        ValueError: times that are not monotone, leave the process's interval, or do not start at
            the state's time; adaptive steps for a solver without an error estimate.
    """
    check_instance("state", state, State, "one such as prior(field, 16)")
    t = align(state.t, state.x)
    plan = resolve(field, solver, times, default=sampling_from(float(t.flatten()[0])))
    solver, times, state = plan.solver, plan.times, state._replace(t=t)
    if isinstance(times, Adaptive):
        _check_start(state, times.ends(field)[0])
        yield from walk(field, solver, state, times)
        return
    times = check_times(field.process, times)
    _check_start(state, float(times[0]))
    yield state
    state = solver.settled(state)
    history = None if state.memory is None else state.memory.history
    for move in solver.moves(field, times[:-1], times[1:], history):
        state = move(state)
        yield state


def _check_start(state: State, first: float) -> None:
    if not bool((state.t == first).all()):
        raise ValueError(
            f"the state is at t={state.t.flatten()[0].item():g} and the times start at {first:g}: "
            "they must agree."
        )


@dataclass(frozen=True)
class Prepared:
    """A whole run with its coefficients computed: carries states from its first to its last time.

    On a grid it is arithmetic and calls of the field alone, without a look at a value, and can be
    compiled as one graph: ``torch.compile(prepared, fullgraph=True)``.

    Attributes:
        first, last: its first and its last time.
    """

    first: Tensor
    last: Tensor
    _field: ScoreField
    _solver: Solver
    _steps: Sequence[Move] | Adaptive

    @classmethod
    def of(cls, field: ScoreField, plan: Plan) -> Prepared:
        """Return the run of a plan that `resolve` returned for the field."""
        solver, times = plan.solver, plan.times
        if isinstance(times, Adaptive):
            check_estimate(solver)
            first, last = torch.tensor(times.ends(field), dtype=torch.float64)
            return cls(first, last, field, solver, times)
        times = check_times(field.process, times)
        return cls(times[0], times[-1], field, solver, solver.moves(field, times[:-1], times[1:]))

    def __call__(self, state: State, rows: Sequence[int] | None = None) -> State:
        """Return the state at the last time for one at the first.

        Of its memory only the part without coefficients is used, such as the partner of a
        `Reversible` solver. With ``rows``, the run waits for those samples of the batch alone, and
        the others end anywhere.
        """
        memory = state.memory
        if memory is not None and memory.history is not None:
            memory = None
        state = state._replace(memory=memory)
        if memory is not None:
            state = self._solver.settled(state)
        if isinstance(self._steps, Adaptive):
            return self._adapt(self._steps, state, rows)
        for move in self._steps:
            state = move(state)
        return state

    def _adapt(self, control: Adaptive, state: State, rows: Sequence[int] | None) -> State:
        if rows is not None:  # the others stand at the end already
            t = self.last.repeat(len(state.x))
            t[rows] = self.first
            state = state._replace(t=t)
        *_, state = walk(self._field, self._solver, state, control)
        return state._replace(t=self.last, memory=None)


def prepare(
    field: ScoreField, solver: Solver | Plan, times: Tensor | int | Adaptive | None = None
) -> Prepared:
    """Compute the coefficients of a run along a grid, or by adaptive steps, once for many states.

    Raises:
        ValueError: as `integrate`, before any call of the field.
    """
    return Prepared.of(field, resolve(field, solver, times))


@dataclass
class Calls:
    """How often a field was called, and how many samples it saw in all."""

    count: int = 0
    rows: int = 0


@contextmanager
def count_calls(field: ScoreField) -> Iterator[Calls]:
    """Count the calls of ``field`` made inside the ``with`` block, by the thread of the block."""
    calls, thread = Calls(), get_ident()

    def hook(_: nn.Module, args: tuple[Tensor, ...], __: object) -> None:
        if get_ident() == thread:
            calls.count += 1
            calls.rows += args[0].shape[0]

    handle = field.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()
