"""From the options of a command to a plan: a solver and its times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from scorefield import solvers
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.text import one_line
from scorefield.cli.console import say
from scorefield.cli.opening import Opened
from scorefield.cli.options import PlanOptions, SolverOptions
from scorefield.field import ScoreField
from scorefield.process import grid as grids
from scorefield.runs.folder import read_plan
from scorefield.runs.run import Run
from scorefield.sampling import (
    DEFAULT_CALLS,
    DEFAULT_STEPS,
    MOST_ROWS,
    SAMPLING,
    Adaptive,
    Defaults,
    Plan,
    default_plan,
    resolve,
    template,
)

GRIDS: dict[str, Callable[..., Tensor]] = {
    "balanced": grids.balanced,
    "uniform": grids.uniform,
    "quadratic": grids.quadratic,
    "even-log-snr": grids.even_log_snr,
    "karras": grids.karras,
}
# by the standard deviation of the data
PREDICTIONS: dict[str, Callable[[float], solvers.Prediction]] = {
    "angle": solvers.AnglePrediction,
    "data": lambda c: solvers.DataPrediction(),
    "noise": lambda c: solvers.NoisePrediction(),
}


# the solver of each name, in `scorefield.solvers`, and the options it takes
SOLVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "multistep": ("Multistep", ("order", "prediction", "corrector", "eta")),
    "singlestep": ("Singlestep", ("order", "prediction")),
    "dpm-solver": ("dpm_solver", ("order",)),
    "dpm-solver++": ("dpm_solver_pp", ("order", "sde")),
    "deis": ("deis", ("order",)),
    "unipc": ("unipc", ("order", "prediction")),
    "ddim": ("DDIM", ("eta",)),
    "ddpm": ("DDPM", ("variance",)),
    "euler": ("Euler", ()),
    "midpoint": ("Midpoint", ()),
    "heun": ("Heun", ()),
    "bosh3": ("Bosh3", ()),
    "rk4": ("RK4", ()),
    "dopri5": ("Dopri5", ()),
    "tsit5": ("Tsit5", ()),
    "euler-maruyama": ("EulerMaruyama", ("eta",)),
    "stochastic-heun": ("StochasticHeun", ("eta",)),
    "reverse-diffusion": ("ReverseDiffusion", ()),
    "predictor-corrector": ("PredictorCorrector", ()),
}
DEFAULT = "default"  # the plan that is fitted to nothing
_ADAPTIVE = ("bosh3", "dopri5", "tsit5")  # solvers that choose their own steps when compared


@dataclass(frozen=True)
class NamedPlan:
    """A plan that options name.

    Attributes:
        name: that files are named after.
        note: a line about it.
        phrase: its name in a sentence.
    """

    name: str
    plan: Plan
    note: str = ""
    phrase: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The plan in JSON's types."""
        times = self.plan.times
        return {
            "solver": repr(self.plan.solver),
            "times": times.tolist() if isinstance(times, Tensor) else repr(times),
            "finish": self.plan.finish,
            "phrase": self.phrase or f"the plan {self.name}",
        }


def describe_times(settings: Mapping[str, Any]) -> str:
    """Return the number of steps, or the tolerances, of `NamedPlan.settings`."""
    times = settings["times"]
    return times if isinstance(times, str) else f"{len(times) - 1} steps"


def choose_plan(opened: Opened, options: PlanOptions, solver: SolverOptions) -> NamedPlan:
    """Return the plan that options name, for the run with its guidance.

    Raises:
        UsageError: options that name two plans, or have no effect.
        CheckpointError: the plan's file, or the comparison of plans, cannot be used.
        ValueError: an option of the solver out of range; no plan is that accurate or that fast.
    """
    chosen = [_flag(k) for k, value in asdict(options).items() if value is not None]
    by_hand = [_flag(k) for k, value in asdict(solver).items() if value is not None]
    if options.plan == DEFAULT and len(chosen) == 2 and options.nfe is not None:
        chosen = chosen[:1]  # the default plan of so many calls
    if len(chosen) > 1 or (chosen and by_hand):
        first, *others = [*chosen, *by_hand]
        raise UsageError(
            f"{first} and {', '.join(others)} cannot be combined: {first} already selects solver "
            "and times."
        )
    if by_hand:
        return solver_plan(opened.run, solver)
    if options.tolerance is not None or options.time_per_sample is not None:
        if opened.run.scales:
            raise UsageError(
                f"{chosen[0]}: plans are compared under one scale of guidance; use --nfe."
            )
        return _measured_plan(opened, options)
    if options.plan not in (None, DEFAULT):
        path = Path(options.plan)
        plan = read_plan(path, opened.run.conditional)
        return NamedPlan(path.stem, plan, describe_tuning(plan))
    calls, run = DEFAULT_CALLS if options.nfe is None else options.nfe, opened.run
    tunable = options.plan is None and not run.scales
    if tunable and (tuned := opened.folder.plan(run.conditional, calls, run.guidance)):
        return NamedPlan(f"tuned-{calls}", tuned, describe_tuning(tuned), "the tuned plan")
    tune = "; scorefield tune fits a plan to the run" if run.field.process.space is None else ""
    note = f"using the default plan{tune}"
    return NamedPlan(f"plan-{calls}", default_plan(run.field, calls), note, "the default plan")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def solver_plan(
    run: Run,
    options: SolverOptions,
    default: Defaults = SAMPLING,
    unset: Mapping[str, Any] = MappingProxyType({}),
) -> NamedPlan:
    """Return the plan of a solver chosen by hand.

    Args:
        default: gives the solver where steps or a grid are chosen alone.
        unset: options of the default solver where others of its options are chosen.

    Raises:
        UsageError: options that the solver does not have, or that exclude each other.
        ValueError: an option of the solver out of range.
    """
    settings = {name: value for name, value in asdict(options).items() if value is not None}
    usual = "multistep" if run.field.process.space is None else "singlestep"
    name, spacing = settings.pop("solver", usual), settings.pop("grid", None)
    steps = settings.pop("steps", None)
    rtol, atol = settings.pop("rtol", None), settings.pop("atol", None)
    by_default = options.solver is None and not settings  # as in Python
    if options.solver is None:
        settings = {**unset, **settings}
    if rtol is None and atol is None:
        count = DEFAULT_STEPS if steps is None else steps
        times = _times(run.field, spacing, count)
        solver = None if by_default else make_solver(name, settings, run.field.data_std)
        plan = resolve(run.field, solver, times, default=default)
        return NamedPlan(f"{name}-{count}", plan, phrase=f"{name} in {count} steps")
    if steps is not None or spacing is not None:
        raise UsageError(
            "--steps and --grid have no effect with --rtol or --atol, with which each sample "
            "chooses its own steps."
        )
    rtol = 0.0 if rtol is None else rtol
    adaptive = Adaptive(rtol, rtol if atol is None else atol)
    solver = make_solver(name, settings, run.field.data_std)
    phrase = f"{name} with a tolerance of {rtol:g}"
    return NamedPlan(f"{name}-adaptive{rtol:g}", Plan(solver, adaptive), phrase=phrase)


def _times(field: ScoreField, spacing: str | None, count: int) -> Tensor:
    spacing = spacing or "balanced"
    scale = {"data_std": field.data_std} if spacing == "balanced" else {}
    return GRIDS[spacing](field.process, count, **scale)


def make_solver(name: str, settings: Mapping[str, Any], data_std: float = 1.0) -> solvers.Solver:
    """Return the solver of a name, for data of a standard deviation.

    Raises:
        UsageError: an option that the solver does not have.
    """
    attribute, options = SOLVERS[name]
    for option in settings:
        if option not in options:
            owners = [solver for solver, (_, names) in SOLVERS.items() if option in names]
            raise UsageError(
                f"--{option} has no effect on {name}: it belongs to {', '.join(owners)}."
            )
    if name == "predictor-corrector":  # of Song et al. (2021)
        return solvers.PredictorCorrector(solvers.ReverseDiffusion(), solvers.Langevin())
    arguments = {"prediction": "angle", **settings} if name == "multistep" else dict(settings)
    if "prediction" in arguments:
        arguments["prediction"] = PREDICTIONS[arguments["prediction"]](data_std)
    solver: solvers.Solver = getattr(solvers, attribute)(**arguments)
    return solver


def guidance_option(guidance: float) -> str:
    """Return the option of a command for a guidance; empty without guidance."""
    return "" if guidance == 1 else f" --guidance {guidance:g}"


def describe_tuning(plan: Plan) -> str:
    """Return one line on the measured error of a plan."""
    tuning = plan.tuning
    if tuning is None:
        return "a plan without a measured error"
    unchanged = tuning.error == tuning.default
    in_rounds = "" if plan.rounds == plan.nfe else f" in {plan.rounds} rounds"
    kind = "the default plan, which tuning did not improve" if unchanged else "tuned"
    return (
        f"{kind}, {tuning.nfe} calls{in_rounds}: error {tuning.error:.3g} ({tuning.low:.2g} to "
        f"{tuning.high:.2g}; default plan {tuning.default:.3g}, teacher {tuning.teacher:.2g}), the "
        "distance to the exact path's end"
    )


def _measured_plan(opened: Opened, options: PlanOptions) -> NamedPlan:
    """Return the plan of a run's frontier with a given error or time, and print which it is.

    Raises:
        CheckpointError: the run has no frontier, or that of another field.
        UsageError: times were measured with another batch size.
        ValueError: no plan is that accurate or that fast.
    """
    from scorefield.tuning.frontier.measure import machine

    name, value = next((k, v) for k, v in asdict(options).items() if v is not None)
    flag, run, folder = _flag(name), opened.run, opened.folder
    if not 0 < value < math.inf:
        raise UsageError(f"{flag} {value:g}: give a positive number.")
    path = folder.frontier_path(opened.given.name, run.guidance)
    frontier = folder.frontier(run.conditional, opened.given.name, run.guidance)
    if frontier is None:
        of_class = "".join(f" --given {text}" for text in opened.options.given)
        raise CheckpointError(
            f"{path} does not exist: run scorefield compare {folder.path}{of_class}"
            f"{guidance_option(run.guidance)} first."
        )
    if options.tolerance is not None:
        point = frontier.within(options.tolerance)
    else:
        rows = opened.batch_size(MOST_ROWS)
        if rows != frontier.batch_size:
            raise UsageError(
                f"--batch-size {rows}: the times in {path} are of batches of "
                f"{frontier.batch_size}: give that, or compare again."
            )
        point = frontier.for_time(value)
        here = machine(template(run.field).device)
        if here != frontier.machine:
            say(f"times were measured on {one_line(frontier.machine)}; this is {here}")
    most = None if point.error is None else point.error.high + (frontier.teacher or 0.0)
    accuracy = "" if most is None else f", error at most {most:.3g}"
    say(
        f"picked from {path.name}: {one_line(point.name)} of {round(point.nfe, 1):g} calls"
        f"{accuracy}, {point.milliseconds:.3g} ms per sample"
    )
    assert point.plan is not None
    phrase = f"the plan {one_line(point.name)} of {path.name}"  # the same for each such value
    return NamedPlan(f"{flag[2:]}-{value:g}", point.plan, phrase=phrase)


def plans_within(name: str, field: ScoreField, budgets: Sequence[int]) -> list[Plan]:
    """Return a solver's plans with as many calls as fit each budget, the finishing call included.

    A solver that chooses its own steps has one plan for each of two tolerances instead.

    Raises:
        ValueError: the default plan of fewer than two calls.
    """
    from scorefield.runs.comparison import adaptive_plans, solver_plans

    if name == DEFAULT:
        return [default_plan(field, calls) for calls in budgets]
    solver = make_solver(name, {}, field.data_std)
    return adaptive_plans(solver) if name in _ADAPTIVE else solver_plans(field, solver, budgets)
