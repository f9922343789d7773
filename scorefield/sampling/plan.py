r"""Plans: a solver and its times, and how they are saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield import solvers
from scorefield._internal.errors import CheckpointError
from scorefield._internal.hub import snapshot
from scorefield._internal.json_values import decode, encode, read_file, write_file
from scorefield.field import Estimate, Instant, ScoreField, check_same, digest
from scorefield.noise import Noise
from scorefield.process import Process, check_times, check_whole, wide
from scorefield.sampling.adaptive import Adaptive
from scorefield.solvers import Solver, State, level_times


@dataclass(frozen=True)
class Tuning:
    """The field that a plan was fitted to, and the errors measured there.

    Distances are of noises that had no part in the fit, each from the end of its exact path, over
    the root of the dimension; a mean over noises.

    Attributes:
        field: the `scorefield.field.digest` of the field.
        process: that of the process whose times the plan has.
        levels: ``log(sigma / alpha)`` of the times, ``-inf`` at the data.
        nfe: calls of the field for a sample, those made at once counted singly.
        error: the plan's distance.
        low, high: its 95 % confidence interval, for skewed distances.
        default: that of the default plan of as many rounds, which is kept where it is better.
        teacher: that of paths with half the steps of the teacher's.
        noises: how many noises the steps were fitted to.
        seed: of the noises.
    """

    field: str
    process: str
    levels: tuple[float, ...]
    nfe: int
    error: float
    low: float
    high: float
    default: float
    teacher: float
    noises: int
    seed: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A solver, the times it visits, and whether the denoiser is called at the end.

    Attributes:
        solver: the rule of a step.
        times: the grid, falling, ``(N + 1,)``; or `Adaptive`.
        finish: `scorefield.sample` ends with one more call of the field, which removes the noise of
            the last time. Give False for times that end at `Process.t_data`, without noise.
        tuning: the field that `scorefield.tune` fitted the plan to; it is for that field alone.
    """

    solver: Solver
    times: Tensor | Adaptive
    finish: bool = True
    tuning: Tuning | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        one, two = self.times, other.times
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            same = torch.equal(wide(one).cpu(), wide(two).cpu())
        else:
            same = type(one) is type(two) and one == two
        rest = ((p.solver, p.finish, p.tuning) for p in (self, other))
        return bool(same) and next(rest) == next(rest)

    def __hash__(self) -> int:
        times = self.times.tolist() if isinstance(self.times, Tensor) else [self.times]
        return hash((type(self.solver), tuple(times), self.finish, self.tuning))

    @cached_property
    def nfe(self) -> int | None:
        """The number of calls of the field for one sample, the denoiser's at the end included.

        None if it is not known before a run: for `Adaptive` times, and for solvers whose calls
        depend on the noise levels of a process, such as `Restart`.
        """
        if self.tuning is not None:
            return self.tuning.nfe
        if isinstance(self.times, Adaptive):
            return None
        ends = float(self.times.min()), float(self.times.max())
        levels = (-9.0, -6.0), (-6.0, 6.0), (6.0, 9.0)
        try:
            counts = {count_calls_on(_Exponential(*pair, *ends), self) for pair in levels}
        except ValueError:
            return None
        return counts.pop() if len(counts) == 1 else None

    @property
    def rounds(self) -> int | None:
        """The number of calls made one after another; of a round are all that are made at once.

        None where `nfe` is.
        """
        return None if self.nfe is None else -(-self.nfe // self.solver.parallel)

    def under(self, process: Process) -> Plan:
        """Return a tuned plan for its field's view under another process.

        Raises:
            ValueError: a plan that was not tuned, or a process that its levels are not on.
        """
        if self.tuning is None:
            raise ValueError("a plan that was not tuned has no levels to carry to another process.")
        tuning = replace(self.tuning, process=digest(process))
        return replace(self, times=level_times(process, tuning.levels), tuning=tuning)

    def check(self, field: ScoreField) -> None:
        """Reject a field that the plan was not tuned to.

        Raises:
            ValueError: a tuned plan, and another field, or its view under another process.
        """
        if self.tuning is not None:
            digests = self.tuning.field, self.tuning.process
            advice = "Tune a plan for it, or use default_plan.", "Use plan.under(field.process)."
            check_same(field, digests, "the plan was tuned for", advice)

    def encoded(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it.

        Raises:
            ValueError: a solver that is not one of `scorefield.solvers`.
        """
        encoded: dict[str, Any] = encode(self, plan_kinds())
        return encoded

    @classmethod
    def decoded(cls, data: Mapping[str, Any]) -> Plan:
        """Return the plan that `encoded` made ``data`` of, the same to the last bit.

        Raises:
            ValueError: it is none, or one of too many calls.
        """
        plan = decode(dict(data), plan_kinds())
        if not isinstance(plan, Plan):
            raise ValueError(f"{type(plan).__name__} is not a plan")
        if isinstance(plan.times, Tensor):
            check_whole(0, calls=(plan.times.numel() - 1) * plan.solver.calls)
        return plan

    def save(self, path: str | PathLike[str]) -> None:
        """Write the plan as JSON, at once or not at all.

        Raises:
            ValueError: as `encoded`.
            StorageError: the disk is full.
        """
        write_file(path, _FORMAT, self.encoded())

    @classmethod
    def load(cls, path: str | PathLike[str], folder: Path | None = None) -> Plan:
        """Read a plan that `save` has written.

        Args:
            folder: that the file must lie in, links resolved; by default it may lie anywhere.

        Raises:
            CheckpointError: the file does not exist, or cannot be read.
            ValueError: the file holds no plan.
        """
        try:
            return cls.decoded(read_file(path, _FORMAT, folder))
        except CheckpointError:
            raise
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} holds no plan: {error}.") from None

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the plan to a folder, as plan.json; the errors are those of `save`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.save(Path(folder) / _FILE)

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str]) -> Plan:
        """Read plan.json of a folder; the errors are those of `load`."""
        return cls.load(snapshot(Path(folder)) / _FILE)


_FORMAT, _FILE = "scorefield-plan", "plan.json"


@cache
def plan_kinds() -> tuple[type, ...]:
    """Return the dataclasses that a plan's file may contain."""
    parts = (getattr(solvers, name) for name in dir(solvers))
    kinds = (part for part in parts if isinstance(part, type) and is_dataclass(part))
    return (Plan, Tuning, Adaptive, *kinds)


@dataclass(frozen=True)
class _Exponential(Process):
    """``x_t = x_0 + sigma eps`` with ``log sigma`` linear in time, to count calls on."""

    low: float
    high: float
    t_min: float
    t_max: float

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        share = (t - self.t_min) / (self.t_max - self.t_min)
        return torch.exp(self.low + share * (self.high - self.low))


class _Counting(ScoreField):
    """A field that is 0 and counts its calls for a sample."""

    calls = 0

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        self.calls += len(x)
        return Estimate.from_x0(x, at, torch.zeros_like(x))


def count_calls_on(process: Process, plan: Plan) -> int:
    """Return the number of calls that a plan on a grid makes of a field of a process.

    Raises:
        ValueError: times that the process or the solver does not support.
    """
    assert isinstance(plan.times, Tensor)
    shape = process.coordinates or (1,)
    field, times = _Counting(process, shape), check_times(process, plan.times)
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    state = State(zero, times[0], Noise(0, torch.zeros(1, dtype=torch.int64)))
    with torch.no_grad():
        for move in plan.solver.moves(field, times[:-1], times[1:]):
            state = move(state)
    return field.calls + (plan.finish and bool(times[-1] >= process.t_min))
