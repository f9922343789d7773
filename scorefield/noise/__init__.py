"""Random numbers that are pure functions of (seed, sample id, step)."""

from scorefield.noise.brownian import Walk as Walk, clock as clock
from scorefield.noise.draws import (
    BOUND as BOUND,
    CLASSES as CLASSES,
    CORRUPTION as CORRUPTION,
    DECODER as DECODER,
    ENDS as ENDS,
    EVALUATION as EVALUATION,
    LEVELS as LEVELS,
    METRICS as METRICS,
    OFFSET as OFFSET,
    ORDER as ORDER,
    PAIRS as PAIRS,
    PROBES as PROBES,
    SAMPLING as SAMPLING,
    SPLIT as SPLIT,
    TRAINING as TRAINING,
    TUNING as TUNING,
    Noise as Noise,
)
from scorefield.noise.generators import philox as philox, splitmix as splitmix
