"""Solvers: rules that step a state from one time to another."""

from scorefield.solvers.base import Solver, State
from scorefield.solvers.multistep import (
    AnglePrediction,
    DataPrediction,
    Multistep,
    NoisePrediction,
    Prediction,
)
from scorefield.solvers.runge_kutta import (
    RK4,
    Bosh3,
    Euler,
    Heun,
    Midpoint,
    RungeKutta,
    Tableau,
)
from scorefield.solvers.stochastic import DDIM, DDPM, EulerMaruyama

__all__ = [
    "DDIM",
    "DDPM",
    "RK4",
    "AnglePrediction",
    "Bosh3",
    "DataPrediction",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Midpoint",
    "Multistep",
    "NoisePrediction",
    "Prediction",
    "RungeKutta",
    "Solver",
    "State",
    "Tableau",
]
