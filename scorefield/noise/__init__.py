"""Random numbers that are pure functions of (seed, sample id, step)."""

from scorefield.noise.brownian import PATHS as PATHS, Walk as Walk, clock as clock
from scorefield.noise.draws import (
    BOUND as BOUND,
    CLASSES as CLASSES,
    CORRUPTION as CORRUPTION,
    EVALUATION as EVALUATION,
    LEVELS as LEVELS,
    METRICS as METRICS,
    OFFSET as OFFSET,
    ORDER as ORDER,
    PROBES as PROBES,
    SAMPLING as SAMPLING,
    SPLIT as SPLIT,
    TRAINING as TRAINING,
    TUNING as TUNING,
    Noise as Noise,
    philox as philox,
)
