r"""Latent codes: data carried to the prior and back by the probability-flow ODE.

The ODE joins a sample and a point of the prior one to one. A code is that point in the prior's own
units, ``z = (x_T - mean) / deviation``: for data that the field knows it is near a standard normal.
On a space it is a point, near the uniform distribution, with its Euclidean parts in those units.
A solver's result is one to one up to the solver's error, which is measured by going back.

Between two codes the way is along the prior's shell: directions turn at a constant rate (slerp),
and lengths change linearly.

Reference: Song et al. (2021), arXiv:2011.13456, section 4.3; Shoemake (1985), Animating rotation
with quaternion curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield._internal.errors import NumericalError
from scorefield.field import ScoreField, check_flat, check_starts_at_noise
from scorefield.noise import Noise
from scorefield.process import cast, check_whole, wide
from scorefield.sampling.adaptive import Adaptive
from scorefield.sampling.batching import (
    as_ids,
    as_numbers,
    batch_rows,
    batches,
    check_samples,
    filled,
    for_batch,
    not_finite,
)
from scorefield.sampling.defaults import ROUND_TRIP, check_ode, resolve
from scorefield.sampling.integrate import Prepared, count_calls, prepare
from scorefield.sampling.plan import Plan
from scorefield.solvers import Memory, Solver, State


class Codes(NamedTuple):
    """Codes of samples.

    Attributes:
        z: ``(B, *field.shape)``, standard normal for data that the field knows.
        error: the length of the change by a round trip, relative to that of the sample, or of data
            in general if that is longer, ``(B,)``; NaN if it was not measured.
        nfe: calls of the field for each batch, the way back included.
        partner: like ``z``, the second state that a `Reversible` solver needs to go back; or None.
    """

    z: Tensor
    error: Tensor
    nfe: int
    partner: Tensor | None = None


class Decoded(NamedTuple):
    """Samples of codes, or a strip of them between two samples.

    Attributes:
        x: ``(B, *field.shape)``; of `interpolate` ``(B, points, *field.shape)``.
        error: the same, relative to the code; of `interpolate` to the worse of the two samples.
        nfe: calls of the field for each batch, all included.
    """

    x: Tensor
    error: Tensor
    nfe: int


def encode(
    field: ScoreField,
    x: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    *,
    nfe: int | None = None,
    check: bool = True,
    ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
) -> Codes:
    """Carry samples ``(B, *field.shape)`` to the prior.

    Args:
        solver: a solver of the ODE or a `Plan`; `round_trip_plan` of 80 calls by default.
        times: as for `scorefield.sample`, falling; encoding takes them in reverse. With a solver or
            as a number of steps, the grid is that of `round_trip_plan`.
        nfe: calls of the field one way, instead of times.
        check: go back and measure the error, which doubles the calls.
        ids: which samples these are, for their places in a batch; by default ``0 .. B-1``.
        batch_size: as for `sample`: with the same one a code has the same bits in any batch.

    Raises:
        ValueError: a stochastic solver; times that do not end inside the process; samples that do
            not fit the field; a network in training.
        NumericalError: a code is not finite.
    """
    x, rows = check_samples(field, x, ids, batch_size)
    ways = _Ways(field, _plan(field, solver, times, nfe), rows, batch_size)
    end, partner, error, calls = ways.travel(x, None, up=True, check=check)
    pair = None if partner is None else ways.prior.standard(partner)
    return Codes(ways.prior.standard(end), error, calls, pair)


def decode(
    field: ScoreField,
    codes: Codes | Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    *,
    nfe: int | None = None,
    check: bool = True,
    ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
) -> Decoded:
    """Carry codes back to data; the arguments are those of `encode`, with the same settings.

    Raises:
        ValueError: as `encode`.
        NumericalError: a sample is not finite.
    """
    z, partner = (codes.z, codes.partner) if isinstance(codes, Codes) else (codes, None)
    z, rows = check_samples(field, z, ids, batch_size)
    ways = _Ways(field, _plan(field, solver, times, nfe), rows, batch_size)
    pair = None if partner is None else ways.prior.raw(partner)
    end, _, error, calls = ways.travel(z, pair, up=False, check=check)
    return Decoded(ways.land(end), error, calls)


def interpolate(
    field: ScoreField,
    a: Tensor,
    b: Tensor,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    *,
    nfe: int | None = None,
    points: int = 9,
    ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
) -> Decoded:
    """Return the samples between ``a`` and ``b``, both ``(B, *field.shape)``.

    The first and the last are ``a`` and ``b`` themselves.

    Args:
        points: how many, the ends included.
        ids: which pairs these are, for their places in batches; by default ``0 .. B-1``.
        solver, times, nfe, batch_size: as for `encode`.

    Raises:
        ValueError: as `encode`; ``a`` and ``b`` that differ in shape; ``points < 2``.
        NumericalError: a code or sample is not finite.
    """
    check_flat("interpolate", field)
    a, b = as_numbers("a", a), as_numbers("b", b)
    if a.shape != b.shape:
        raise ValueError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: give pairs.")
    check_whole(2, points=points)
    keys = torch.tensor(as_ids(len(a) if ids is None else ids, batch_size), dtype=torch.int64)
    plan = _plan(field, solver, times, nfe)
    codes = encode(
        field.take([*range(len(a))] * 2, len(a)),
        torch.cat([a, b]),
        plan,
        ids=torch.cat([2 * keys, 2 * keys + 1]),
        batch_size=batch_size,
    )
    between = int(points) - 2
    if between == 0:
        return Decoded(torch.stack([a, b], 1), codes.error.reshape(2, len(a)).amax(0), codes.nfe)
    weights = torch.linspace(0, 1, int(points), dtype=torch.float64)[1:-1].tolist()
    first, last = codes.z[: len(a)], codes.z[len(a) :]
    way = torch.stack([slerp(first, last, weight) for weight in weights], 1)
    places = (keys[:, None] * between + torch.arange(between)).flatten()
    of_points = field.take([k for k in range(len(a)) for _ in range(between)], len(a))
    decoded = decode(
        of_points, way.flatten(0, 1), plan, check=False, ids=places, batch_size=batch_size
    )
    strip = torch.cat([a[:, None], decoded.x.reshape(way.shape), b[:, None]], 1)
    return Decoded(strip, codes.error.reshape(2, len(a)).amax(0), codes.nfe + decoded.nfe)


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Return the point at ``weight`` between ``a`` and ``b`` ``(B, ...)``, along the shell.

    Directions turn at a constant rate and lengths change linearly. Opposite points have no way
    between them that is distinguished; there, and at 0, it is straight.

    Raises:
        ValueError: other shapes.
    """
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: give (B, ...).")
    one, two = (wide(v).flatten(1) for v in (a, b))
    lengths = one.norm(dim=1, keepdim=True), two.norm(dim=1, keepdim=True)
    p, q = (v / length.clamp(min=1e-300) for v, length in zip((one, two), lengths, strict=True))
    # of half angles, which lose no digits where the points are near or opposite
    angle = 2 * torch.atan2((p - q).norm(dim=1, keepdim=True), (p + q).norm(dim=1, keepdim=True))
    sine = angle.sin()
    straight = (angle < 1e-7) | (sine < 1e-7) | (lengths[0] == 0) | (lengths[1] == 0)
    sine = torch.where(straight, 1.0, sine)
    turned = (((1 - weight) * angle).sin() * p + (weight * angle).sin() * q) / sine
    turned = torch.lerp(*lengths, weight) * turned
    decoded = torch.where(straight, torch.lerp(one, two, weight), turned)
    return decoded.reshape(a.shape).to(a)


class _Ways:
    """The way up and the way down of samples with these ids, and the units at both ends."""

    def __init__(
        self, field: ScoreField, plan: Plan, ids: Sequence[int], batch_size: int | None
    ) -> None:
        check_starts_at_noise(field)
        self.field, self.solver, self.ids = field, plan.solver, ids
        self.batch_size = batch_rows(len(ids), batch_size)
        if isinstance(plan.times, Adaptive):
            begin, end = plan.times.ends(field)
            rising: Tensor | Adaptive = replace(plan.times, start=end, end=begin)
        else:
            rising = torch.as_tensor(plan.times, dtype=torch.float64).flip(0)

        self.plan, self.rising = plan, rising
        down = prepare(field, plan)
        if down.first < down.last:
            raise ValueError("times rise: give them falling, as for sample; encode turns them.")
        if down.last < field.process.t_min:
            raise ValueError(
                "times end at the data, where no field can be asked: end them at t_min, as "
                "round_trip_plan does."
            )
        self.ways = down, prepare(field, self.solver, rising)
        self.alpha = field.process.alpha(down.last)
        self.prior = field.process.prior(field.mean, field.variance, down.first)

    def _both(self, field: ScoreField) -> tuple[Prepared, Prepared]:
        return prepare(field, self.plan), prepare(field, self.solver, self.rising)

    def lift(self, x: Tensor) -> Tensor:
        """Return data in the units of the last time."""
        return cast(self.alpha, x) * x

    def land(self, x: Tensor) -> Tensor:
        """Return values at the last time in the data's units."""
        return x / cast(self.alpha, x)

    def travel(
        self, x: Tensor, partner: Tensor | None, *, up: bool, check: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, int]:
        """Carry data up or codes down; with ``check``, also back.

        Returns the values at the other end, the second states that the solver needs to go back, the
        error of going back, relative to data or code, and the calls for one batch.
        """
        names = ("code", "sample of the code") if up else ("sample", "code of the sample")
        error = wide(x.new_full((len(x),), torch.nan))
        with count_calls(self.field) as calls:
            begin = self.lift(x) if up else self.prior.raw(x)
            end, pair = self._carry(up, begin, partner, names[0])
            if check:
                again, _ = self._carry(not up, end, pair, names[1])
                again = self.land(again) if up else self.prior.standard(again)
                if space := self.field.process.space:  # where angles differ by whole turns
                    again = x + space.log(x, again)
                error = apart(again, x, self.field.data_std if up else 1.0)
        turns = sum(1 for _ in batches(self.ids, self.batch_size)) if self.ids else 1
        return end, pair, error, round(calls.count / max(1, turns))

    def _carry(
        self, up: bool, x: Tensor, partner: Tensor | None, label: str
    ) -> tuple[Tensor, Tensor | None]:
        """Return where a run ends, and the second states that its solver needs to go back."""
        out, pair, size, run = torch.empty_like(x), None, self.batch_size, self.ways[up]
        for places, rows, slots in batches(self.ids, size):
            if self.field.rows > 1:
                own = for_batch(self.field, places, rows, size, len(self.ids))
                run = self._both(own)[up]
            begin = State(filled(x, places, rows, size), run.first, Noise(0, slots.to(x.device)))
            if partner is not None:
                second = filled(partner, places, rows, size)
                begin = begin._replace(memory=Memory(None, second, begin.x, self.solver))
            with torch.no_grad():
                end = run(begin, rows)
            out[places] = end.x[rows]
            memory = end.memory
            if memory is not None and memory.history is None and isinstance(memory.tensors, Tensor):
                pair = torch.empty_like(x) if pair is None else pair
                pair[places] = memory.tensors[rows]
        if bad := [self.ids[k] for k in not_finite(out)]:
            raise NumericalError(f"the {label} of {bad[:5]} is not finite ({self.solver!r}).")
        return out, pair


def _plan(
    field: ScoreField,
    solver: Solver | Plan | None,
    times: Tensor | int | Adaptive | None,
    nfe: int | None,
) -> Plan:
    plan = resolve(field, solver, times, nfe, ROUND_TRIP)
    check_ode(plan.solver)
    return plan


def apart(actual: Tensor, wanted: Tensor, usual: float) -> Tensor:
    """Return the distance of each sample to another, float64 ``(B,)``.

    Relative to the other's length, or where that is longer, to the length of numbers of the usual
    size.
    """
    actual, wanted = wide(actual).flatten(1), wide(wanted).flatten(1)
    length = wanted.norm(dim=1).clamp(min=usual * math.sqrt(wanted.shape[1]))
    apart: Tensor = (actual - wanted).norm(dim=1) / length
    return apart
