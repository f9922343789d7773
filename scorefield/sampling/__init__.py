"""Generation: solvers along time grids, from the prior to data and back."""

from scorefield.sampling.adaptive import (
    Adaptive,
    walk,
)
from scorefield.sampling.batching import (
    as_ids,
    batches,
    check_evaluating,
    check_samples,
    filled,
    not_finite,
)
from scorefield.sampling.codes import (
    Codes,
    Decoded,
    decode,
    encode,
    interpolate,
    slerp,
)
from scorefield.sampling.defaults import (
    DEFAULT_CALLS,
    DEFAULT_STEPS,
    ROUND_TRIP,
    ROUND_TRIP_CALLS,
    Defaults,
    check_ode,
    default_plan,
    noisiest,
    resolve,
    round_trip_plan,
    round_trip_solver,
)
from scorefield.sampling.integrate import (
    Prepared,
    count_calls,
    integrate,
    prepare,
)
from scorefield.sampling.plan import (
    KINDS,
    Plan,
    Tuning,
)
from scorefield.sampling.sample import (
    from_normal,
    prior,
    sample,
    template,
    unroll,
)

__all__ = [
    "DEFAULT_CALLS",
    "DEFAULT_STEPS",
    "KINDS",
    "ROUND_TRIP",
    "ROUND_TRIP_CALLS",
    "Adaptive",
    "Codes",
    "Decoded",
    "Defaults",
    "Plan",
    "Prepared",
    "Tuning",
    "as_ids",
    "batches",
    "check_evaluating",
    "check_ode",
    "check_samples",
    "count_calls",
    "decode",
    "default_plan",
    "encode",
    "filled",
    "from_normal",
    "integrate",
    "interpolate",
    "noisiest",
    "not_finite",
    "prepare",
    "prior",
    "resolve",
    "round_trip_plan",
    "round_trip_solver",
    "sample",
    "slerp",
    "template",
    "unroll",
    "walk",
]
