"""The public names, and where each comes from; the package loads them when first used."""

from .analytic import (
    Empirical as Empirical,
    Gaussian as Gaussian,
    Mixture as Mixture,
)
from .denoiser import (
    Denoiser as Denoiser,
    noise_label as noise_label,
    time_label as time_label,
)
from .field import (
    Estimate as Estimate,
    ScoreField as ScoreField,
)
from .grid import (
    balanced as balanced,
    even_log_snr as even_log_snr,
    karras as karras,
    quadratic as quadratic,
    uniform as uniform,
)
from .linear import LinearSDE as LinearSDE, moments as moments
from .noise import Noise as Noise
from .parametrization import (
    X0 as X0,
    Eps as Eps,
    Parametrization as Parametrization,
    Preconditioned as Preconditioned,
    Score as Score,
    V as V,
    Velocity as Velocity,
)
from .process import (
    Prior as Prior,
    Process as Process,
)
from .processes import (
    EDM as EDM,
    VE as VE,
    VP as VP,
    Cosine as Cosine,
    Flow as Flow,
    SubVP as SubVP,
    Tabulated as Tabulated,
)
from .sampling import (
    count_calls as count_calls,
    integrate as integrate,
    sample as sample,
    start as start,
)
from .solvers import (
    DDIM as DDIM,
    DDPM as DDPM,
    RK4 as RK4,
    AnglePrediction as AnglePrediction,
    Bosh3 as Bosh3,
    DataPrediction as DataPrediction,
    Euler as Euler,
    EulerMaruyama as EulerMaruyama,
    Heun as Heun,
    Midpoint as Midpoint,
    Multistep as Multistep,
    NoisePrediction as NoisePrediction,
    Solver as Solver,
    State as State,
)
from .training import (
    Objective as Objective,
    Run as Run,
    fit as fit,
    load as load,
    train as train,
)

__version__: str
