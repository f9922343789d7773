"""Solvers: rules that step a state from one time to another."""

from scorefield.solvers.base import Solver, State
from scorefield.solvers.multistep import (
    AnglePrediction,
    DataPrediction,
    Multistep,
    NoisePrediction,
    Prediction,
)
from scorefield.solvers.runge_kutta import RK4, Euler, Heun, RungeKutta, Tableau
from scorefield.solvers.stochastic import DDIM, DDPM, EulerMaruyama

__all__ = [
    "DDIM",
    "DDPM",
    "RK4",
    "AnglePrediction",
    "DataPrediction",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Multistep",
    "NoisePrediction",
    "Prediction",
    "RungeKutta",
    "Solver",
    "State",
    "Tableau",
]
