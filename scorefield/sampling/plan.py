r"""Plans: a solver and its times; and what to do with a field that nobody has measured yet.

`default_plan` is one rule for every field. With ``N`` calls and the data's deviation ``c``, in
``r = sigma / alpha`` and its growth ``g = log(1 + (r / c)^2)``:

- it starts at ``r = 0.75 N^2 c``, if the process goes higher, from the Gaussian of the data's mean
  and variance: above, the path is nearly that of the Gaussian, and so few calls do not see more;
- its times are equally spaced in ``g^(1/q)``, with ``q`` from 3 to 4; from 5 calls on its last step
  goes to the data, with no call at its end, and below the denoiser finishes;
- it follows the probability-flow ODE by `Multistep` on the noise angle, the order rising with ``N``
  from 2 to 5, by polynomials in the noise angle itself below 5 calls and in a power of ``g`` from
  there on.

The constants were chosen by the distance to the ends of exact paths on four fields, three mixtures
and a network, and checked on two others: ``benchmarks/solvers.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from scorefield import solvers
from scorefield._internal.json_values import decode, encode, read_file, write_file
from scorefield.field import ScoreField, digest
from scorefield.process import Process, balanced, check_positive, time_near
from scorefield.sampling.adaptive import Adaptive
from scorefield.solvers import (
    AnglePrediction,
    Exact,
    Growth,
    Multistep,
    Solver,
    check_solver,
    level_times,
)

DEFAULT_CALLS = DEFAULT_STEPS = 20
ROUND_TRIP_CALLS = 80


@dataclass(frozen=True)
class Tuning:
    """What a plan was fitted to, and what it was found to be worth there.

    Distances are of noises that had no part in the fit, each from the end of its exact path, over
    the root of the dimension; a mean over noises.

    Attributes:
        field: the `scorefield.field.digest` of the field.
        process: that of the process whose times the plan has.
        levels: ``log(sigma / alpha)`` of the times, ``-inf`` at the data.
        nfe: calls of the field.
        error: the plan's distance.
        stderr: the standard error of that.
        default: that of the default plan, `default_plan`, which is kept where it is better.
        teacher: that of the paths that were learned from.
        noises: how many noises the steps were fitted to.
        seed: of the noises.
    """

    field: str
    process: str
    levels: tuple[float, ...]
    nfe: int
    error: float
    stderr: float
    default: float
    teacher: float
    noises: int
    seed: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A solver, the times it visits, and how a run ends.

    Attributes:
        solver: the rule of a step.
        times: the grid, falling, ``(N + 1,)``; or `Adaptive`.
        finish: whether the denoiser is called at the last time, to take away what noise is left;
            by `scorefield.sample`, since a solver's run ends at its last time.
        tuning: what it was fitted to by `scorefield.tune`; such a plan is for that field alone.
    """

    solver: Solver
    times: Tensor | Adaptive
    finish: bool = True
    tuning: Tuning | None = None

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
        """Refuse a field that the plan was not fitted to.

        Raises:
            ValueError: a tuned plan, and another field, or its view under another process.
        """
        if self.tuning is None:
            return
        found, process = digest(field), digest(field.process)
        if found != self.tuning.field:
            raise ValueError(
                f"the plan was tuned for the field {self.tuning.field[:12]}, and this field is "
                f"{found[:12]}: other weights, another process or another guidance. Tune a plan "
                "for it, or use default_plan."
            )
        if process != self.tuning.process:
            raise ValueError(
                f"the plan has times of the process {self.tuning.process[:12]}, and this field's, "
                f"{field.process!r}, is {process[:12]}: take plan.under(field.process)."
            )

    def encoded(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it.

        Raises:
            ValueError: a solver that is not one of `scorefield.solvers`.
        """
        found: dict[str, Any] = encode(self, KINDS)
        return found

    @classmethod
    def decoded(cls, held: Mapping[str, Any]) -> Plan:
        """Return the plan that `encoded` made ``held`` of, the same to the last bit.

        Raises:
            ValueError: it is none.
        """
        plan = decode(dict(held), KINDS)
        if not isinstance(plan, Plan):
            raise ValueError(f"{type(plan).__name__} is no plan")
        return plan

    def save(self, path: str | PathLike[str]) -> None:
        """Write the plan as JSON, at once or not at all.

        Raises:
            ValueError: as `encoded`.
            StorageError: there is no room for it.
        """
        write_file(path, _FORMAT, self.encoded())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Plan:
        """Read a plan that `save` has written.

        Raises:
            ValueError: the file holds no plan.
            OSError: it cannot be read.
        """
        try:
            return cls.decoded(read_file(path, _FORMAT))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} holds no plan: {error}.") from None


_FORMAT = "scorefield-plan"
KINDS = (
    Plan,
    Tuning,
    Adaptive,
    *(kind for kind in vars(solvers).values() if isinstance(kind, type) and is_dataclass(kind)),
)


def default_plan(field: ScoreField, nfe: int = DEFAULT_CALLS) -> Plan:
    """Return the default plan of ``nfe`` calls of a field.

    The denoiser's call is the last one below 5 calls, where the times come down to ``t_min``, and
    where a process cannot be continued to the data. What the data has that is narrower than the
    process's lowest noise is lost.

    Raises:
        ValueError: ``nfe < 2``; a field of data without deviation, or with one so small that the
            process's lowest noise hides it.
    """
    process, c = field.process, _scale(field, nfe)
    start = time_near(process, 0.75 * nfe**2 * c)
    lowest = torch.tensor(process.t_min, dtype=torch.float64)
    if start <= process.t_min:
        raise ValueError(
            f"data of deviation {c:g} disappears in the lowest noise of {process!r}, where sigma / "
            f"alpha is {float((-process.half_log_snr(lowest)).exp()):.2g}: give the data unit "
            "deviation, or the process a smaller t_min."
        )
    spacing = 3.0 if nfe < 5 else 3.5 if nfe < 8 else 4.0
    order = 2 if nfe < 5 else 3 if nfe < 12 else 4 if nfe < 20 else 5
    power = 0.25 if 8 <= nfe < 12 else 0.375
    exact = Exact() if nfe < 5 else Exact(Growth(c, power))
    solver = Multistep(order, AnglePrediction(c), exact, start="rising")
    grid = partial(balanced, process, start=start, data_std=c, power=spacing)
    if process.t_data is None:
        return Plan(solver, grid(nfe - 1))
    times = grid(nfe, to_data=True)
    # not beyond what a network was trained on by more than another step
    at_min = process.half_log_snr(lowest) - process.half_log_snr(times[-2]) < 1e-3
    if nfe < 5 or bool(at_min):
        return Plan(solver, times[:-1])
    return Plan(solver, times, finish=False)


def round_trip_plan(field: ScoreField, nfe: int = ROUND_TRIP_CALLS) -> Plan:
    """Return the plan to carry data to the prior and back, ``nfe`` calls of a field each way.

    It goes from ``t_min`` to `noisiest`, by `Multistep` of order 4 with its corrector.

    Raises:
        ValueError: ``nfe < 2``; a field of data without deviation.
    """
    process, c = field.process, _scale(field, nfe)
    times = balanced(process, nfe, start=noisiest(field), end=process.t_min, data_std=c, power=6.0)
    return Plan(round_trip_solver(c), times, finish=False)


def noisiest(field: ScoreField) -> float:
    """Return the time that whole paths reach: ``t_max``, or where ``alpha`` is still above 0.

    Where no signal is left at ``t_max``, that is the time of a noise of 200 deviations of the data.
    """
    process = field.process
    lost = bool(process.alpha(torch.tensor(process.t_max, dtype=torch.float64)) == 0)
    return time_near(process, 200 * field.data_std) if lost else process.t_max


def round_trip_solver(data_std: float) -> Multistep:
    """Return the solver that goes between data of a deviation and the prior."""
    prediction, quadrature = AnglePrediction(data_std), Exact(Growth(data_std, 0.25))
    return Multistep(4, prediction, quadrature, start="rising", corrector=True)


def _scale(field: ScoreField, nfe: int) -> float:
    """Return the deviation of a field's data, or refuse what no plan can be made of."""
    if not isinstance(nfe, Integral) or nfe < 2:
        raise ValueError(f"nfe = {nfe!r}: a plan needs a number of calls of the field, at least 2.")
    check_positive(data_std=field.data_std)
    return field.data_std


def resolve(
    field: ScoreField, solver: Solver | Plan | None, times: Tensor | Adaptive | None
) -> Plan:
    """Return the plan that the arguments of `scorefield.sample` stand for.

    Raises:
        ValueError: times beside a plan; what is no solver in the place of one.
    """
    if isinstance(solver, Plan):
        if times is not None:
            raise ValueError("a plan has its own times: leave one of them out.")
        solver.check(field)
        return solver
    if solver is None and times is None:
        return default_plan(field)
    if solver is not None:
        check_solver("solver", solver)
    c = field.data_std
    solver = Multistep(3, AnglePrediction(c)) if solver is None else solver
    times = balanced(field.process, DEFAULT_STEPS, data_std=c) if times is None else times
    return Plan(solver, times)
