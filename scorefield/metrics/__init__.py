"""Distances between two samples: how far generated data is from data.

No number means much alone. `compare` tells each with its confidence interval, and beside it the
floor: the same distance between two independent samples of the data itself, of the same sizes.
"""

from scorefield.metrics.base import Metric, Split
from scorefield.metrics.c2st import C2ST, c2st
from scorefield.metrics.compare import Comparison, compare
from scorefield.metrics.energy import EnergyDistance, energy_distance
from scorefield.metrics.estimate import Estimate
from scorefield.metrics.frechet import FrechetDistance, frechet_distance
from scorefield.metrics.mmd import MMD, squared_mmd
from scorefield.metrics.prdc import PRDC, prdc
from scorefield.metrics.sliced import SlicedWasserstein, sliced_wasserstein

__all__ = [
    "C2ST",
    "MMD",
    "PRDC",
    "Comparison",
    "EnergyDistance",
    "Estimate",
    "FrechetDistance",
    "Metric",
    "SlicedWasserstein",
    "Split",
    "c2st",
    "compare",
    "energy_distance",
    "frechet_distance",
    "prdc",
    "sliced_wasserstein",
    "squared_mmd",
]
