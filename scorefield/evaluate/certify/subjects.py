"""The solvers and processes that the table of certificates has, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield import solvers
from scorefield._internal.factory import import_object
from scorefield.process import LinearSDE, PerCoordinate, Process, builtin
from scorefield.solvers import (
    AnglePrediction,
    DataPrediction,
    Exact,
    Growth,
    Langevin,
    Multistep,
    NoisePrediction,
    Power,
    Singlestep,
    Solver,
    check_solver,
)

Make = Callable[[int], Solver]  # the solver for a grid of so many steps


def for_steps(solver: Solver | Make) -> Make:
    """Return a solver as a function of the number of steps."""
    return (lambda steps: solver) if isinstance(solver, Solver) else solver


_A, _D, _N = AnglePrediction(), DataPrediction(), NoisePrediction()
_LARGE = Langevin(0.5, 4)  # its bias, and so its order, is measurable

_ODE: dict[str, Solver | Make] = {
    "Euler": solvers.Euler(),
    "Midpoint": solvers.Midpoint(),
    "Heun": solvers.Heun(),
    "Bosh3": solvers.Bosh3(),
    "RK4": solvers.RK4(),
    "Dopri5": solvers.Dopri5(),
    "Tsit5": solvers.Tsit5(),
    "EulerMaruyama(0)": solvers.EulerMaruyama(0.0),
    "DDIM": solvers.DDIM(),
    "Singlestep(2, data)": Singlestep(2),
    "Singlestep(3, data)": Singlestep(3),
    "Singlestep(2, noise)": Singlestep(2, _N),
    "Singlestep(3, noise)": Singlestep(3, _N),
    "Singlestep(3, angle)": Singlestep(3, _A),
    **{
        f"Multistep({order}, {name})": Multistep(order, kind)
        for order in range(1, 6)
        for name, kind in (("angle", _A), ("data", _D), ("noise", _N))
    },
    "Multistep(4, angle, growth)": Multistep(4, _A, Exact(Growth())),
    "Multistep(5, angle, growth)": Multistep(5, _A, Exact(Growth())),
    "Multistep(3, data, power)": Multistep(3, _D, Exact(Power(7.0))),
    "DEIS(3)": solvers.deis(3),
    "UniPC(1)": solvers.unipc(1),
    "UniPC(2)": solvers.unipc(2),
    "UniPC(3)": solvers.unipc(3),
    "UniPC(2, noise)": solvers.unipc(2, prediction=_N),
    "UniPC(4, angle)": solvers.unipc(4, prediction=_A),
    "DPM-Solver++(2M), published": solvers.dpm_solver_pp(2, published=True),
    "UniPC(2, bh1), published": solvers.unipc(2, variant="bh1", published=True),
    "Reversible(DDIM)": solvers.Reversible(solvers.DDIM()),
    "Reversible(Singlestep(2))": solvers.Reversible(Singlestep(2)),
    "Program(Heun, Singlestep(2), Multistep(2))": solvers.Program(
        (solvers.Heun(), Singlestep(2), Multistep(2)), (5.0, 1.5)
    ),
}
_SDE: dict[str, Solver | Make] = {
    "EulerMaruyama": solvers.EulerMaruyama(),
    "EulerMaruyama(0.5)": solvers.EulerMaruyama(0.5),
    "StochasticHeun": solvers.StochasticHeun(),
    "ReverseDiffusion": solvers.ReverseDiffusion(),
    "DDIM(0.5)": solvers.DDIM(0.5),
    "DDIM(1)": solvers.DDIM(1.0),
    "DDPM(forward)": solvers.DDPM("forward"),
    "SDE-DPM-Solver++(1)": solvers.dpm_solver_pp(1, sde=True),
    "SDE-DPM-Solver++(2M)": solvers.dpm_solver_pp(2, sde=True),
    "Multistep(2, noise, 0.5)": Multistep(2, _N, eta=0.5),
    "Multistep(2, angle, 1)": Multistep(2, _A, eta=1.0),
    "Ancestral(DDIM)": solvers.Ancestral(solvers.DDIM()),
    "Ancestral(Heun, 0.5)": solvers.Ancestral(solvers.Heun(), 0.5),
    "Ancestral(Singlestep(2))": solvers.Ancestral(Singlestep(2)),
    "Churn(Heun)": lambda steps: solvers.Churn(solvers.Heun(), churn=1.0, steps=steps),
    "Restart(Heun)": lambda steps: solvers.Restart(
        solvers.Heun(), low=0.6, high=1.5, repeats=2, steps=max(1, steps // 2)
    ),
    "Program(Heun, EulerMaruyama, Multistep(2))": solvers.Program(
        (solvers.Heun(), solvers.EulerMaruyama(), Multistep(2)), (2.0, 0.8)
    ),
    "PredictorCorrector(DDIM, Langevin)": solvers.PredictorCorrector(solvers.DDIM(), _LARGE),
    "PredictorCorrector(Multistep(2), Langevin)": solvers.PredictorCorrector(Multistep(2), _LARGE),
    "AnnealedLangevin": solvers.annealed_langevin(_LARGE.snr, _LARGE.moves_per_step),
}
ODE_SOLVERS: dict[str, Make] = {name: for_steps(solver) for name, solver in _ODE.items()}
SDE_SOLVERS: dict[str, Make] = {name: for_steps(solver) for name, solver in _SDE.items()}


def _alpha_bar() -> Tensor:
    return (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


PROCESSES: dict[str, Callable[[], Process]] = {
    "VP": builtin.VP,
    "SubVP": builtin.SubVP,
    "VE": builtin.VE,
    "Cosine": builtin.Cosine,
    "Flow": builtin.Flow,
    "EDM": builtin.EDM,
    "LinearSDE": lambda: LinearSDE(
        lambda t: -0.5 * (0.1 + 19.9 * t), lambda t: (0.1 + 19.9 * t).sqrt()
    ),
    "Tabulated": lambda: builtin.Tabulated(_alpha_bar()),
}
# and one with a noise level per coordinate, which not every solver takes
EVERY_PROCESS: dict[str, Callable[[], Process]] = {
    **PROCESSES,
    "PerCoordinate": lambda: PerCoordinate([builtin.VP(), builtin.VP(beta_max=10.0)]),
}


def choose(word: str) -> tuple[dict[str, Make], list[str]]:
    """Return the solvers and the names of processes that a word stands for.

    Args:
        word: ``"all"``; the name of a process; the name of a solver or its beginning; in any case.
            Or a solver of your own, ``package.module:Name``: see `load_solver`.

    Raises:
        ValueError: an unknown name; or as `load_solver`.
    """
    if ":" in word:
        return {word.rpartition(":")[2]: for_steps(load_solver(word))}, list(PROCESSES)
    everything = {**ODE_SOLVERS, **SDE_SOLVERS}
    lower = word.lower()
    if lower == "all":
        return everything, list(PROCESSES)
    processes = [name for name in EVERY_PROCESS if name.lower() == lower]
    if processes:
        return everything, processes
    matches = [name for name in everything if name.lower().startswith(lower)]
    exact = [name for name in matches if name.lower() == lower]
    if not matches:
        raise ValueError(
            f"solver={word!r}: an unknown name. Give all, a process ({', '.join(EVERY_PROCESS)}), "
            "the beginning of a solver's name, such as heun, multistep or ddim, or your own solver "
            "as package.module:Name."
        )
    return {name: everything[name] for name in exact or matches}, list(PROCESSES)


def load_solver(reference: str) -> Solver:
    """Return the solver ``package.module:Name``.

    ``Name`` is a solver, or a class or function that returns one without arguments.

    Raises:
        ValueError: no such module or name, or the result is not a solver.
    """
    value = import_object(reference, "solver")
    solver = value() if callable(value) and not isinstance(value, Solver) else value
    check_solver("solver", solver)
    result: Solver = solver
    return result
