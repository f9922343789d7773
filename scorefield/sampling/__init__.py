"""Generation: solvers along time grids, from the prior to data and back."""

from scorefield.sampling.adaptive import (
    Adaptive as Adaptive,
    walk as walk,
)
from scorefield.sampling.batching import (
    MOST_ROWS as MOST_ROWS,
    as_ids as as_ids,
    as_numbers as as_numbers,
    batch_rows as batch_rows,
    batches as batches,
    check_evaluating as check_evaluating,
    check_samples as check_samples,
    filled as filled,
    for_batch as for_batch,
    not_finite as not_finite,
)
from scorefield.sampling.codes import (
    Codes as Codes,
    Decoded as Decoded,
    decode as decode,
    encode as encode,
    interpolate as interpolate,
    slerp as slerp,
)
from scorefield.sampling.defaults import (
    DEFAULT_CALLS as DEFAULT_CALLS,
    DEFAULT_STEPS as DEFAULT_STEPS,
    ROUND_TRIP as ROUND_TRIP,
    ROUND_TRIP_CALLS as ROUND_TRIP_CALLS,
    SAMPLING as SAMPLING,
    Defaults as Defaults,
    check_ode as check_ode,
    default_plan as default_plan,
    noisiest as noisiest,
    resolve as resolve,
    round_trip_plan as round_trip_plan,
    round_trip_solver as round_trip_solver,
)
from scorefield.sampling.integrate import (
    Prepared as Prepared,
    count_calls as count_calls,
    integrate as integrate,
    prepare as prepare,
)
from scorefield.sampling.plan import (
    Plan as Plan,
    Tuning as Tuning,
    plan_kinds as plan_kinds,
)
from scorefield.sampling.sample import (
    from_normal as from_normal,
    prior as prior,
    sample as sample,
    template as template,
    unroll as unroll,
)
