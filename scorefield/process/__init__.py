"""Forward processes and their time grids: ``x_t = alpha(t) x_0 + sigma(t) eps``."""

from scorefield.process.base import (
    Coefficient,
    Prior,
    Process,
    Time,
    align,
    cast,
    check_instance,
    mix,
    total,
    unstack,
)
from scorefield.process.builtin import (
    EDM,
    VE,
    VP,
    Cosine,
    Flow,
    SubVP,
    Tabulated,
)
from scorefield.process.grid import (
    balanced,
    check_positive,
    check_times,
    even_log_snr,
    growth,
    karras,
    quadratic,
    time_near,
    uniform,
)
from scorefield.process.linear_sde import (
    LinearSDE,
    moments,
)

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Coefficient",
    "Cosine",
    "Flow",
    "LinearSDE",
    "Prior",
    "Process",
    "SubVP",
    "Tabulated",
    "Time",
    "align",
    "balanced",
    "cast",
    "check_instance",
    "check_positive",
    "check_times",
    "even_log_snr",
    "growth",
    "karras",
    "mix",
    "moments",
    "quadratic",
    "time_near",
    "total",
    "uniform",
    "unstack",
]
