from .objective import (
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
