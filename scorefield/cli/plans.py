"""From the names at the command line to a solver and its times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from scorefield import grid as grids, solvers
from scorefield.adaptive import Adaptive
from scorefield.cli.options import PlanOptions
from scorefield.errors import UsageError
from scorefield.field import ScoreField
from scorefield.plan import DEFAULT_CALLS, DEFAULT_STEPS, Plan, default_plan

GRIDS: dict[str, Callable[..., Tensor]] = {
    "balanced": grids.balanced,
    "uniform": grids.uniform,
    "quadratic": grids.quadratic,
    "even-log-snr": grids.even_log_snr,
    "karras": grids.karras,
}
# by the deviation of the data
PREDICTIONS: dict[str, Callable[[float], solvers.Prediction]] = {
    "angle": solvers.AnglePrediction,
    "data": lambda c: solvers.DataPrediction(),
    "noise": lambda c: solvers.NoisePrediction(),
}
# the solvers of each name, and the options they take
SOLVERS: dict[str, tuple[Callable[..., solvers.Solver], tuple[str, ...]]] = {
    "multistep": (solvers.Multistep, ("order", "prediction", "corrector", "dial")),
    "singlestep": (solvers.Singlestep, ("order", "prediction")),
    "dpm-solver": (solvers.dpm_solver, ("order",)),
    "dpm-solver++": (solvers.dpm_solver_pp, ("order", "sde")),
    "deis": (solvers.deis, ("order",)),
    "unipc": (solvers.unipc, ("order", "prediction")),
    "ddim": (solvers.DDIM, ("eta",)),
    "ddpm": (solvers.DDPM, ("variance",)),
    "euler": (solvers.Euler, ()),
    "midpoint": (solvers.Midpoint, ()),
    "heun": (solvers.Heun, ()),
    "bosh3": (solvers.Bosh3, ()),
    "rk4": (solvers.RK4, ()),
    "dopri5": (solvers.Dopri5, ()),
    "tsit5": (solvers.Tsit5, ()),
    "euler-maruyama": (solvers.EulerMaruyama, ("dial",)),
    "stochastic-heun": (solvers.StochasticHeun, ("dial",)),
    "reverse-diffusion": (solvers.ReverseDiffusion, ()),
}


def make_solver(name: str, given: Mapping[str, Any], data_std: float = 1.0) -> solvers.Solver:
    """Return the solver of a name with the options given, for data of a deviation.

    Raises:
        UsageError: an option the solver does not have.
    """
    make, takes = SOLVERS[name]
    for option in given:
        if option not in takes:
            owners = [solver for solver, (_, has) in SOLVERS.items() if option in has]
            raise UsageError(
                f"--{option} has no effect on {name}: it belongs to {', '.join(owners)}."
            )
    given = {"prediction": "angle", **given} if name == "multistep" else given
    return make(
        **{k: PREDICTIONS[v](data_std) if k == "prediction" else v for k, v in given.items()}
    )


def choose_plan(options: PlanOptions) -> tuple[str, Callable[[ScoreField], Plan]]:
    """Return a name for the plan that the options ask for, and what makes it of a field.

    Raises:
        UsageError: an option that would have no effect.
        ValueError: a solver's option out of range.
    """
    given = {name: value for name, value in asdict(options).items() if value is not None}
    nfe = given.pop("nfe", None)
    if not given:
        calls = DEFAULT_CALLS if nfe is None else nfe
        return f"plan-{calls}", lambda field: default_plan(field, calls)
    if nfe is not None:
        by_hand = ", ".join(f"--{name}" for name in given)
        raise UsageError(
            f"--nfe chooses solver and times itself, and {by_hand} by hand: leave one of them out."
        )
    rtol, atol = given.pop("rtol", None), given.pop("atol", None)
    adaptive = rtol is not None or atol is not None
    if adaptive and ("steps" in given or "grid" in given):
        raise UsageError(
            "--steps and --grid have no effect with --rtol or --atol, with which each sample "
            "chooses its own steps: leave one of them out."
        )
    name, spacing = given.pop("solver", "multistep"), given.pop("grid", "balanced")
    count = given.pop("steps", DEFAULT_STEPS)
    make_solver(name, given)  # refuses what does not fit before a run is read

    def solver_of(field: ScoreField) -> solvers.Solver:
        return make_solver(name, given, field.data_std)

    if adaptive:
        rtol = 0.0 if rtol is None else rtol
        control = Adaptive(rtol, rtol if atol is None else atol)
        return f"{name}-adaptive{control.rtol:g}", lambda field: Plan(solver_of(field), control)

    def plan(field: ScoreField) -> Plan:
        scale = {"data_std": field.data_std} if spacing == "balanced" else {}
        return Plan(solver_of(field), GRIDS[spacing](field.process, count, **scale))

    return f"{name}-{count}", plan
