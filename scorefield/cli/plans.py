"""From the names at the command line to a solver and its times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield import solvers
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.cli.options import PlanOptions
from scorefield.field import ScoreField
from scorefield.process import grid as grids
from scorefield.runs.folder import PLANS
from scorefield.runs.run import Run
from scorefield.sampling import DEFAULT_CALLS, DEFAULT_STEPS, Adaptive, Plan, default_plan

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


def _predictor_corrector() -> solvers.PredictorCorrector:
    """Return the sampler of Song et al. (2021): a step of the reverse SDE, and a Langevin move."""
    return solvers.PredictorCorrector(solvers.ReverseDiffusion(), solvers.Langevin())


# the solvers of each name, and the options they take
SOLVERS: dict[str, tuple[Callable[..., solvers.Solver], tuple[str, ...]]] = {
    "multistep": (solvers.Multistep, ("order", "prediction", "corrector", "eta")),
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
    "euler-maruyama": (solvers.EulerMaruyama, ("eta",)),
    "stochastic-heun": (solvers.StochasticHeun, ("eta",)),
    "reverse-diffusion": (solvers.ReverseDiffusion, ()),
    "predictor-corrector": (_predictor_corrector, ()),
}
_SCALE = "-guidance-"
# those that choose their own steps, when compared
_ADAPTIVE = ("bosh3", "dopri5", "tsit5")
_TOLERANCES = (1e-2, 1e-3)


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


DEFAULT = "default"  # what is fitted to nothing


@dataclass(frozen=True)
class Choice:
    """A plan that is asked for.

    Attributes:
        name: what files are named after.
        make: returns it, for a run.
        told: tells what there is to know of it beside solver and times.
    """

    name: str
    make: Callable[[Run], Plan]
    told: Callable[[Plan], str] = lambda plan: ""


def choose_plan(options: PlanOptions, folder: Path, guidance: float = 1.0) -> Choice:
    """Return the plan that the options ask for, of the run in a folder under a guidance.

    Raises:
        UsageError: an option that would have no effect.
        ValueError: a solver's option out of range.
    """
    given = {name: value for name, value in asdict(options).items() if value is not None}
    nfe, named = given.pop("nfe", None), given.pop("plan", None)
    if named is not None and named != DEFAULT:
        _refuse("--plan names a file, which has solver and times", given, nfe)
        return Choice(Path(named).stem, lambda run: kept_plan(run, Path(named)), told)
    if named == DEFAULT or not given:
        _refuse("--plan default chooses solver and times", given, None)
        calls = DEFAULT_CALLS if nfe is None else nfe
        path = plan_file(folder, calls, guidance)
        if named is None and path.exists():
            return Choice(f"tuned-{calls}", lambda run: kept_plan(run, path), told)
        return Choice(f"plan-{calls}", lambda run: default_plan(run.field, calls), _default)
    if nfe is not None:
        _refuse("--nfe chooses solver and times itself", given, None)
    return _by_hand(given)


def _refuse(why: str, given: Mapping[str, Any], nfe: int | None) -> None:
    others = ", ".join(f"--{name}" for name in [*given, *([] if nfe is None else ["nfe"])])
    if others:
        raise UsageError(f"{why}, and {others} by hand: leave one of them out.")


def _default(plan: Plan) -> str:
    return "the default plan; scorefield tune fits one to the run"


def _by_hand(given: dict[str, Any]) -> Choice:
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
    if adaptive:
        rtol = 0.0 if rtol is None else rtol
        control = Adaptive(rtol, rtol if atol is None else atol)
    else:
        control = None

    def plan(run: Run) -> Plan:
        field = run.field
        scale = {"data_std": field.data_std} if spacing == "balanced" else {}
        times = control or GRIDS[spacing](field.process, count, **scale)
        return Plan(make_solver(name, given, field.data_std), times)

    return Choice(f"{name}-adaptive{control.rtol:g}" if control else f"{name}-{count}", plan)


def plan_file(folder: Path, nfe: int, guidance: float = 1.0) -> Path:
    """Return where the plan of ``nfe`` calls of a run under a guidance lies."""
    return folder / PLANS / f"nfe-{nfe}{of_scale(guidance)}.json"


def plan_files(folder: Path, guidance: float) -> list[Path]:
    """Return the files of plans that a run has for a guidance, by name."""
    files = sorted((folder / PLANS).glob("*.json"))
    return [
        path for path in files if "".join(path.stem.partition(_SCALE)[1:]) == of_scale(guidance)
    ]


def toward_none(guidance: float) -> UsageError:
    """Return what to say of guidance without a class."""
    return UsageError(f"--guidance {guidance:g}: it goes towards a class; name one with --y.")


def of_scale(guidance: float) -> str:
    """Return what the names of files say of a guidance: nothing of none."""
    return "" if guidance == 1 else f"{_SCALE}{repr(float(guidance)).removesuffix('.0')}"


def asking(guidance: float) -> str:
    """Return what is added to a command for a guidance: nothing for none."""
    return "" if guidance == 1 else f" --guidance {guidance:g}"


def kept_plan(run: Run, path: Path) -> Plan:
    """Read a plan that was fitted to a run.

    Raises:
        CheckpointError: it cannot be read, holds no plan, or that of another field.
    """
    try:
        plan = Plan.load(path)
        plan.check(run.conditional)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise CheckpointError(f"{where}{error}") from None
    return plan


def told(plan: Plan) -> str:
    """Return one line on what a plan was measured to be worth."""
    found = plan.tuning
    if found is None:
        return "a plan that was not measured"
    kind = "the default plan, which was not bettered" if found.error == found.default else "tuned"
    return (
        f"{kind}, {found.nfe} calls: {found.error:.3g} ± {found.stderr:.1g} from the exact path's "
        f"end, by the default plan {found.default:.3g} (the teacher's own error "
        f"{found.teacher:.2g})"
    )


def plans_within(name: str, field: ScoreField, budgets: Sequence[int]) -> list[Plan]:
    """Return a solver's plans of as many calls as fit each budget, the finishing call included.

    Those that choose their own steps have one for each of two tolerances instead.

    Raises:
        ValueError: the default plan of fewer than two calls.
    """
    if name == "default":
        return [default_plan(field, calls) for calls in budgets]
    solver = make_solver(name, {}, field.data_std)
    if name in _ADAPTIVE:
        return [Plan(solver, Adaptive(rtol, rtol)) for rtol in _TOLERANCES]
    counts = sorted({(calls - 1) // solver.calls for calls in budgets} - {0})
    c = field.data_std
    return [Plan(solver, grids.balanced(field.process, count, data_std=c)) for count in counts]
