"""The calibration of a run with conditions, on pairs of items and their conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.evaluate.calibration import LEVELS, Calibration, calibration
from scorefield.runs.folder import held_out_items
from scorefield.runs.units import Given
from scorefield.sampling import DEFAULT_CALLS

if TYPE_CHECKING:
    from scorefield.data import Data
    from scorefield.runs.run import Run

PAIRS, DRAWS = 200, 99
LEAST = 20  # pairs
_LARGEST = 32  # numbers of a sample
_MOST_CONDITIONS = 64  # numbers, that a classifier compares


def measured_columns(run: Run) -> list[int]:
    """Return the columns of flattened samples whose calibration is defined.

    Those of a run with conditions, of samples of up to 32 numbers; in a table, of columns of
    numbers without missing values that are spread.
    """
    data = run.config.data
    size = math.prod(data.shape)
    whole = bool(run.config.train.levels or data.lengths or run.codec)
    if not data.conditions or size > _LARGEST or whole:
        return []
    kinds = data.columns.kinds
    return [
        k
        for k in range(size)
        if not kinds
        or ((c := kinds[k]).kind == "number" and not (c.missing or c.values or c.atoms))
    ]


def calibrate(
    run: Run,
    data: Data,
    *,
    held_out: bool = False,
    pairs: int = PAIRS,
    draws: int = DRAWS,
    levels: Sequence[float] = LEVELS,
    nfe: int = DEFAULT_CALLS,
    seed: int = 0,
    batch_size: int = 512,
) -> Calibration:
    """Return the calibration of draws given the conditions of items; see `Run.calibrate`."""
    columns = measured_columns(run)
    if not columns:
        raise UsageError(
            f"calibrate: this run is of samples of shape {run.config.data.shape}; give a run with "
            f"conditions, of vectors of at most {_LARGEST} continuous numbers."
        )
    wanted, there = run.config.data.conditions, data.conditions.values
    if absent := [channel.name for channel in wanted if channel.key not in there]:
        raise DataError(
            f"conditions=None: {data.name} has no {', '.join(absent)}; pass those of its items."
        )
    items = held_out_items(run.config, data) if held_out else torch.arange(len(data.x))
    if len(items) < LEAST:
        raise UsageError(
            f"{data.name} has {len(items)} items to measure calibration with: pass {LEAST} or more."
        )
    items = items[torch.linspace(0, len(items) - 1, min(len(items), pairs)).long()]
    values = Given({channel.key: there[channel.key][items] for channel in wanted})
    rows = torch.arange(len(items)).repeat_interleave(draws)
    each = values.rows(rows, len(items))
    drawn = run.sample(len(rows), run.plan(nfe), given=each, seed=seed, batch_size=batch_size)
    samples = drawn.cpu().reshape(len(items), draws, -1)[..., columns]
    truth = data.x[items].flatten(1)[:, columns]
    return calibration(samples, truth, levels, given=_numbers(values))


def _numbers(values: Given) -> Tensor | None:
    """Return conditions as numbers for a classifier, ``(N, C)``; None for many, or missing ones."""
    every = torch.cat([v.double().reshape(len(v), -1) for v in values.values()], 1)
    small = every.shape[1] <= _MOST_CONDITIONS and bool(every.isfinite().all())
    return every if small else None
