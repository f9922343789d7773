"""Random numbers that are pure functions of (seed, sample id, step)."""

from scorefield.noise.brownian import PATHS, Walk, clock
from scorefield.noise.draws import (
    BOUND,
    CORRUPTION,
    EVALUATION,
    LEVELS,
    METRICS,
    OFFSET,
    ORDER,
    PROBES,
    SAMPLING,
    SPLIT,
    TRAINING,
    TUNING,
    Noise,
    philox,
)

__all__ = [
    "BOUND",
    "CORRUPTION",
    "EVALUATION",
    "LEVELS",
    "METRICS",
    "OFFSET",
    "ORDER",
    "PATHS",
    "PROBES",
    "SAMPLING",
    "SPLIT",
    "TRAINING",
    "TUNING",
    "Noise",
    "Walk",
    "clock",
    "philox",
]
