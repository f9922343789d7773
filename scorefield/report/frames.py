"""Frames of the sliders: samples between noise and data, and for more and more network calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.process import balanced
from scorefield.report.trajectory import ratio_and_scale, visible_times
from scorefield.runs.run import Run
from scorefield.sampling import Plan, count_calls, default_plan, integrate, prior
from scorefield.solvers import DDIM, DDPM, EulerMaruyama, Heun, Solver

CALLS = 40  # network calls per sample of the slider over time
FRAMES = 22
NFES = (4, 5, 6, 8, 10, 15, 20, 50)
REFERENCE = 200  # calls, ten times as many as the default plan makes


@dataclass(frozen=True)
class SolverFrames:
    """Samples between noise and data, by one solver.

    Attributes:
        name: of the solver.
        nfe: network calls per sample.
        frames: the starting noise; the state of the solver at each of some noise levels; and the
            finished samples. In the data's units and at its scale.
    """

    name: str
    nfe: int
    frames: tuple[Tensor, ...]


def frame_ratios(field: ScoreField) -> Tensor:
    """Return the noise-to-signal ratios, falling, of the frames between the first and the last."""
    return torch.exp(-field.process.half_log_snr(visible_times(field, FRAMES - 3)))


def solver_plans(field: ScoreField) -> dict[str, Plan]:
    """Return plans of about `CALLS` calls by name, which all start from the same state."""
    default = default_plan(field, CALLS)
    assert isinstance(default.times, Tensor)
    first = float(default.times[0])

    def plan(solver: Solver, calls: int) -> Plan:
        steps = (CALLS - 1) // calls
        return Plan(solver, balanced(field.process, steps, start=first, data_std=field.data_std))

    return {
        "Default plan": default,
        "Heun": plan(Heun(), 2),
        "DDIM": plan(DDIM(), 1),
        "Euler–Maruyama": plan(EulerMaruyama(eta=1.0), 1),
        "DDPM": plan(DDPM(), 1),
    }


def solver_frames(run: Run, n: int, *, seed: int, given: Any) -> Iterator[SolverFrames]:
    """Follow samples 0 to ``n - 1`` by each of `solver_plans`, under conditions or without."""
    ratios = frame_ratios(run.field)
    for name, plan in solver_plans(run.field).items():
        final, nfe = draw(run, plan, n, seed=seed, given=given)
        yield SolverFrames(name, nfe, (*_states(run, plan, ratios, n, seed, given), final))


def draw(run: Run, plan: Plan, n: int, *, seed: int, given: Any) -> tuple[Tensor, int]:
    """Return samples 0 to ``n - 1`` in the data's units, and the network calls of each."""
    with count_calls(run.field) as calls:
        x = run.sample(n, plan, seed=seed, given=given, batch_size=n)
    return x, calls.count


def samples_by_calls(
    run: Run, tuned: Mapping[int, Plan], n: int, *, seed: int, given: Any
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return samples 0 to ``n - 1`` of default plans and of tuned plans, by their network calls.

    The calls are counted, not read from the plans. The default plans are those of `NFES` calls and
    of the calls of each tuned plan.
    """

    def by_calls(plans: Iterable[Plan]) -> dict[int, Tensor]:
        pairs = [draw(run, plan, n, seed=seed, given=given) for plan in plans]
        return {nfe: x for x, nfe in pairs}

    default = by_calls(default_plan(run.field, nfe) for nfe in sorted({*NFES, *tuned}))
    return default, by_calls(tuned.values())


def _states(
    run: Run, plan: Plan, ratios: Tensor, n: int, seed: int, given: Any
) -> Iterator[Tensor]:
    """Yield the start, and for each ratio the last state with as much noise, at the data's scale.

    The scale is (1) of `scorefield.report.trajectory`.
    """
    field, times = run.toward(given), plan.times
    assert isinstance(times, Tensor)
    reached, scale = ratio_and_scale(field, times[times >= field.process.t_min])
    with torch.no_grad():
        states = integrate(field, plan, prior(field, n, times[0], seed=seed))
        # the last state of a plan that goes to the data is the sample itself, so it has no scale
        scaled = [at.x * float(factor) for at, factor in zip(states, scale, strict=False)]
    yield run.to_data(scaled[0])
    for ratio in ratios:
        count = int((reached >= ratio * (1 - 1e-9)).sum())
        yield run.to_data(scaled[max(count - 1, 0)])
