"""Measurements of plans on one field: the choice of a plan, and their file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from scorefield._internal.errors import CheckpointError
from scorefield._internal.json_values import read_file, write_file
from scorefield._internal.text import aligned, one_line
from scorefield.evaluate.metrics import Measurement
from scorefield.field import ScoreField, check_same
from scorefield.process import check_positive
from scorefield.sampling import Plan

FORMAT = "scorefield-frontier"


@dataclass(frozen=True, eq=False)
class Point:
    """The cost of a plan, and the quality of its samples.

    Attributes:
        name: of the plan; plans of one name form a line.
        plan: the plan; None for a scheduler of diffusers.
        nfe: calls of the field for a sample; for adaptive steps the mean over the batches, in
            each of which all wait for the last.
        milliseconds: for a sample, by a whole batch.
        error: the mean distance of the samples from the ends of their exact paths, over the root of
            the dimension; None for a plan that adds noise, which leaves those paths.
        values, excesses: as of `scorefield.evaluate.metrics.Comparison`.
    """

    name: str
    plan: Plan | None
    nfe: float
    milliseconds: float
    error: Measurement | None
    values: Mapping[str, Measurement]
    excesses: Mapping[str, Measurement]

    @property
    def rounds(self) -> float:
        """Calls made one after another; all calls that a step makes at once are one round."""
        parallel = 1 if self.plan is None else self.plan.solver.parallel
        return self.nfe if parallel == 1 else math.ceil(self.nfe / parallel)

    @property
    def stochastic(self) -> bool:
        """Whether the plan adds noise on its way."""
        return self.plan is not None and self.plan.solver.weak_order is not None


@dataclass(frozen=True, eq=False)
class Frontier:
    """Measurements of plans on one field, all from the same starting noises.

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
        points: in the order the plans were given; `scorefield.interop.diffusers.compare` sorts
            them by calls and error.
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

    def __str__(self) -> str:
        """A table of the measurements, and their units."""
        names = list(self.points[0].values)
        parallel = any(p.rounds != p.nfe for p in self.points)
        heads = ["plan", "NFE", *["rounds"] * parallel, "ms", "error"]
        rows = [[*heads, *(name.replace("_", " ") for name in names)]]
        for p in self.points:
            counts = p.nfe, *[p.rounds] * parallel
            cost = *(f"{round(n, 1):g}" for n in counts), f"{p.milliseconds:.2f}"
            values = [str(p.values[name]) for name in names]
            rows.append([one_line(p.name), *cost, str(p.error or "-"), *values])
        if self.floors:
            rows.append(
                [
                    "data itself",
                    *[""] * (len(heads) - 1),
                    *(str(self.floors[name]) for name in names),
                ]
            )
        of_data = f", against {self.m} items of data" if self.m else ""
        paths = f", from paths with error {self.teacher:.1g}" if self.teacher else ""
        return (
            f"{aligned(rows)}\n{self.n} samples of each from the same noises{of_data}; ± half the "
            f"{self.level:.0%} interval. Errors in standard deviations of the data{paths}; ms per "
            f"sample in batches of {self.batch_size} on {self.machine}"
        )

    def within(self, tolerance: float) -> Point:
        """Return the plan of fewest calls whose upper bound of the error is within a tolerance.

        The upper bound of a plan's error is that of its confidence interval, plus the error of the
        exact paths. Of several plans with the fewest calls, the fastest.

        Raises:
            ValueError: no plan is, naming the nearest; a tolerance below the error of the paths.
        """
        check_positive(tolerance=tolerance)
        bound = self.teacher or 0.0
        bounds = [(p.error.high + bound, p) for p in self._plans() if p.error is not None]
        if not bounds:
            raise ValueError(
                "no plan was measured against exact paths: add one without noise, such as Heun."
            )
        if self.teacher is not None and tolerance < self.teacher:
            raise ValueError(
                f"tolerance={tolerance:g}: must be above the error of the exact paths, "
                f"{self.teacher:.2g}."
            )
        fits = [p for high, p in bounds if high <= tolerance]
        if not fits:
            high, nearest = min(bounds, key=lambda pair: pair[0])
            raise ValueError(
                f"tolerance={tolerance:g}: no plan has an error surely below it. The nearest, "
                f"{_label(nearest)}, has at most {high:.3g}."
            )
        return min(fits, key=lambda p: (p.nfe, p.milliseconds))

    def for_time(self, milliseconds: float) -> Point:
        """Return the best plan whose time for a sample is within a limit.

        The best plan has the least error. If no plan has an error, it has the least first metric.

        Raises:
            ValueError: no plan is that fast, naming the fastest; neither errors nor metrics.
        """
        check_positive(milliseconds=milliseconds)
        by_error = [p for p in self._plans() if p.error is not None]
        measured = by_error or [p for p in self._plans() if p.values]
        if not measured:
            raise ValueError("no plan has an error or a metric to compare: measure with data.")
        fits = [p for p in measured if p.milliseconds <= milliseconds]
        if not fits:
            fastest = min(measured, key=lambda p: p.milliseconds)
            raise ValueError(
                f"milliseconds={milliseconds:g}: no plan is that fast for a sample. The fastest, "
                f"{_label(fastest)}, takes {fastest.milliseconds:.3g} ms."
            )
        return min(fits, key=lambda p: (_merit(p), p.nfe))

    def _plans(self) -> list[Point]:
        """Return the points of plans, without those of other schedulers."""
        return [p for p in self.points if p.plan is not None]

    def check(self, field: ScoreField) -> None:
        """Reject a field that the plans were not measured on.

        Raises:
            ValueError: another field, or its view under another process.
        """
        advice = "Measure again.", "Use the view that the plans were measured on."
        check_same(field, (self.field, self.process), "the plans were measured on", advice)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, at once or not at all.

        Raises:
            ValueError: a plan whose solver is not one of `scorefield.solvers`.
            StorageError: no room on the disk.
        """
        facts = {k: v for k, v in vars(self).items() if k not in ("floors", "points")}
        parts = {"floors": _plain(self.floors), "points": [_encoded(p) for p in self.points]}
        write_file(path, FORMAT, facts | parts)

    @classmethod
    def load(cls, path: str | PathLike[str], folder: Path | None = None) -> Frontier:
        """Read a file that `save` has written.

        Args:
            folder: that the file must lie in, links resolved; by default it may lie anywhere.

        Raises:
            CheckpointError: the file does not exist, or cannot be read.
            ValueError: the file does not hold a frontier.
        """
        try:
            values = read_file(path, FORMAT, folder)
            points = tuple(_decoded(point) for point in values.pop("points"))
            result = cls(**values | {"floors": _measurements(values["floors"])}, points=points)
            _check_facts(result)
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} does not hold a frontier: {error}.") from None
        return result


def _label(point: Point) -> str:
    return f"{point.name} of {round(point.nfe, 1):g} calls"


def _merit(point: Point) -> float:
    """Return the measure that is lower for a better plan."""
    return (point.error or next(iter(point.values.values()))).value


def _plain(estimates: Mapping[str, Measurement]) -> dict[str, dict[str, float]]:
    return {name: asdict(value) for name, value in estimates.items()}


def _encoded(point: Point) -> dict[str, Any]:
    """Return a point as JSON; solver and stochastic follow from the plan, for those who read."""
    return {
        "name": point.name,
        "solver": None if point.plan is None else repr(point.plan.solver),
        "nfe": point.nfe,
        "milliseconds": point.milliseconds,
        "stochastic": point.stochastic,
        "error": None if point.error is None else asdict(point.error),
        "values": _plain(point.values),
        "excesses": _plain(point.excesses),
        "plan": None if point.plan is None else point.plan.encoded(),
    }


def _decoded(values: Mapping[str, Any]) -> Point:
    error = None if values["error"] is None else _measurement(values["error"])
    _check_numbers(values["nfe"], values["milliseconds"])
    return Point(
        str(values["name"]),
        None if values["plan"] is None else Plan.decoded(values["plan"]),
        values["nfe"],
        values["milliseconds"],
        error,
        _measurements(values["values"]),
        _measurements(values["excesses"]),
    )


def _measurements(values: Mapping[str, Any]) -> dict[str, Measurement]:
    return {str(name): _measurement(value) for name, value in values.items()}


def _measurement(values: Mapping[str, Any]) -> Measurement:
    result = Measurement(**values)
    _check_numbers(*vars(result).values())
    return result


def _check_facts(facts: Frontier) -> None:
    counts = facts.n, facts.m, facts.dim, facts.seed, facts.batch_size
    _check_numbers(*counts, facts.level, facts.teacher or 0)
    if not all(isinstance(text, str) for text in (facts.field, facts.process, facts.machine)):
        raise ValueError("a value has another type")


def _check_numbers(*values: Any) -> None:
    """Reject values that are not finite numbers, True and False among them."""
    for value in values:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{value!r} is not a finite number")
