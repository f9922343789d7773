"""Solvers: rules that step a state from one time to another."""

from scorefield.solvers.base import Memory, Move, Solver, State, check_solver
from scorefield.solvers.corrector import Hold, Langevin, PredictorCorrector, annealed_langevin
from scorefield.solvers.fitted import Fitted, level_times
from scorefield.solvers.inpainting import RePaint, Replacement
from scorefield.solvers.linear import Level, LinearSolver, Past, Row, Rule
from scorefield.solvers.multistep import Multistep
from scorefield.solvers.one_step import OneStep
from scorefield.solvers.prediction import (
    AnglePrediction,
    DataPrediction,
    Exact,
    Growth,
    NoisePrediction,
    OwnTime,
    Power,
    Prediction,
    Quadrature,
)
from scorefield.solvers.program import Program
from scorefield.solvers.published import Published, deis, dpm_solver, dpm_solver_pp, unipc
from scorefield.solvers.renoise import Ancestral, Churn, Restart
from scorefield.solvers.reversible import Reversible
from scorefield.solvers.runge_kutta import (
    RK4,
    Bosh3,
    Dopri5,
    Euler,
    Heun,
    Midpoint,
    RungeKutta,
    Tableau,
    Tsit5,
)
from scorefield.solvers.singlestep import Singlestep
from scorefield.solvers.stochastic import (
    DDIM,
    DDPM,
    EulerMaruyama,
    ReverseDiffusion,
    StochasticHeun,
)

__all__ = [
    "DDIM",
    "DDPM",
    "RK4",
    "Ancestral",
    "AnglePrediction",
    "Bosh3",
    "Churn",
    "DataPrediction",
    "Dopri5",
    "Euler",
    "EulerMaruyama",
    "Exact",
    "Fitted",
    "Growth",
    "Heun",
    "Hold",
    "Langevin",
    "Level",
    "LinearSolver",
    "Memory",
    "Midpoint",
    "Move",
    "Multistep",
    "NoisePrediction",
    "OneStep",
    "OwnTime",
    "Past",
    "Power",
    "Prediction",
    "PredictorCorrector",
    "Program",
    "Published",
    "Quadrature",
    "RePaint",
    "Replacement",
    "Restart",
    "ReverseDiffusion",
    "Reversible",
    "Row",
    "Rule",
    "RungeKutta",
    "Singlestep",
    "Solver",
    "State",
    "StochasticHeun",
    "Tableau",
    "Tsit5",
    "annealed_langevin",
    "check_solver",
    "deis",
    "dpm_solver",
    "dpm_solver_pp",
    "level_times",
    "unipc",
]
