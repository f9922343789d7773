"""The quality of samples: their distance from held-out data, and whether they are copies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from scorefield.data.rows import Rows
from scorefield.evaluate.metrics import ClosestRecord, EnergyDistance, Measurement, compare
from scorefield.sampling import DEFAULT_CALLS
from scorefield.tuning.frontier.measure import SMALLEST

if TYPE_CHECKING:
    from scorefield.runs.run import Run

_MOST = 256  # samples
_RECORDS = 2**24  # values of all training records
_LEAST = 0.9  # of the ratio of distances, which falls where samples vary a little less than data
_SHARE = 0.25  # of the network calls of the training
_STEP = 3  # calls in a training step, which has a backward pass


class Items(NamedTuple):
    """Data, and the numbers of the samples that were learned from and held out."""

    x: Rows
    learned: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class Quality:
    """Samples of a run next to data, in units of the data's deviations.

    Attributes:
        count: the number of samples.
        generated: energy distance of samples to held-out data; None without enough of it.
        real: energy distance of training data, which a perfect field would have.
        closest_ratio, copies: of the distance to the closest training record, samples against
            held-out data, as `scorefield.metrics.ClosestRecord`.
        reference: the data in its place, held-out or training.
    """

    count: int
    generated: Measurement | None
    real: Measurement | None
    closest_ratio: Measurement
    copies: Measurement
    reference: str

    @property
    def copied(self) -> bool:
        """Whether samples are closer to training records than data is, beyond chance and 10 %."""
        return self.copies.low > 0 or self.closest_ratio.high < _LEAST

    @property
    def record(self) -> dict[str, Any]:
        """The numbers and their intervals, in JSON's types."""
        result: dict[str, Any] = {}
        for name, value in vars(self).items():
            measured = isinstance(value, Measurement)
            result[name] = value.value if measured else value
            if measured:
                result[f"{name}_interval"] = [value.low, value.high]
        return result

    def __str__(self) -> str:
        copies = (
            f"distance to the closest training record: {self.closest_ratio} times that of "
            f"{self.reference} data; share of copies: {self.copies} above that of such data"
        )
        if self.copied:
            copies += ". WARNING: the network reproduces training data"
        if self.generated is None:
            return copies
        return (
            f"energy distance to held-out data: {self.generated} of {self.count} samples, "
            f"{self.real} of training data; {copies}"
        )


def affordable(steps: int, batch_size: int, learned: int) -> int:
    """Return the number of samples to compare, at a quarter of the cost of a training; or 0."""
    count = min(_MOST, learned, int(_SHARE * _STEP * steps * batch_size / DEFAULT_CALLS))
    return count if count >= SMALLEST else 0


def quality(run: Run, items: Items, seed: int, count: int = _MOST) -> Quality:
    """Return the quality of ``count`` samples, fewer if there are fewer data.

    Raises:
        ValueError: fewer than 32 samples to compare.
    """
    run.check_one_length()
    records = records_of(run, items.learned)
    among = len(items.held_out) < SMALLEST
    rows = _spread(records, count) if among else items.held_out[:count]
    count = min(count, len(rows), len(records))
    if count < SMALLEST:
        raise ValueError(f"n={count}: a comparison needs at least {SMALLEST} samples.")
    learned = run.to_field(items.x[records])
    reference = run.to_field(items.x[rows])
    samples = run.to_field(run.sample(count, seed=seed).cpu())
    metrics = [ClosestRecord(learned, among=among)]
    values = compare(samples, reference, metrics=metrics, seed=seed).values
    energy = {}
    if not among:
        other = run.to_field(items.x[_spread(items.learned, count)])
        result = compare(samples, reference, other=other, metrics=[EnergyDistance()], seed=seed)
        energy = {"generated": result.values, "real": result.floors}
    distances = {name: each["energy_distance"] for name, each in energy.items()}
    return Quality(
        count,
        distances.get("generated"),
        distances.get("real"),
        values["closest_ratio"],
        values["copies"],
        "training" if among else "held-out",
    )


def records_of(run: Run, learned: Tensor) -> Tensor:
    """Return the numbers of the training records to compare with, of 2^24 values at most."""
    return _spread(learned, max(2, _RECORDS // math.prod(run.field.shape)))


def _spread(rows: Tensor, count: int) -> Tensor:
    """Return some numbers, evenly from all, so that sorted data is represented."""
    return rows[torch.linspace(0, len(rows) - 1, min(len(rows), count)).long()]
