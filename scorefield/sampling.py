r"""Generation: a solver walked along a grid, from the prior to data.

Sample ``k`` is a function of (field, solver, times, seed, k) alone. Its noise is keyed by its id,
and the field always sees batches of one fixed size in which ``k`` has the slot ``k mod tile``: a
kernel's rounding depends on the size of a batch and on the row in it, never on the other rows.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from scorefield.field import ScoreField
from scorefield.grid import balanced, check_times
from scorefield.noise import Noise
from scorefield.solvers.base import Solver, State
from scorefield.solvers.multistep import AnglePrediction, Multistep

DEFAULT_STEPS = 20


def integrate(field: ScoreField, solver: Solver, at: State, times: Tensor) -> Iterator[State]:
    """Yield the state at every time of a grid, starting with ``at`` itself.

    Args:
        at: a state at ``times[0]``.
        times: strictly falling (towards data) or rising (towards noise), ``(N + 1,)``.

    Raises:
        ValueError: times that are not monotone, leave the process's interval, or do not start where
            ``at`` stands.
    """
    times = check_times(field.process, times)
    if not torch.equal(at.t, times[0]):
        raise ValueError(
            f"the state stands at t = {at.t.flatten()[0].item():g} but times start at "
            f"{float(times[0]):g}: make them agree."
        )
    yield at
    for s in times[1:]:
        at = solver.step(field, at, s)
        yield at


def start(field: ScoreField, noise: Noise, t: Tensor, like: Tensor) -> State:
    """Return the prior's state at time ``t`` for the samples that ``noise`` is keyed by.

    ``like`` gives type and device. The prior is the data's mean and variance noised to ``t``.
    """
    z, noise = noise.draw(field.shape, like)
    return State(field.process.prior(field.mean, field.variance, t).draw(z), t, noise)


def sample(
    field: ScoreField,
    n: int | Sequence[int],
    solver: Solver | None = None,
    times: Tensor | None = None,
    *,
    seed: int = 0,
    finish: bool = True,
    tile: int = 64,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Generate samples, shape ``(n, *field.shape)``.

    Args:
        n: how many, for the ids ``0 .. n-1``; or the ids themselves, non-negative, in any order.
        solver: third-order `Multistep` on the noise angle unless given.
        times: the grid; 20 steps of `balanced` unless given.
        seed: with an id, determines all the noise of a sample.
        finish: end with one more field call, Tweedie's posterior mean at the last time; without it
            the samples keep the noise of that time.
        tile: the batch the field sees. Same tile, same bits; another tile may differ by rounding.
            Ids that follow each other fill it best: split work into blocks of ``tile`` ids.
        dtype: of the state; that of the field's parameters, or torch's default, unless given.

    Raises:
        ValueError: a negative id, a negative ``n``, ``tile < 1``, or times that rise or that
            `integrate` refuses.
    """
    ids = _ids(n)
    if tile < 1 or ids is None or not all(0 <= k < 2**63 for k in ids):
        raise ValueError(f"n = {n!r}, tile = {tile}: give n >= 0 or ids >= 0, and tile >= 1.")
    solver = Multistep(3, AnglePrediction(field.data_std)) if solver is None else solver
    if times is None:
        times = balanced(field.process, DEFAULT_STEPS, data_std=field.data_std)
    times = check_times(field.process, times)
    if times[0] < times[-1]:
        raise ValueError("times rise: sampling goes from t_max down; give times.flip(0).")
    like = _template(field, dtype)
    out = like.new_empty(len(ids), *field.shape)
    for places, slots in _tiles(ids, tile):
        with torch.no_grad():
            at = start(field, Noise(seed, slots), times[0], like)
            for state in integrate(field, solver, at, times):
                at = state
            x = field(at.x, at.t).x0 if finish else at.x
        out[places] = x[[ids[place] % tile for place in places]]
    return out


def _ids(n: SupportsIndex | Iterable[SupportsIndex]) -> list[int] | None:
    """Return the ids that ``n`` stands for, or None if it stands for none."""
    try:
        count = operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        try:
            return [operator.index(k) for k in n]  # type: ignore[union-attr]
        except TypeError:
            return None
    return list(range(count)) if count >= 0 else None


def _tiles(ids: Sequence[int], tile: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield batches: the places in ``ids`` that each serves, and the id in each of its slots.

    Slots that no place asks for hold an id of their own.
    """
    waiting: list[list[int]] = [[] for _ in range(tile)]
    for place, k in enumerate(ids):
        waiting[k % tile].append(place)
    for turn in range(max(map(len, waiting))):
        places = [queue[turn] for queue in waiting if turn < len(queue)]
        slots = torch.arange(tile)
        for place in places:
            slots[ids[place] % tile] = ids[place]
        yield places, slots


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


def _template(field: ScoreField, dtype: torch.dtype | None) -> Tensor:
    """Return an empty tensor of the type and on the device that samples should have."""
    parameter = next(field.parameters(), None)
    if parameter is None:
        buffer = next(field.buffers(), torch.empty(0))
        return torch.empty(0, dtype=dtype or torch.get_default_dtype(), device=buffer.device)
    return torch.empty(0, dtype=dtype or parameter.dtype, device=parameter.device)
