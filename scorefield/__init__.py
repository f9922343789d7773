"""Diffusion models in continuous time: learn one score field, choose the integrator afterwards."""

from scorefield.analytic import Empirical, Gaussian, Mixture
from scorefield.denoiser import Denoiser, noise_label, time_label
from scorefield.field import Estimate, ScoreField
from scorefield.grid import balanced, even_log_snr, karras, quadratic, uniform
from scorefield.moments import moments
from scorefield.noise import Noise
from scorefield.parametrization import (
    X0,
    Eps,
    Parametrization,
    Preconditioned,
    Score,
    V,
    Velocity,
)
from scorefield.process import Prior, Process
from scorefield.processes import EDM, VE, VP, Cosine, Flow, LinearSDE, SubVP, Tabulated
from scorefield.sample import count_calls, integrate, sample, start
from scorefield.solvers import (
    DDIM,
    RK4,
    AnglePrediction,
    DataPrediction,
    Euler,
    EulerMaruyama,
    Heun,
    Multistep,
    NoisePrediction,
    Solver,
    State,
)

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "EDM",
    "RK4",
    "VE",
    "VP",
    "X0",
    "AnglePrediction",
    "Cosine",
    "DataPrediction",
    "Denoiser",
    "Empirical",
    "Eps",
    "Estimate",
    "Euler",
    "EulerMaruyama",
    "Flow",
    "Gaussian",
    "Heun",
    "LinearSDE",
    "Mixture",
    "Multistep",
    "Noise",
    "NoisePrediction",
    "Parametrization",
    "Preconditioned",
    "Prior",
    "Process",
    "Score",
    "ScoreField",
    "Solver",
    "State",
    "SubVP",
    "Tabulated",
    "V",
    "Velocity",
    "balanced",
    "count_calls",
    "even_log_snr",
    "integrate",
    "karras",
    "moments",
    "noise_label",
    "quadratic",
    "sample",
    "start",
    "time_label",
    "uniform",
]
