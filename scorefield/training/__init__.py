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
from scorefield.training.run import Run, load
from scorefield.training.trainer import Training, train

__all__ = [
    "EDMWeighting",
    "LikelihoodWeighting",
    "LogNormalTimes",
    "MinSNR",
    "Objective",
    "Progress",
    "Run",
    "Simple",
    "TimeDistribution",
    "Training",
    "UniformTimes",
    "Weighting",
    "fit",
    "load",
    "train",
]
