"""Training: objectives here, the loop and its parts in their modules."""

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
    "Simple",
    "TimeDistribution",
    "UniformTimes",
    "Weighting",
]
