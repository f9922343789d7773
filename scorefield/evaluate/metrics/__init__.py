"""Distances between two samples, such as generated and real data.

A distance of finite samples is not 0 even for equal distributions. `compare` therefore returns each
with its confidence interval and its floor: the same distance between two independent samples of the
data, of the same sizes.
"""

from scorefield.evaluate.metrics.base import Metric, Split, SplitMetric
from scorefield.evaluate.metrics.closest import ClosestRecord
from scorefield.evaluate.metrics.compare import Comparison, compare
from scorefield.evaluate.metrics.frechet import FrechetDistance, frechet_distance
from scorefield.evaluate.metrics.measurement import Measurement
from scorefield.evaluate.metrics.neighbours import C2ST, PRDC, c2st, prdc
from scorefield.evaluate.metrics.pairs import MMD, EnergyDistance, energy_distance, squared_mmd
from scorefield.evaluate.metrics.sliced import SlicedWasserstein, sliced_wasserstein

__all__ = [
    "C2ST",
    "MMD",
    "PRDC",
    "ClosestRecord",
    "Comparison",
    "EnergyDistance",
    "FrechetDistance",
    "Measurement",
    "Metric",
    "SlicedWasserstein",
    "Split",
    "SplitMetric",
    "c2st",
    "compare",
    "energy_distance",
    "frechet_distance",
    "prdc",
    "sliced_wasserstein",
    "squared_mmd",
]
