r"""Generation: a solver walked along a grid, from the prior to data.

Sample ``k`` is a function of (field, solver, times, seed, k) alone. Its noise is keyed by its id,
and its place in a batch by `scorefield.sampling.batching`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as anew

from scorefield._internal.errors import NumericalError
from scorefield.field import Estimate, ScoreField
from scorefield.noise import Noise
from scorefield.process import Time, align, check_times
from scorefield.sampling.adaptive import Adaptive, check_estimate, walk
from scorefield.sampling.batching import as_ids, batches, check_evaluating
from scorefield.sampling.plan import Plan, resolve
from scorefield.solvers import Move, Solver, State


def integrate(
    field: ScoreField, solver: Solver | Plan, at: State, times: Tensor | Adaptive | None = None
) -> Iterator[State]:
    """Yield the state at every time of a grid, or after every adaptive step, from ``at`` on.

    Do not change its ``x`` in place, which a solver with a memory could not tell: to act on a
    state, go on from ``at._replace(x=...)``.

    Args:
        solver: a solver, or a `Plan`, which has times of its own.
        at: a state at the first time.
        times: strictly falling (towards data) or rising (towards noise), ``(N + 1,)``, the
            last perhaps `Process.t_data`; or `Adaptive`, with which each sample has steps, and so
            times, of its own.

    Raises:
        ValueError: times that are not monotone, leave the process's interval, or do not start where
            ``at`` stands; adaptive steps for a solver that has no error estimate.
    """
    plan = resolve(field, solver, times)
    solver, times = plan.solver, plan.times
    at = at._replace(t=align(at.t, at.x))
    if isinstance(times, Adaptive):
        _check_start(at, times.ends(field)[0])
        yield from walk(field, solver, at, times)
        return
    times = check_times(field.process, times)
    _check_start(at, float(times[0]))
    yield at
    at = solver.settled(at)
    held = None if at.memory is None else at.memory.history
    for move in solver.moves(field, times[:-1], times[1:], held):
        at = move(at)
        yield at


def _check_start(at: State, first: float) -> None:
    if not bool((at.t == first).all()):
        raise ValueError(
            f"the state stands at t = {at.t.flatten()[0].item():g} but times start at "
            f"{first:g}: make them agree."
        )


def prior(
    field: ScoreField,
    n: int | Sequence[int] | Tensor,
    t: Time | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> State:
    """Draw states from the prior, the Gaussian of the data's mean and variance noised to ``t``.

    They are where `sample` with this seed starts: sample ``k`` from the noise of the id ``k``.

    Args:
        n: how many, for the ids ``0 .. n-1``; or a list of ids.
        t: the time; ``t_max`` if None.
        seed, dtype: as for `sample`.

    Raises:
        ValueError: as `sample`, for ``n``; a time outside the process's interval.
    """
    like = template(field, dtype)
    noise = Noise(seed, torch.tensor(as_ids(n), device=like.device))
    t = torch.as_tensor(field.process.t_max if t is None else t, dtype=torch.float64)
    if not field.process.contains(t):
        raise ValueError(
            f"t={float(t):g}: must lie in [{field.process.t_min:g}, {field.process.t_max:g}]."
        )
    z, noise = noise.draw(field.shape, like)
    return State(from_normal(field, z, t), t, noise)


def from_normal(field: ScoreField, z: Tensor, t: Tensor) -> Tensor:
    """Return the prior's ``x`` at time ``t`` that standard normal ``z`` ``(B, *shape)`` makes."""
    return field.process.prior(field.mean, field.variance, t).draw(z)


def sample(
    field: ScoreField,
    n: int | Sequence[int] | Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | Adaptive | None = None,
    *,
    seed: int = 0,
    finish: bool = True,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Generate samples, shape ``(n, *field.shape)``.

    Args:
        n: how many, for the ids ``0 .. n-1``; or the ids themselves, non-negative, in any order.
        solver: a solver or a `Plan`; without times too, `default_plan` of 20 calls of the field.
        times: the grid, or `Adaptive`; with a solver 20 steps of `balanced` unless given.
        seed: with an id, determines all the noise of a sample.
        finish: end with one more field call, Tweedie's posterior mean at the last time; without it
            the samples keep the noise of that time. There is none to remove at `Process.t_data`.
        batch_size: samples per call of the field. The same one gives the same bits; another may
            differ by rounding.
            Ids that follow each other fill it best: split work into blocks of ``batch_size`` ids.
        dtype: of the state; that of the field's parameters, or torch's default, unless given.

    Raises:
        ValueError: a negative id, a negative ``n``, ``batch_size < 1``, times that rise or that
            `integrate` refuses, a network whose dropout or batch normalisation is in training.
        NumericalError: the field gave a value that is not finite.
    """
    ids = as_ids(n, batch_size)
    check_evaluating(field)
    plan = resolve(field, solver, times)
    run = prepare(field, plan.solver, plan.times)
    if run.first < run.last:
        raise ValueError("times rise: sampling goes from t_max down; give times.flip(0).")
    finish = finish and plan.finish and bool(run.last >= field.process.t_min)
    like = template(field, dtype)
    out = like.new_empty(len(ids), *field.shape)
    for places, rows, slots in batches(ids, batch_size):
        with torch.no_grad():
            begin = prior(field, slots, run.first, seed=seed, dtype=like.dtype)
            at = run(begin, rows)
            x = field(at.x, at.t).x0 if finish else at.x
            if not bool(x[rows].isfinite().all()):
                raise _not_finite(field, plan, begin)
        out[places] = x[rows]
    return out


def unroll(
    field: ScoreField,
    z: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | None = None,
    *,
    seed: int = 0,
    checkpoint: bool = True,
) -> Tensor:
    """Return the samples that standard normal ``z`` ``(B, *shape)`` becomes, with their gradient.

    For whoever optimises a latent, or weights, through the solver. The result is that of `sample`
    where ``z`` is its noise.

    Args:
        solver, times: as for `sample`, on a grid.
        seed: with the place in the batch, determines the noise of a solver that adds some.
        checkpoint: keep the states between steps alone, and compute each step anew on the way back:
            one evaluation more a call, and memory for one step.

    Raises:
        ValueError: another shape, adaptive steps; as `integrate`.
    """
    plan = resolve(field, solver, times)
    if z.shape[1:] != field.shape or isinstance(plan.times, Adaptive):
        raise ValueError(
            f"z has shape {tuple(z.shape)}, and times are {plan.times!r}: give a batch of samples "
            f"of shape {field.shape}, and a grid."
        )
    grid = check_times(field.process, plan.times)
    noise = Noise(seed, torch.arange(len(z), device=z.device)).draw(field.shape, z)[1]
    at = plan.solver.settled(State(from_normal(field, z, grid[0]), grid[0], noise))
    for move in plan.solver.moves(field, grid[:-1], grid[1:]):
        if checkpoint:
            at = anew(move, at, use_reentrant=False, preserve_rng_state=False)
        else:
            at = move(at)
    if plan.finish and bool(grid[-1] >= field.process.t_min):
        found: Estimate = field(at.x, at.t)
        return found.x0
    return at.x


@dataclass(frozen=True)
class Prepared:
    """A whole run with all coefficients worked out: carries a state from its first to last time.

    On a grid it is arithmetic and calls of the field alone, without a look at a value, and can be
    compiled as one graph: ``torch.compile(prepared, fullgraph=True)``.

    Attributes:
        first, last: the times it begins and ends at.
    """

    first: Tensor
    last: Tensor
    _walk: Callable[[State, Sequence[int] | None], State]

    def __call__(self, at: State, rows: Sequence[int] | None = None) -> State:
        """Return the state at the last time, for one that stands at the first.

        Of its memory only what no coefficient depends on can be used, such as the partner of a
        `Reversible` solver; the rest is left aside. With ``rows``, only those samples of the batch
        are wanted: no others are waited for, and where they end is left open.
        """
        kept = at.memory if at.memory is not None and at.memory.history is None else None
        return self._walk(at._replace(memory=kept), rows)


def prepare(
    field: ScoreField, solver: Solver | Plan, times: Tensor | Adaptive | None = None
) -> Prepared:
    """Work out a run of a solver along a grid, or by adaptive steps, once for many states.

    Raises:
        ValueError: as `integrate`, before any call of the field.
    """
    plan = resolve(field, solver, times)
    solver, times = plan.solver, plan.times
    if isinstance(times, Adaptive):
        check_estimate(solver)
        ends = torch.tensor(times.ends(field), dtype=torch.float64)
        return Prepared(ends[0], ends[1], functools.partial(_adapt, field, solver, times))
    times = check_times(field.process, times)
    moves = solver.moves(field, times[:-1], times[1:])
    return Prepared(times[0], times[-1], functools.partial(_follow, solver, moves))


def _follow(solver: Solver, moves: Sequence[Move], at: State, rows: Sequence[int] | None) -> State:
    at = solver.settled(at)
    for move in moves:
        at = move(at)
    return at


def _adapt(
    field: ScoreField, solver: Solver, control: Adaptive, at: State, rows: Sequence[int] | None
) -> State:
    begin, end = control.ends(field)
    if rows is not None:
        t = torch.full((len(at.x),), end, dtype=torch.float64)
        t[rows] = begin
        at = at._replace(t=t)
    for state in walk(field, solver, at, control):
        at = state
    return at._replace(t=torch.tensor(end, dtype=torch.float64), memory=None)


def _not_finite(field: ScoreField, plan: Plan, begin: State) -> NumericalError:
    """Return what to raise: the run again, up to the first call that was not finite."""
    found: list[str] = []

    def look(_: nn.Module, args: tuple[Any, ...], estimate: Estimate) -> None:
        bad = ~torch.stack([w.flatten(1).isfinite().all(1) for w in estimate.basis]).all(0)
        if bool(bad.any()) and not found:
            t = estimate.t.expand(len(bad), *estimate.t.shape[1:]).flatten()[bad][0]
            ids = begin.noise.ids[bad.to(begin.noise.ids.device)][:5].tolist()
            seen = "finite" if bool(args[0][bad].isfinite().all()) else "not finite either"
            found.append(f"at t = {float(t):g} for samples {ids}, whose x was {seen}")

    handle = field.register_forward_hook(look)
    try:
        for at in integrate(field, plan, begin):
            last = at
        field(last.x, last.t)
    except ValueError:
        pass
    finally:
        handle.remove()
    if not found:
        return NumericalError(
            f"the field's values are finite but samples of {plan.solver!r} are not: use a finer "
            "grid, or another solver."
        )
    where = found[0]
    return NumericalError(
        f"the field's value is not finite {where} ({plan.solver!r}): look at the network there, or "
        "end the grid at a larger t."
    )


@dataclass
class Calls:
    """How often a field was called, and how many samples it saw in all."""

    count: int = 0
    rows: int = 0


@contextmanager
def count_calls(field: ScoreField) -> Iterator[Calls]:
    """Count the calls of ``field`` made inside the ``with`` block."""
    calls = Calls()

    def hook(_: nn.Module, args: tuple[Tensor, ...], __: object) -> None:
        calls.count += 1
        calls.rows += args[0].shape[0]

    handle = field.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def template(field: ScoreField, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of the type and on the device that samples should have."""
    parameter = next(field.parameters(), None)
    if parameter is None:
        buffer = next(field.buffers(), torch.empty(0))
        return torch.empty(0, dtype=dtype or torch.get_default_dtype(), device=buffer.device)
    return torch.empty(0, dtype=dtype or parameter.dtype, device=parameter.device)
