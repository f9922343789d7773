r"""Generation: a solver walked along a grid, from the prior to data.

Sample ``k`` is a function of (field, solver, times, seed, k) alone. Its noise is keyed by its id,
and its place in a batch by `scorefield.sampling.batching`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from scorefield._internal.errors import NumericalError
from scorefield.field import Estimate, ScoreField, check_starts_at_noise
from scorefield.noise import Noise
from scorefield.process import Time, check_instance, check_times
from scorefield.sampling.adaptive import Adaptive
from scorefield.sampling.batching import (
    MOST_ROWS,
    as_ids,
    batches,
    check_evaluating,
    for_batch,
)
from scorefield.sampling.defaults import resolve
from scorefield.sampling.integrate import Prepared, integrate
from scorefield.sampling.plan import Plan
from scorefield.solvers import Solver, State


def sample(
    field: ScoreField,
    n: int | Sequence[int] | Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    *,
    nfe: int | None = None,
    seed: int = 0,
    finish: bool = True,
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Generate samples, shape ``(n, *field.shape)``.

    With neither solver nor times, the plan is `default_plan`, of 20 calls of the field by default.

    Args:
        n: a number of samples, with the ids ``0 .. n-1``; or a list of ids, at least 0, in any
            order.
        solver: a solver, or a `Plan`.
        times: a grid; a number of steps of `balanced`, 20 by default; or `Adaptive`.
        nfe: calls of the field for a sample, instead of times. A solver makes as many steps as the
            calls allow, the last call of ``finish`` included.
        seed: with an id, determines all the noise of a sample.
        finish: end with one more call of the field, Tweedie's posterior mean at the last time.
            Without it, samples keep the noise of that time. Not at `Process.t_data`.
        batch_size: samples per call of the field; by default equal batches of at most 64 for all
            of ``n``. A sample has the same bits for the same batch size, and differs by 1e-5 for
            another: give it where parts of a job are to fit together. Consecutive ids fill batches
            best: split work into blocks of ``batch_size`` ids.
        dtype: of the samples; by default that of the field's parameters, or torch's default, but at
            least float32. The state is float32 or float64 whatever the network's type, since half
            precision would lose a part of each small step.

    Raises:
        ValueError: a shape or a negative number as ``n``, ``batch_size < 1``, times that rise or
            that `integrate` rejects, arguments that exclude each other, a network whose dropout or
            batch normalisation is in training mode.
        NumericalError: the field returned a value that is not finite.
    """
    check_evaluating(field)
    plan, ids = resolve(field, solver, times, nfe), as_ids(n, batch_size)
    if field.between_data:
        check_starts_at_noise(field)
    run, own = Prepared.of(field, plan), field
    if run.first < run.last:
        raise ValueError("times rise: sampling goes from t_max down. Use times.flip(0).")
    finish = finish and plan.finish and bool(run.last >= field.process.t_min)
    (end,) = field.instants(run.last[None]) if finish else (None,)
    start, like = field.process.prior(field.mean, field.variance, run.first), template(field, dtype)
    out = like.new_empty(len(ids), *field.shape, dtype=dtype)
    # `batch_rows`, written out: few functions stand between a call and the network
    size = batch_size or -(-len(ids) // max(1, -(-len(ids) // MOST_ROWS))) or 1
    for places, rows, slots in batches(ids, size):
        if field.rows > 1:
            own = for_batch(field, places, rows, size, len(ids))
            run = Prepared.of(own, plan)
        # not in inference mode, in which a field could take no gradient of its own
        with torch.inference_mode(False), torch.no_grad():
            z, noise = Noise(seed, slots.to(like.device)).draw(field.shape, like)
            begin = State(start.draw(z), run.first, noise)
            x = run(begin, rows).x
            if end is not None:
                x = own(x, end).x0
            if not bool(x[rows].isfinite().all()):
                raise _not_finite(own, plan, begin)
        out[places] = x[rows].to(out)
    return out


def prior(
    field: ScoreField,
    n: int | Sequence[int] | Tensor,
    t: Time | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> State:
    """Draw a state from the prior, the Gaussian of the data's mean and variance noised to ``t``.

    `sample` starts from it: its sample ``k`` for a seed is that of the id ``k`` here.

    Args:
        n: a number of samples, or a list of ids, as for `sample`.
        t: the time; ``t_max`` by default.
        seed, dtype: as for `sample`.

    Raises:
        ValueError: as `sample`, for ``n``; a time outside ``[t_min, t_max]``.
    """
    check_instance("field", field, ScoreField, "the field first, as in prior(field, 16)")
    t = torch.as_tensor(field.process.t_max if t is None else t, dtype=torch.float64)
    if not field.process.contains(t):
        process = field.process
        raise ValueError(f"t={float(t):g}: must be in [{process.t_min:g}, {process.t_max:g}].")
    like = template(field, dtype)
    ids = torch.tensor(as_ids(n), device=like.device)
    z, noise = Noise(seed, ids).draw(field.shape, like)
    return State(from_normal(field, z, t), t, noise)


def from_normal(field: ScoreField, z: Tensor, t: Tensor) -> Tensor:
    """Return the prior's ``x`` at time ``t`` for standard normal ``z`` ``(B, *shape)``."""
    check_starts_at_noise(field)
    x: Tensor = field.process.prior(field.mean, field.variance, t).draw(z)
    return x


def unroll(
    field: ScoreField,
    z: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | None = None,
    *,
    nfe: int | None = None,
    seed: int = 0,
    checkpoint: bool = True,
) -> Tensor:
    """Return the samples that standard normal ``z`` ``(B, *shape)`` becomes, with their gradient.

    It serves to optimise a latent, or weights, through the solver. The result is that of `sample`
    where ``z`` is its noise.

    Args:
        solver, times, nfe: as for `sample`, on a grid.
        seed: with the place in the batch, determines the noise of a stochastic solver.
        checkpoint: store the states between steps only, and compute each step again in the backward
            pass: one more evaluation per call, and memory for one step.

    Raises:
        ValueError: another shape, values of ``z`` that are not finite, adaptive steps; as
            `integrate`.
        NumericalError: as `sample`.
    """
    plan = resolve(field, solver, times, nfe)
    if not bool(z.isfinite().all()):
        raise ValueError("z has values that are not finite: give standard normal numbers.")
    if z.shape[1:] != field.shape:
        raise ValueError(
            f"z has shape {tuple(z.shape)}: give a batch of samples of shape {field.shape}."
        )
    if isinstance(plan.times, Adaptive):
        raise ValueError(f"times={plan.times!r}: give a grid or a number of steps.")
    grid = check_times(field.process, plan.times)
    noise = Noise(seed, torch.arange(len(z), device=z.device)).draw(field.shape, z)[1]
    begin = state = plan.solver.settled(State(from_normal(field, z, grid[0]), grid[0], noise))
    for move in plan.solver.moves(field, grid[:-1], grid[1:]):
        if checkpoint:
            state = recompute(move, state, use_reentrant=False, preserve_rng_state=False)
        else:
            state = move(state)
    if plan.finish and bool(grid[-1] >= field.process.t_min):
        state = state._replace(x=field(state.x, state.t).x0)
    if not bool(state.x.isfinite().all()):
        raise _not_finite(field, plan, begin)
    return state.x


def _not_finite(field: ScoreField, plan: Plan, begin: State) -> NumericalError:
    """Return the error to raise, after the run again up to the first call that was not finite."""
    places: list[str] = []

    def look(_: nn.Module, args: tuple[Any, ...], estimate: Estimate) -> None:
        bad = ~torch.stack([w.flatten(1).isfinite().all(1) for w in estimate.basis]).all(0)
        if bool(bad.any()) and not places:
            t = estimate.t.expand(len(bad), *estimate.t.shape[1:]).flatten()[bad][0]
            ids = begin.noise.ids[bad.to(begin.noise.ids.device)][:5].tolist()
            x = "finite" if bool(args[0][bad].isfinite().all()) else "not finite either"
            places.append(f"at t = {float(t):g} for samples {ids}, where x was {x}")

    handle = field.register_forward_hook(look)
    try:
        for state in integrate(field, plan, begin):
            last = state
        field(last.x, last.t)
    except ValueError:
        pass
    finally:
        handle.remove()
    if not places:
        return NumericalError(
            f"the field's values are finite but samples of {plan.solver!r} are not: use a finer "
            "grid, or another solver."
        )
    return NumericalError(
        f"the field's value is not finite {places[0]} ({plan.solver!r}): check the network there, "
        "or end the grid at a larger t."
    )


def template(field: ScoreField, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of the type, float32 or wider, and on the device of a state."""
    like: Tensor | None = next(field.parameters(), None)
    if like is None:
        like = next(field.buffers(), torch.empty(0))
        dtype = dtype or torch.get_default_dtype()
    dtype = torch.promote_types(dtype or like.dtype, torch.float32)  # of more digits than a network
    return torch.empty(0, dtype=dtype, device=like.device)
