"""The processes, solvers and exact fields that tests run over.

A new process or solver joins the tests by joining a list here.
"""

import math

import pytest
import torch

import scorefield as sf
from scorefield.networks.conditions import Classes


def tensor(*values):
    """Return numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def linear_alpha_bar(count=1000, beta_first=1e-4, beta_last=0.02):
    """Return DDPM's table: the running product of ``1 - beta`` for linearly growing ``beta``."""
    return (1 - torch.linspace(beta_first, beta_last, count, dtype=torch.float64)).cumprod(0)


def vp_drift(t):
    """Return ``-beta / 2`` for ``beta`` from 0.1 to 20, as Song et al. (2021) write it."""
    return -0.5 * (0.1 + 19.9 * t)


def vp_diffusion(t):
    """Return ``sqrt(beta)``."""
    return (0.1 + 19.9 * t).sqrt()


PROCESSES = {
    "VP": sf.VP(),
    "SubVP": sf.SubVP(),
    "VE": sf.VE(),
    "Cosine": sf.Cosine(),
    "Sigmoid": sf.Sigmoid(),
    "Flow": sf.Flow(),
    "EDM": sf.EDM(),
    "LinearSDE": sf.LinearSDE(vp_drift, vp_diffusion),
    "Tabulated": sf.Tabulated(linear_alpha_bar()),
}
ALL_PROCESSES = list(PROCESSES.values())
PROCESS_IDS = list(PROCESSES)

MORE = pytest.mark.exhaustive  # of a case that repeats others

PREDICTIONS = [sf.DataPrediction(), sf.NoisePrediction(), sf.AnglePrediction()]
RUNGE_KUTTA = [
    sf.Euler(),
    sf.Midpoint(),
    sf.Heun(),
    sf.Bosh3(),
    sf.RK4(),
    sf.Dopri5(),
    sf.Tsit5(),
]
MULTISTEP = [sf.Multistep(order, kind) for order in (1, 2, 3) for kind in PREDICTIONS]
ODE_SOLVERS = [*RUNGE_KUTTA, sf.EulerMaruyama(eta=0.0), sf.DDIM(eta=0.0), *MULTISTEP]
SDE_SOLVERS = [sf.EulerMaruyama(eta=1.0), sf.DDIM(eta=0.5), sf.DDIM(eta=1.0), sf.DDPM("forward")]
ALL_SOLVERS = ODE_SOLVERS + SDE_SOLVERS

PARAMETRIZATIONS = [
    sf.Eps(),
    sf.X0(),
    sf.Score(),
    sf.V(),
    sf.Velocity(),
    sf.Preconditioned(data_std=0.7),
]

IDENTITY = torch.eye(2, dtype=torch.float64)
MEAN = tensor(0.8, -0.5)
COVARIANCE = torch.tensor([[0.9, 0.4], [0.4, 0.5]], dtype=torch.float64)


def gaussian(process):
    """Return the exact field of a correlated two-dimensional Gaussian."""
    return sf.Gaussian(process, MEAN, COVARIANCE)


def mixture(process):
    """Return the exact field of three Gaussians of different shapes in two dimensions."""
    means = torch.tensor([[1.5, 0.2], [-1.0, 1.0], [-0.3, -1.4]], dtype=torch.float64)
    covariances = torch.tensor(
        [[[0.30, 0.10], [0.10, 0.20]], [[0.15, -0.05], [-0.05, 0.4]], [[0.25, 0.0], [0.0, 0.1]]],
        dtype=torch.float64,
    )
    return sf.Mixture(process, tensor(0.5, 0.3, 0.2), means, covariances)


def interior_times(process, count=5):
    """Return times well inside the interval, equally spaced in log-SNR."""
    ratio = torch.linspace(math.log(20.0), math.log(0.05), count, dtype=torch.float64)
    return process.time(-ratio)


def time_at(process, ratio):
    """Return the time at which ``sigma / alpha`` has the given value."""
    return process.time(-torch.tensor(ratio, dtype=torch.float64).log())


def normal(*shape, seed=0, dtype=torch.float64):
    """Return standard normal numbers that are the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def silent(count):
    """Return the noise of the samples ``0 .. count - 1``, for solvers that may need some."""
    return sf.Noise(0, torch.arange(count))


def label(value):
    """Return a short name of a solver, prediction or parametrization for test ids."""
    return repr(value).replace("Prediction", "").replace("prediction=", "")


def classes(count, optional=True):
    """The conditions of a network with so many classes."""
    return {"y": Classes(count, optional)} if count else {}


def values_of(data):
    """The values of the only condition of data."""
    (values,) = data.conditions.values.values()
    return values
