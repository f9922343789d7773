"""What was measured of plans on one field; choosing among them, and a file of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from scorefield._internal.json_values import read_file, write_file
from scorefield.evaluate.metrics import Measurement
from scorefield.field import ScoreField, digest
from scorefield.process import check_positive
from scorefield.sampling import Plan

FORMAT = "scorefield-frontier"


@dataclass(frozen=True, eq=False)
class Point:
    """What one plan costs, and what its samples are worth.

    Attributes:
        name: what the plan is called; plans of one name make a line.
        plan: the plan.
        nfe: calls of the field for a sample; for adaptive steps the mean over the batches, in
            each of which all wait for the last.
        milliseconds: for a sample, by a whole batch.
        error: the mean distance of the samples from the ends of their exact paths, over the root of
            the dimension; None for a plan that adds noise, which leaves those paths.
        values, excesses: as of `scorefield.evaluate.metrics.Comparison`.
    """

    name: str
    plan: Plan
    nfe: float
    milliseconds: float
    error: Measurement | None
    values: Mapping[str, Measurement]
    excesses: Mapping[str, Measurement]

    @property
    def stochastic(self) -> bool:
        """Whether the plan adds noise on its way."""
        return self.plan.solver.weak_order is not None


@dataclass(frozen=True, eq=False)
class Frontier:
    """What plans are worth on one field, each from the same starting noises.

    Attributes:
        field: the `scorefield.field.digest` of the field.
        process: that of the process whose times the plans have.
        n, m: how many samples each plan made, and how many real ones they were compared with.
        dim: coordinates of a sample.
        level: of the confidence intervals.
        seed: with the ids ``0 .. n-1``, determines the noises.
        batch_size: samples per call of the field, at which the time was taken.
        machine: where.
        teacher: how far the exact paths are from those of half as many steps, an upper estimate of
            their own error in the units of `Point.error`; None if no plan follows paths.
        floors: of the metrics; empty if no other real data was given.
        points: in the order the plans were given.
    """

    field: str
    process: str
    n: int
    m: int
    dim: int
    level: float
    seed: int
    batch_size: int
    machine: str
    teacher: float | None
    floors: Mapping[str, Measurement]
    points: tuple[Point, ...]

    def within(self, tolerance: float) -> Point:
        """Return the cheapest plan whose error is sure to be within a tolerance.

        Of the plans whose upper confidence bound is, with what the exact paths are not sure of
        added, the one with fewest calls; of several, the fastest.

        Raises:
            ValueError: none is, or so exactly is nothing known; naming the nearest.
        """
        check_positive(tolerance=tolerance)
        doubt = self.teacher or 0.0
        known = [(p.error.high + doubt, p) for p in self.points if p.error is not None]
        if not known:
            raise ValueError("no plan was measured against exact paths: add one of the ODE.")
        if self.teacher is not None and tolerance < self.teacher:
            raise ValueError(
                f"tolerance = {tolerance:g}: the exact paths are known to {self.teacher:.2g} only."
            )
        fits = [p for high, p in known if high <= tolerance]
        if not fits:
            high, nearest = min(known, key=lambda pair: pair[0])
            raise ValueError(
                f"tolerance = {tolerance:g}: no plan is sure to be within it. The nearest, "
                f"{_called(nearest)}, is within {high:.3g}."
            )
        return min(fits, key=lambda p: (p.nfe, p.milliseconds))

    def for_time(self, milliseconds: float) -> Point:
        """Return the best plan that takes no longer for a sample.

        That is the one of least error. Where no plan at all has an error, it is the one whose first
        metric is least.

        Raises:
            ValueError: none is so fast, naming the fastest; nothing to tell the better by.
        """
        check_positive(milliseconds=milliseconds)
        by_error = [p for p in self.points if p.error is not None]
        known = by_error or [p for p in self.points if p.values]
        if not known:
            raise ValueError("no plan has an error or a metric to tell the better by.")
        fits = [p for p in known if p.milliseconds <= milliseconds]
        if not fits:
            fastest = min(known, key=lambda p: p.milliseconds)
            raise ValueError(
                f"milliseconds = {milliseconds:g}: no plan takes so little for a sample. The "
                f"fastest, {_called(fastest)}, takes {fastest.milliseconds:.3g} ms."
            )
        return min(fits, key=lambda p: (_merit(p), p.nfe))

    def check(self, field: ScoreField) -> None:
        """Refuse a field that the plans were not measured on.

        Raises:
            ValueError: another field, or its view under another process.
        """
        found, process = digest(field), digest(field.process)
        if found != self.field:
            raise ValueError(
                f"the plans were measured on the field {self.field[:12]}, and this field is "
                f"{found[:12]}: other weights, another process or another guidance. Measure again."
            )
        if process != self.process:
            raise ValueError(
                f"the plans have times of the process {self.process[:12]}, and this field's, "
                f"{field.process!r}, is {process[:12]}: take the view they were measured on."
            )

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, at once or not at all.

        Raises:
            ValueError: a plan whose solver is not one of `scorefield.solvers`.
            StorageError: there is no room for it.
        """
        facts = {k: v for k, v in vars(self).items() if k not in ("floors", "points")}
        parts = {"floors": _plain(self.floors), "points": [_encoded(p) for p in self.points]}
        write_file(path, FORMAT, facts | parts)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Frontier:
        """Read what `save` has written.

        Raises:
            ValueError: the file holds no frontier.
            OSError: it cannot be read.
        """
        try:
            held = read_file(path, FORMAT)
            points = tuple(_decoded(point) for point in held.pop("points"))
            found = cls(**held | {"floors": _estimates(held["floors"])}, points=points)
            _check_facts(found)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} holds no frontier: {error}.") from None
        return found


def _called(point: Point) -> str:
    return f"{point.name} of {round(point.nfe, 1):g} calls"


def _merit(point: Point) -> float:
    """Return what is less for a better plan."""
    return (point.error or next(iter(point.values.values()))).value


def _plain(estimates: Mapping[str, Measurement]) -> dict[str, dict[str, float]]:
    return {name: asdict(value) for name, value in estimates.items()}


def _encoded(point: Point) -> dict[str, Any]:
    """Return a point as JSON; solver and stochastic follow from the plan, for those who read."""
    return {
        "name": point.name,
        "solver": repr(point.plan.solver),
        "nfe": point.nfe,
        "milliseconds": point.milliseconds,
        "stochastic": point.stochastic,
        "error": None if point.error is None else asdict(point.error),
        "values": _plain(point.values),
        "excesses": _plain(point.excesses),
        "plan": point.plan.encoded(),
    }


def _decoded(held: Mapping[str, Any]) -> Point:
    error = None if held["error"] is None else _estimate(held["error"])
    _numbers(held["nfe"], held["milliseconds"])
    return Point(
        str(held["name"]),
        Plan.decoded(held["plan"]),
        held["nfe"],
        held["milliseconds"],
        error,
        _estimates(held["values"]),
        _estimates(held["excesses"]),
    )


def _estimates(held: Mapping[str, Any]) -> dict[str, Measurement]:
    return {str(name): _estimate(value) for name, value in held.items()}


def _estimate(held: Mapping[str, Any]) -> Measurement:
    found = Measurement(**held)
    _numbers(*vars(found).values())
    return found


def _check_facts(found: Frontier) -> None:
    _numbers(
        found.n, found.m, found.dim, found.level, found.seed, found.batch_size, found.teacher or 0
    )
    if not all(isinstance(text, str) for text in (found.field, found.process, found.machine)):
        raise ValueError("its parts are of other types")


def _numbers(*given: Any) -> None:
    """Refuse what is no finite number; true and false are none."""
    for value in given:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{value!r} is no number")
