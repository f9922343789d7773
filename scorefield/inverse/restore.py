r"""Restoration: samples given a measurement, for each of many measurements.

Sample ``j`` of item ``k`` has the id ``k n + j``, and so is a function of the measurement, the
seed, the item's number and ``n`` alone. Items share batches, each with its own measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.field import ScoreField, Shape, check_score
from scorefield.inverse import DPS, MMPS, Mask, Operator, PiGDM
from scorefield.process import check_instance
from scorefield.sampling import (
    SAMPLING,
    Adaptive,
    Defaults,
    Plan,
    as_ids,
    as_numbers,
    batch_rows,
    batches,
    filled,
    resolve,
    sample,
    template,
)
from scorefield.solvers import (
    AnglePrediction,
    Multistep,
    PredictorCorrector,
    RePaint,
    Replacement,
    Solver,
)

Method = Literal["mmps", "pigdm", "dps", "replacement", "repaint"]
Noise = float | Tensor


def restore(
    field: ScoreField,
    measured: Tensor,
    operator: Operator | None = None,
    noise_std: Noise = 0.0,
    *,
    method: Method = "mmps",
    n: int = 1,
    solver: Solver | Plan | None = None,
    times: Tensor | int | Adaptive | None = None,
    nfe: int | None = None,
    ids: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    **settings: Any,
) -> Tensor:
    """Return ``n`` samples given each measurement, ``(N, n, *field.shape)``.

    Args:
        measured: ``(N, ...)``, a row for each item.
        operator: maps samples to measurements; by default, a `Mask` of the entries that are not
            NaN.
        noise_std: standard deviation of the noise of a measurement, at least 0: a number, a value
            for each entry, or ``(N, ...)`` for each entry of each item; dps does not use it.
        method: `MMPS`, `PiGDM` or `DPS`; for masks also `Replacement` or `RePaint`, which wrap the
            solver.
        n: samples of each item.
        solver, times, nfe: as for `scorefield.sample`, with the defaults of `restoration`. A plan
            tuned for the unconditional field is used without its tuning.
        ids: the items' numbers, by default ``0 .. N-1``.
        seed: with an id, determines the noise of a sample.
        batch_size: as for `scorefield.sample`.
        settings: the method's own: ``iterations`` of mmps, ``zeta`` of dps, ``repeats`` of repaint.

    Raises:
        ValueError: an unknown method, or one that does not support the operator; measurements that
            do not fit the operator, or the operator the field; as the method's own field, and
            `scorefield.sample`.
        NumericalError: as `scorefield.sample`.
    """
    if method not in METHODS or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"method={method!r}, n={n!r}: must be one of {[*METHODS]}, and n >= 1.")
    check_score("restore", field)
    measured = check_kinds(measured, operator)
    check_items(measured, operator, field.shape)
    measured, operator = mask_as_nan(measured, operator)
    items = as_ids(len(measured) if ids is None else ids, batch_size)
    if len(items) != len(measured):
        raise ValueError(f"{len(items)} ids for {len(measured)} measurements: give one for each.")
    sample_ids = [k * n + j for k in items for j in range(n)]
    plan = replace(resolve(field, solver, times, nfe, restoration(method)), tuning=None)
    out = template(field).new_empty(len(sample_ids), *field.shape)
    size = batch_rows(len(sample_ids), batch_size)
    for places, rows, _ in batches(sample_ids, size):
        of_item, batch_ids = [k // n for k in places], [sample_ids[k] for k in places]
        with torch.inference_mode(False):  # whose tensors no gradient could be taken of
            y, noise = filled(measured, of_item, rows, size), noise_std
            if isinstance(noise, Tensor):
                each = noise.ndim == measured.ndim and len(noise) > 1
                noise = filled(noise, of_item, rows, size) if each else noise.clone()
            map_ = Mask(~y.isnan(), checked=True) if operator is None else operator
            own = field.take(of_item, len(items))
            posed = pose(method, own, map_, y, noise, plan, settings)
            x = sample(posed[0], batch_ids, posed[1], seed=seed, batch_size=size)
        out[places] = x
    return out.reshape(len(items), n, *field.shape)


def mask_as_nan(measured: Tensor, operator: Operator | None) -> tuple[Tensor, Operator | None]:
    """Return measurements as floating-point numbers, with NaN in place of a `Mask`."""
    check_kinds(measured, operator)
    y = measured if measured.is_floating_point() else measured.to(torch.get_default_dtype())
    if not isinstance(operator, Mask):
        return y, operator
    return torch.where(operator.observed.to(y.device), y, torch.nan), None


def restoration(method: Method = "mmps") -> Defaults:
    """Return the defaults of a restoration: the reverse SDE by `Multistep` of order 2, 20 calls.

    The correction by a measurement is less accurate than a network's estimates. The noise of the
    SDE removes such errors, and the ODE would keep them; ``benchmarks/inverse.py`` measures it.
    Order 1 has too little variance in 20 steps. `RePaint` needs it, since it goes back up after
    each step.
    """

    def solver(data_std: float) -> Multistep:
        return Multistep(restoration_order(method), AnglePrediction(data_std), eta=1.0)

    def plan(field: ScoreField, nfe: int = SAMPLING.steps) -> Plan:
        return resolve(field, solver(field.data_std), nfe=nfe)

    return SAMPLING._replace(plan=plan, solver=solver)


def restoration_order(method: Method) -> int:
    """Return the order of the default solver of a method."""
    return 1 if method == "repaint" else 2


def check_kinds(measured: object, operator: object) -> Tensor:
    """Return measurements as a tensor; raise `ValueError` if they, or an operator, are none."""
    if operator is not None:
        check_instance("operator", operator, Operator, "restore(field, measured, operator)")
    return as_numbers("measured", measured)


def check_items(measured: Tensor, operator: Operator | None, sample: Shape) -> None:
    """Raise `DataError` if measurements do not fit the operator and a sample's shape."""
    check_kinds(measured, operator)
    shape = sample if operator is None else operator.shape(sample)
    if tuple(measured.shape[1:]) != shape:
        raise DataError(
            f"measured has items of shape {tuple(measured.shape[1:])}: measurements of samples of "
            f"shape {sample} have {shape}."
        )


def pose(
    method: Method,
    field: ScoreField,
    operator: Operator,
    measured: Tensor,
    noise_std: Noise,
    plan: Plan,
    settings: Mapping[str, Any],
) -> tuple[ScoreField, Plan]:
    """Return the field and the plan that sample given a batch of measurements."""
    if method in _FIELDS:
        return _FIELDS[method](field, operator, measured, noise_std, **settings), plan
    if not isinstance(operator, Mask):
        raise ValueError(
            f"method={method!r}: needs a Mask, and the operator is {type(operator).__name__}; use "
            "mmps, pigdm or dps."
        )
    rule = Replacement(operator.observed, measured, noise_std)
    return field, replace(plan, solver=_SOLVERS[method](plan.solver, rule, **settings))


_FIELDS: Mapping[str, Callable[..., ScoreField]] = {"mmps": MMPS, "pigdm": PiGDM, "dps": DPS}
_SOLVERS: Mapping[str, Callable[..., Solver]] = {
    "replacement": PredictorCorrector,
    "repaint": RePaint,
}
METHODS = (*_FIELDS, *_SOLVERS)
