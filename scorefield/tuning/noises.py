"""Starting noises with their conditions, and the evaluation of a field on all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.evaluate.metrics import Measurement
from scorefield.field import Instant, ScoreField
from scorefield.noise import TUNING, Noise
from scorefield.process import wide
from scorefield.sampling import Plan, from_normal, prepare, template
from scorefield.solvers import State


@dataclass(frozen=True)
class Noises:
    """Starting points of the paths of a field.

    Attributes:
        field: the field.
        z: standard normal, ``(N, *field.shape)``.
        conditions: of the field, ``(N, ...)`` each.
        batch_size: samples per call of the field.
    """

    field: ScoreField
    z: Tensor
    conditions: Mapping[str, Tensor]
    batch_size: int

    def __len__(self) -> int:
        return len(self.z)

    @property
    def dim(self) -> int:
        """Coordinates of a sample."""
        return math.prod(self.field.shape)

    def places(self) -> list[slice]:
        """Return the slice of each batch."""
        return [slice(k, k + self.batch_size) for k in range(0, len(self), self.batch_size)]

    def conditions_of(self, place: slice) -> dict[str, Tensor]:
        """Return the conditions of a batch."""
        return {name: rows[place] for name, rows in self.conditions.items()}

    def batches(self) -> Iterator[tuple[slice, ScoreField]]:
        """Yield the slice of each batch, and the field under its conditions."""
        for place in self.places():
            condition = self.conditions_of(place)
            yield place, self.field.condition_on(**condition) if condition else self.field

    def denoised(self, x: Tensor, at: Instant) -> Tensor:
        """Return ``x0`` of all samples ``(N, *shape)`` at an instant, ``(N, d)``."""
        x0 = x.new_empty(len(x), self.dim)
        for place in self.places():
            x0[place] = self.field(x[place], at, **self.conditions_of(place)).x0.flatten(1)
        return x0

    @torch.no_grad()
    def carried(self, plan: Plan) -> Tensor:
        """Return the samples of a plan of the ODE from the noises, float64 ``(N, d)``."""
        samples = []
        for place, field in self.batches():
            prepared = prepare(field, plan)
            x = from_normal(field, self.z[place], prepared.first)
            at = prepared(State(x, prepared.first, Noise(0, torch.arange(len(x), device=x.device))))
            x = field(at.x, at.t).x0 if plan.finish else at.x
            samples.append(wide(x).flatten(1))
        return torch.cat(samples)

    def where(self, chosen: slice | Tensor) -> Noises:
        """Return some of the noises."""
        conditions = {name: rows[chosen] for name, rows in self.conditions.items()}
        return replace(self, z=self.z[chosen], conditions=conditions)


def draw(
    field: ScoreField,
    count: int,
    conditions: Mapping[str, Tensor],
    seed: int,
    batch_size: int,
    stream: int = TUNING,
) -> Noises:
    """Return noises ``0 .. count-1``, each row of the conditions for two of them in turn.

    Those of the stream `scorefield.noise.SAMPLING` are the noises of `scorefield.sample`.

    Raises:
        ValueError: conditions of different lengths, or none.
    """
    like = template(field)
    ids = torch.arange(count, device=like.device)
    z = Noise(seed, ids, stream=stream).draw(field.shape, like)[0]
    lengths = {name: rows.shape[0] if rows.ndim else 0 for name, rows in conditions.items()}
    if conditions and (len(set(lengths.values())) > 1 or min(lengths.values()) < 1):
        raise ValueError(
            f"conditions have {lengths} rows: they must have the same number, at least 1."
        )
    turns = {name: rows.to(like.device)[ids // 2 % len(rows)] for name, rows in conditions.items()}
    return Noises(field, z, turns, batch_size)


def mean_distance(x: Tensor, ends: Tensor, level: float) -> Measurement:
    """Measure the mean of the `distances` of samples to the ends of their paths."""
    radius = distances(ends, ends.mean(0, keepdim=True)).max()
    return Measurement.of_mean(distances(x, ends), level, largest=2 * float(radius))


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance of each sample to another, divided by the root of the dimension."""
    result: Tensor = (x - y).norm(dim=1) / math.sqrt(y.shape[1])
    return result
