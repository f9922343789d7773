r"""Steps that each sample chooses for itself.

A step is taken if its estimated error, measured per coordinate of a sample, is within tolerance::

    e = rms(error / (atol + rtol |x_s|)) <= 1                                         (1)

and repeated with a smaller one if not. The next step is longer or shorter by ``e^(-0.7/k)
e_last^(0.4/k)``, for an error of order ``k``: a proportional-integral control. Every sample has its
own time, and nothing is shared between samples, so that the steps of one do not depend on the
others; one that has arrived keeps its place in the batch until all have. No step leaves the
interval, and none crosses more of the noise angle ``atan(sigma / (c alpha))`` than ``longest``: an
estimate from a few calls may miss reason lies between them, and at any other place in the angle
little does. A stochastic step that is repeated follows the same Brownian path, so that its
distribution is kept.

Reference: Hairer, Nørsett and Wanner (1993), section II.4; Söderlind (2003), Digital filters in
adaptive time-stepping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError
from scorefield.field import ScoreField
from scorefield.process import align, check_positive, check_whole, widest
from scorefield.solvers import Solver, State

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0


@dataclass(frozen=True)
class Adaptive:
    """Takes a grid's place: steps chosen per sample so that (1) holds.

    Args:
        rtol, atol: relative and absolute tolerance of a step, >= 0 and not both 0.
        start, end: the first and the last time; by default ``t_max`` and ``t_min``.
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
        if not any(tolerances) or min(tolerances) < 0:
            raise ValueError(
                f"rtol={self.rtol:g}, atol={self.atol:g}: give numbers >= 0, not both 0."
            )
        check_positive(**{k: v for k, v in (("rtol", self.rtol), ("atol", self.atol)) if v != 0})
        check_whole(max_steps=self.max_steps)
        if not (0 < self.first <= 1 and self.longest > 0):
            raise ValueError(
                f"first={self.first:g}, longest={self.longest:g}: needs 0 < first <= 1 and "
                "longest > 0."
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
                f"start={start:g}, end={end:g}: must be two times in [{process.t_min:g}, "
                f"{process.t_max:g}]."
            )
        return start, end


def check_estimate(solver: Solver) -> float:
    """Return the order of a solver's error estimate, or refuse a solver that has none."""
    if solver.error_order is None:
        raise ValueError(
            f"Adaptive needs an error estimate; {solver!r} has none. Use Heun, Bosh3, Dopri5, "
            "Tsit5 or Singlestep on the ODE, StochasticHeun on the SDE, or give a grid of times."
        )
    return solver.error_order


def walk(field: ScoreField, solver: Solver, at: State, control: Adaptive) -> Iterator[State]:
    """Yield the state after every round of steps, each sample at a time of its own.

    It begins without a memory. Samples that stand at the end to begin with are left there. The
    state's ``error`` is that of the steps just taken, 0 for samples that took none.

    Raises:
        ValueError: the solver has no error estimate; a sample stands at neither end.
        NumericalError: a sample needs more than ``max_steps`` steps, or steps too small to take.
    """
    order = check_estimate(solver)
    begin, end = control.ends(field)
    length = end - begin
    each = at.t.flatten().repeat(len(at.x)) if at.t.numel() == 1 else at.t.cpu()
    at = at._replace(t=align(each, at.x), memory=None)
    if not bool(((at.t == begin) | (at.t == end)).all()):
        raise ValueError(f"samples must stand at t = {begin:g}, where the adaptive steps begin.")
    h = torch.full_like(at.t, control.first * length)
    last, most = torch.ones_like(at.t), torch.full_like(at.t, _GROW)
    active = at.t != end
    yield at
    for _ in range(control.max_steps):
        if not bool(active.any()):
            return
        s = _target(field, at.t, h, end, length, control.longest)
        # a sample that has arrived makes an idle step back, which is thrown away
        s = torch.where(active, s, at.t - 0.01 * length)
        new = solver.advance(field, at, s, error=True)
        e = _size(new, control)
        accept = active & (e <= 1)
        _check_progress(solver, at, s, accept | ~active, e, length)
        factor = torch.minimum(_factor(e, last, accept, order), most)
        h = torch.where(active, (s - at.t) * factor, h)
        # after a repeated step none grows at once
        most = torch.where(accept, _GROW, 1.0)
        last = torch.where(accept, e.clamp(min=1e-4), last)
        there, t = accept.to(at.x.device), torch.where(accept, new.t, at.t)
        x = torch.where(there, new.x, at.x)
        memory = solver.choose(accept, new, at, x)
        error = torch.where(there, 0.0 if new.error is None else new.error, 0.0)
        at = State(x, t, new.noise.where(accept, at.noise), memory, error)
        active = at.t != end
        yield at
    if not bool(active.any()):
        return
    late = at.noise.ids.cpu()[active.flatten()][:5].tolist()
    raise NumericalError(
        f"{solver!r} did not arrive in {control.max_steps} steps for samples {late}, at rtol = "
        f"{control.rtol:g} and atol = {control.atol:g}: raise the tolerances or max_steps."
    )


def _target(
    field: ScoreField, t: Tensor, h: Tensor, end: float, length: float, angle: float
) -> Tensor:
    """Return where a step of size ``h`` leads: no further than ``angle``, and not past the end."""
    furthest = _furthest(field, t, length, angle)
    s = torch.minimum(t + h, furthest) if length > 0 else torch.maximum(t + h, furthest)
    # a rest of less than a hundredth of a step is taken along
    return torch.where((end - s) * math.copysign(1, length) <= 0.01 * (s - t).abs(), end, s)


def _furthest(field: ScoreField, t: Tensor, length: float, angle: float) -> Tensor:
    """Return the time whose noise angle ``atan(sigma / (c alpha))`` is that far from that of t."""
    process, c = field.process, field.data_std
    if c == 0:
        return torch.full_like(t, process.t_max if length > 0 else process.t_min)
    moved = (-process.half_log_snr(t)).exp().div(c).atan() + math.copysign(angle, length)
    ends = process.half_log_snr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
    ratio = moved.clamp(1e-12, math.pi / 2 - 1e-12).tan() * c
    return process.time((-ratio.log()).clamp(*ends.tolist()))


def _size(new: State, control: Adaptive) -> Tensor:
    """Return ``e`` of (1), in float64 and in the form of the times."""
    assert new.error is not None
    scale = control.atol + control.rtol * new.x.abs()
    # no error is none, even where the tolerance is 0
    ratio = torch.where(new.error == 0, 0.0, new.error / scale).reshape(len(new.x), -1)
    mean = ratio.to(widest(ratio.device)).square().mean(1)
    return align(mean.cpu().double().sqrt(), new.x)


def _factor(e: Tensor, last: Tensor, accept: Tensor, order: float) -> Tensor:
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
        ids = at.noise.ids.cpu()[stuck.flatten()][:5].tolist()
        reason = (
            "the field is not finite" if not bool(e[stuck].isfinite().all()) else "no step does"
        )
        raise NumericalError(
            f"{solver!r} is stuck at t = {float(at.t[stuck][0]):g} for samples {ids}: {reason}, "
            "however small. Raise the tolerances, or use float64."
        )
