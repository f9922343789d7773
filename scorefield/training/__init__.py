"""Training: objectives here; the loop and what it needs in modules of their own."""

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
