"""Training: objectives, the loop, and runs as folders."""

from scorefield.training.loop import Progress, fit
from scorefield.training.objective import (
    EDMWeighting,
    LikelihoodWeighting,
    LogNormalTimes,
    MinSNR,
    Objective,
    Simple,
    TimeDistribution,
    UniformTimes,
    Weighting,
)

__all__ = [
    "EDMWeighting",
    "LikelihoodWeighting",
    "LogNormalTimes",
    "MinSNR",
    "Objective",
    "Progress",
    "Simple",
    "TimeDistribution",
    "UniformTimes",
    "Weighting",
    "fit",
]
