r"""Restoration: samples of what was measured, for each of many measurements.

Sample ``j`` of item ``k`` has the id ``k n + j``, and so is a function of the measurement, the
seed, the item's number and ``n`` alone. Items share batches, each with its
own measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.field import ScoreField, Shape
from scorefield.inverse import DPS, MMPS, LinearOperator, Mask, Operator, PiGDM
from scorefield.sampling import Adaptive, Plan, as_ids, batches, filled, resolve, sample, template
from scorefield.solvers import DDIM, PredictorCorrector, RePaint, Replacement, Solver

Method = Literal["mmps", "pigdm", "dps", "replacement", "repaint"]
Noise = float | Tensor
Posed = tuple[ScoreField, Plan]


def restore(
    field: ScoreField,
    measured: Tensor,
    operator: Operator | None = None,
    noise_std: Noise = 0.0,
    *,
    method: Method = "mmps",
    n: int = 1,
    solver: Solver | Plan | None = None,
    times: Tensor | Adaptive | None = None,
    ids: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
    **settings: Any,
) -> Tensor:
    """Return ``n`` samples given each measurement, ``(N, n, *field.shape)``.

    Args:
        measured: ``(N, ...)``, a row for each item.
        operator: what measured; unless given, `Mask` of what is not NaN in the samples.
        noise_std: deviation of the noise of a measurement, not negative: a number, a value for each
            entry, or ``(N, ...)`` for each of each item; dps does not ask for it.
        method: `MMPS`, `PiGDM` or `DPS`; for masks also `Replacement` or `RePaint`, around the
            solver.
        n: samples of each.
        solver, times: as for `scorefield.sample`, and `usual_plan` without both; a plan's tuning is
            left aside, since it was to another field.
        ids: the items' numbers, ``0 .. N-1`` unless given.
        seed: with an id, determines the noise of a sample.
        batch_size: as for `scorefield.sample`.
        settings: the method's own: ``iterations`` of mmps, ``zeta`` of dps, ``repeats`` of repaint.

    Raises:
        ValueError: a method of another name, or that does not take such an operator; measurements
            that do not fit the operator or the operator the field; as the method's own field, and
            `scorefield.sample`.
        NumericalError: as `scorefield.sample`.
    """
    if method not in METHODS or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"method = {method!r}, n = {n!r}: give one of {[*METHODS]}, and n >= 1.")
    check_items(measured, operator, field.shape)
    measured, operator = as_gaps(measured, operator)
    pose = partial(METHODS[method], **settings)
    numbers = as_ids(len(measured) if ids is None else ids, batch_size)
    if len(numbers) != len(measured):
        raise ValueError(f"{len(numbers)} ids for {len(measured)} measurements: give one for each.")
    drawn = [k * n + j for k in numbers for j in range(n)]
    if solver is None and times is None:
        solver = usual_plan(field)
    plan = replace(resolve(field, solver, times), tuning=None)
    out = template(field).new_empty(len(drawn), *field.shape)
    for places, rows, _ in batches(drawn, batch_size):
        y = filled(measured, [place // n for place in places], rows, batch_size)
        how = Mask(~y.isnan(), checked=True) if operator is None else operator
        noise = noise_std
        if isinstance(noise, Tensor) and noise.ndim == measured.ndim and len(noise) > 1:
            noise = filled(noise, [place // n for place in places], rows, batch_size)
        posed, its_plan = pose(field, how, y, noise, plan)
        some = [drawn[place] for place in places]
        out[places] = sample(posed, some, its_plan, seed=seed, batch_size=batch_size)
    return out.reshape(len(numbers), n, *field.shape)


def as_gaps(measured: Tensor, operator: Operator | None) -> tuple[Tensor, Operator | None]:
    """Return what was measured as floating numbers, and for a `Mask` NaN in the place of it."""
    y = measured if measured.is_floating_point() else measured.to(torch.get_default_dtype())
    if not isinstance(operator, Mask):
        return y, operator
    return torch.where(operator.observed.to(y.device), y, torch.nan), None


def usual_plan(field: ScoreField) -> Plan:
    """Return the plan of a restoration unless another is asked for: 20 steps of `DDIM` (1).

    The pushes of a network are off by more than its estimates, and the noise of the SDE forgets
    what the ODE would keep; ``benchmarks/inverse.py`` measures it.
    """
    return resolve(field, DDIM(1.0), None)


def check_items(measured: Tensor, operator: Operator | None, sample: Shape) -> None:
    """Raise `DataError` if measurements do not fit the operator and a sample's shape."""
    shape = sample if operator is None else operator.shape(sample)
    if tuple(measured.shape[1:]) != shape:
        raise DataError(
            f"measured has items of shape {tuple(measured.shape[1:])}: what was measured of "
            f"samples of shape {sample} has {shape}."
        )


def _by_field(
    make: Callable[..., ScoreField],
    field: ScoreField,
    operator: Operator,
    measured: Tensor,
    noise_std: Noise,
    plan: Plan,
    **settings: Any,
) -> Posed:
    if not isinstance(operator, LinearOperator):
        raise ValueError(
            f"{make.__name__} needs a linear operator, and {type(operator).__name__} is none: use "
            "dps."
        )
    return make(field, operator, measured, noise_std, **settings), plan


def _dps(
    field: ScoreField,
    operator: Operator,
    measured: Tensor,
    noise_std: Noise,
    plan: Plan,
    **settings: Any,
) -> Posed:
    return DPS(field, operator, measured, **settings), plan


def _placed(
    around: Callable[..., Solver],
    field: ScoreField,
    operator: Operator,
    measured: Tensor,
    noise_std: Noise,
    plan: Plan,
    **settings: Any,
) -> Posed:
    if not isinstance(operator, Mask):
        raise ValueError(
            f"known entries can be put in place for a Mask alone, and this is "
            f"{type(operator).__name__}: use mmps, pigdm or dps."
        )
    known = Replacement(operator.observed, measured, noise_std)
    return field, replace(plan, solver=around(plan.solver, known, **settings))


METHODS: Mapping[str, Callable[..., Posed]] = {
    "mmps": partial(_by_field, MMPS),
    "pigdm": partial(_by_field, PiGDM),
    "dps": _dps,
    "replacement": partial(_placed, PredictorCorrector),
    "repaint": partial(_placed, RePaint),
}
