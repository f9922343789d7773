r"""Steps that each sample chooses for itself.

A step is taken if its estimated error, measured per coordinate of a sample, is within tolerance::

    e = rms(error / (atol + rtol |x_s|)) <= 1                                         (1)

and repeated with a smaller one if not. The next step is longer or shorter by ``e^(-0.7/k)
e_last^(0.4/k)``, for an error of order ``k``: a proportional-integral control. Every sample has its
own time, and nothing is shared between samples, so that the steps of one do not depend on the
others; one that has arrived keeps its place in the batch until all have. No step leaves the
interval, and none crosses more of the noise angle ``atan(sigma / (c alpha))`` than ``longest``: an
estimate from a few calls may miss what lies between them, and at any other place in the angle
little does. A stochastic step that is repeated follows the same Brownian path, so that the law is
kept.

Reference: Hairer, Nørsett and Wanner (1993), section II.4; Söderlind (2003), Digital filters in
adaptive time-stepping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.errors import NumericalError
from scorefield.field import Estimate, ScoreField
from scorefield.process import align
from scorefield.solvers import Memory, Past, Solver, State

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0


@dataclass(frozen=True)
class Adaptive:
    """Takes a grid's place: steps chosen per sample so that (1) holds.

    Args:
        rtol, atol: relative and absolute tolerance of a step, >= 0 and not both 0.
        start, end: the first and the last time; ``t_max`` and ``t_min`` unless given.
        first: the first step tried, as a share of the interval.
        longest: the noise angle that a step may cross, in radians, of pi / 2 in all.
        max_steps: how many steps, repeated ones included, a sample may try.

    Raises:
        ValueError: numbers out of range.
    """

    rtol: float = 1e-3
    atol: float = 1e-3
    start: float | None = None
    end: float | None = None
    first: float = 0.01
    longest: float = 0.3
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        tolerances = self.rtol, self.atol
        if not all(0 <= tol < math.inf for tol in tolerances) or not any(tolerances):
            raise ValueError(
                f"rtol = {self.rtol:g}, atol = {self.atol:g}: give numbers >= 0, not both 0."
            )
        if not (0 < self.first <= 1 and self.longest > 0 and self.max_steps >= 1):
            raise ValueError(
                f"first = {self.first:g}, longest = {self.longest:g}, max_steps = "
                f"{self.max_steps}: needs 0 < first <= 1, longest > 0 and at least one step."
            )

    def ends(self, field: ScoreField) -> tuple[float, float]:
        """Return the first and the last time on a field's process.

        Raises:
            ValueError: they are equal, or outside the process's interval.
        """
        process = field.process
        start = process.t_max if self.start is None else self.start
        end = process.t_min if self.end is None else self.end
        ends = torch.tensor([start, end], dtype=torch.float64)
        if start == end or not process.contains(ends):
            raise ValueError(
                f"from t = {start:g} to {end:g} is no way inside [{process.t_min:g}, "
                f"{process.t_max:g}]."
            )
        return start, end


def check_estimate(solver: Solver) -> int:
    """Return the order of a solver's error estimate, or refuse a solver that has none."""
    if solver.error_order is None:
        raise ValueError(
            f"Adaptive needs an error estimate; {solver!r} has none. Use Heun, Bosh3, Dopri5, "
            "Tsit5 or Singlestep on the ODE, StochasticHeun on the SDE, or give a grid of times."
        )
    return solver.error_order


def walk(field: ScoreField, solver: Solver, at: State, control: Adaptive) -> Iterator[State]:
    """Yield the state after every round of steps, each sample at a time of its own.

    Raises:
        ValueError: the solver has no error estimate.
        NumericalError: a sample needs more than ``max_steps`` steps, or steps too small to take.
    """
    order = check_estimate(solver)
    begin, end = control.ends(field)
    length = end - begin
    each = at.t.repeat(len(at.x)) if at.t.ndim == 0 else at.t
    at = at._replace(t=align(each.to(at.x.device), at.x))
    h = torch.full_like(at.t, control.first * length)
    last = torch.ones_like(at.t)
    yield at
    for _ in range(control.max_steps):
        active = at.t != end
        if not bool(active.any()):
            return
        s = at.t + h
        furthest = _furthest(field, at.t, length, control.longest)
        s = torch.minimum(s, furthest) if length > 0 else torch.maximum(s, furthest)
        # a rest of less than a hundredth of a step is taken along
        s = torch.where((end - s) * math.copysign(1, length) <= 0.01 * h.abs(), end, s)
        # a sample that has arrived makes an idle step back, which is thrown away
        s = torch.where(active, s, at.t - 0.01 * length)
        new = solver.step(field, at, s, error=True)
        e = _size(new, at, control)
        accept = active & (e <= 1)
        _check_progress(solver, at, s, accept | ~active, e, length)
        h = torch.where(active, h * _factor(e, last, accept, order), h)
        last = torch.where(accept, e.clamp(min=1e-4), last)
        at = _choose(accept, new, at)
        yield at
    late = at.noise.ids[(at.t != end).flatten().to(at.noise.ids.device)][:5].tolist()
    raise NumericalError(
        f"{solver!r} did not arrive in {control.max_steps} steps for samples {late}, at rtol = "
        f"{control.rtol:g} and atol = {control.atol:g}: raise the tolerances or max_steps."
    )


def _furthest(field: ScoreField, t: Tensor, length: float, angle: float) -> Tensor:
    """Return the time whose noise angle ``atan(sigma / (c alpha))`` is that far from that of t."""
    process, c = field.process, field.data_std
    alpha, sigma = process.coefficients(t)
    moved = torch.atan2(sigma, c * alpha) + math.copysign(angle, length)
    ends = process.half_log_snr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
    ratio = moved.clamp(1e-12, math.pi / 2 - 1e-12).tan() * c
    return process.time((-ratio.log()).clamp(*ends.tolist()))


def _size(new: State, at: State, control: Adaptive) -> Tensor:
    """Return ``e`` of (1), in float64 and in the form of the times."""
    assert new.error is not None
    scale = control.atol + control.rtol * new.x.abs()
    ratio = (new.error / scale).double().flatten(1)
    return align(ratio.square().mean(1).sqrt(), at.x)


def _factor(e: Tensor, last: Tensor, accept: Tensor, order: int) -> Tensor:
    """Return by how much the next step is longer; a repeated one is shorter."""
    small = e.nan_to_num(nan=math.inf).clamp(min=1e-10)
    after = _SAFETY * small ** (-0.7 / order) * last ** (0.4 / order)
    again = (_SAFETY * small ** (-1 / order)).clamp(max=0.9)
    return torch.where(accept, after, again).clamp(_SHRINK, _GROW)


def _check_progress(
    solver: Solver, at: State, s: Tensor, fine: Tensor, e: Tensor, length: float
) -> None:
    stuck = ~fine & ((s - at.t).abs() < 1e-12 * abs(length))
    if bool(stuck.any()):
        ids = at.noise.ids[stuck.flatten().to(at.noise.ids.device)][:5].tolist()
        what = "the field is not finite" if not bool(e[stuck].isfinite().all()) else "no step does"
        raise NumericalError(
            f"{solver!r} is stuck at t = {float(at.t[stuck][0]):g} for samples {ids}: {what}, "
            "however small. Raise the tolerances, or use float64."
        )


def _choose(accept: Tensor, new: State, old: State) -> State:
    """Return the new state of the samples whose step was taken, the old one of the others."""
    x, t = torch.where(accept, new.x, old.x), torch.where(accept, new.t, old.t)
    memory = None
    if new.memory is not None and old.memory is not None:
        times = zip(new.memory.plan.times, old.memory.plan.times, strict=True)
        plan = Past(tuple(torch.where(accept, a, b) for a, b in times))
        kept: list[tuple[Estimate, Estimate]] = list(
            zip(new.memory.kept, old.memory.kept, strict=True)
        )
        memory = Memory(plan, tuple(a.where(accept, b) for a, b in kept), x)
    elif new.memory is not None and bool(accept.all()):
        memory = new.memory._replace(x=x)
    return State(x, t, new.noise, memory)
