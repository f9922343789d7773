"""Samples on their way from noise to data, and samples for more and more calls of the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scorefield._internal.errors import CheckpointError
from scorefield.field import ScoreField
from scorefield.process import balanced, time_near
from scorefield.report.reverse_paths import CLEANEST, NOISIEST
from scorefield.runs.folder import PLANS
from scorefield.runs.run import Run
from scorefield.sampling import Plan, count_calls, default_plan, integrate, prior
from scorefield.solvers import DDIM, DDPM, EulerMaruyama, Heun, Solver

CALLS = 40  # of the network for each sample on its way
FRAMES = 22
NFES = (4, 5, 6, 8, 10, 15, 20, 50)
REFERENCE = 200  # calls, ten times as many as the default plan has unless told
_MOST_PLANS, _MOST_CALLS = 16, 1000


@dataclass(frozen=True)
class SolverFrames:
    """Samples on their way, by one plan.

    Attributes:
        name: of the solver.
        nfe: calls of the network for each sample.
        frames: the noise they start from; the samples at each of some levels, as far as the solver
            has come there; and finished. In the data's units, and at its scale.
    """

    name: str
    nfe: int
    frames: tuple[Tensor, ...]


def frame_ratios(field: ScoreField) -> Tensor:
    """Return the noise-to-signal ratios, falling, of the frames between the first and the last."""
    process, c = field.process, field.data_std
    first, last = (time_near(process, ratio * c) for ratio in (NOISIEST, CLEANEST))
    times = balanced(process, FRAMES - 3, start=first, end=last, data_std=c)
    return torch.exp(-process.half_log_snr(times))


def solver_plans(field: ScoreField) -> dict[str, Plan]:
    """Return plans of about `CALLS` calls by name, which all start from the same state."""
    default = default_plan(field, CALLS)
    assert isinstance(default.times, Tensor)
    first, c = float(default.times[0]), field.data_std

    def plan(solver: Solver, calls: int) -> Plan:
        steps = (CALLS - 1) // calls
        return Plan(solver, balanced(field.process, steps, start=first, data_std=c))

    return {
        "Default plan": default,
        "Heun": plan(Heun(), 2),
        "DDIM": plan(DDIM(), 1),
        "Euler–Maruyama": plan(EulerMaruyama(eta=1.0), 1),
        "DDPM": plan(DDPM(), 1),
    }


def solver_frames(run: Run, n: int, *, seed: int, y: int | None) -> Iterator[SolverFrames]:
    """Follow samples 0 to ``n - 1`` by every one of `solvers`, of a class if one is given."""
    ratios = frame_ratios(run.field)
    for name, plan in solver_plans(run.field).items():
        final, nfe = draw(run, plan, n, seed=seed, y=y)
        yield SolverFrames(name, nfe, (*_states(run, plan, ratios, n, seed, y), final))


def draw(run: Run, plan: Plan, n: int, *, seed: int, y: int | None) -> tuple[Tensor, int]:
    """Return samples 0 to ``n - 1`` in the data's units, and the calls that each took."""
    with count_calls(run.field) as calls:
        x = run.sample(n, plan, seed=seed, y=y, batch_size=n)
    return x, calls.count


def _states(
    run: Run, plan: Plan, ratios: Tensor, n: int, seed: int, y: int | None
) -> Iterator[Tensor]:
    """Yield the start, and for each ratio the last state with as much noise, at the data's scale.

    That is (1) of `scorefield.report.reverse_paths`.
    """
    field, times = run.field, plan.times
    assert isinstance(times, Tensor)
    inside = times[times >= field.process.t_min]
    alpha, sigma = field.process.coefficients(inside)
    scale = field.data_std / torch.hypot(field.data_std * alpha, sigma)
    given = field if y is None else field.condition_on(y=torch.tensor(y))
    with torch.no_grad():
        begin = prior(given, n, times[0], seed=seed)
        # the last state of a plan that goes to the data is the sample itself
        there = zip(integrate(given, plan, begin), scale, strict=False)
        states = [at.x * float(factor) for at, factor in there]
    yield data_of(run, states[0])
    found = sigma / alpha
    for ratio in ratios:
        reached = int((found >= ratio * (1 - 1e-9)).sum()) - 1
        yield data_of(run, states[max(reached, 0)])


def data_of(run: Run, z: Tensor) -> Tensor:
    """Return what the field sees in the data's units."""
    return run.to_data(z)


def tuned_plans(folder: Path, field: ScoreField) -> list[Plan]:
    """Return the plans that were tuned for a run without guidance, of 16 files at the most.

    Raises:
        CheckpointError: a file that holds no tuned plan, one for another field, or one of very many
            calls.
    """
    found = []
    paths = sorted((folder / PLANS).glob("nfe-*.json"))
    # those for a scale of guidance have it in their names, and are for another field
    mine = [p for p in paths if p.is_file() and p.stem.removeprefix("nfe-").isdecimal()]
    for path in mine[:_MOST_PLANS]:
        try:
            plan = Plan.load(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(str(error)) from None
        try:
            plan.check(field)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
        if plan.tuning is None or not isinstance(plan.times, Tensor):
            raise CheckpointError(f"{path} holds a plan that was not tuned: remove it.")
        if max(plan.tuning.nfe, len(plan.times)) > _MOST_CALLS:
            raise CheckpointError(f"{path} holds a plan of more than {_MOST_CALLS} calls.")
        found.append(plan)
    return found


def samples_by_calls(
    run: Run, tuned: Sequence[Plan], n: int, *, seed: int, y: int | None
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return samples 0 to ``n - 1`` by the calls of the default plan, and by those of tuned ones.

    Each is for the number of calls that it really made; the default plan for `NFES` and for those
    that a tuned one is for.
    """
    counts = {*NFES, *(plan.tuning.nfe for plan in tuned if plan.tuning is not None)}

    def made(plans: Iterable[Plan]) -> dict[int, Tensor]:
        found = [draw(run, plan, n, seed=seed, y=y) for plan in plans]
        return {nfe: x for x, nfe in found}

    return made(default_plan(run.field, nfe) for nfe in sorted(counts)), made(tuned)
