"""The public names, and where each comes from; the package loads them when first used."""

from .adaptive import Adaptive as Adaptive
from .analytic import (
    Empirical as Empirical,
    Gaussian as Gaussian,
    Mixture as Mixture,
)
from .denoiser import (
    Denoiser as Denoiser,
    Scaled as Scaled,
    noise_label as noise_label,
    ratio_label as ratio_label,
    time_label as time_label,
)
from .field import (
    Estimate as Estimate,
    Instant as Instant,
    ScoreField as ScoreField,
)
from .frontiers import (
    Frontier as Frontier,
    frontier as frontier,
)
from .grid import (
    balanced as balanced,
    even_log_snr as even_log_snr,
    karras as karras,
    quadratic as quadratic,
    uniform as uniform,
)
from .guidance import (
    ClassifierFree as ClassifierFree,
    Product as Product,
    Tilted as Tilted,
)
from .inverse import (
    DPS as DPS,
    MMPS as MMPS,
    Blur as Blur,
    Downsample as Downsample,
    Fourier as Fourier,
    Grey as Grey,
    Mask as Mask,
    Matrix as Matrix,
    Nonlinear as Nonlinear,
    PiGDM as PiGDM,
)
from .latents import (
    Codes as Codes,
    Decoded as Decoded,
    decode as decode,
    encode as encode,
    interpolate as interpolate,
    slerp as slerp,
)
from .likelihood import (
    Bound as Bound,
    Likelihood as Likelihood,
    Moments as Moments,
    elbo as elbo,
    log_prob as log_prob,
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
from .plan import (
    Plan as Plan,
    default_plan as default_plan,
    round_trip_plan as round_trip_plan,
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
from .restoring import restore as restore
from .sampling import (
    count_calls as count_calls,
    integrate as integrate,
    prepare as prepare,
    sample as sample,
    start as start,
    unroll as unroll,
)
from .solvers import (
    DDIM as DDIM,
    DDPM as DDPM,
    RK4 as RK4,
    Ancestral as Ancestral,
    Angle as Angle,
    AnglePrediction as AnglePrediction,
    Basis as Basis,
    Bosh3 as Bosh3,
    Churn as Churn,
    DataPrediction as DataPrediction,
    Dopri5 as Dopri5,
    Euler as Euler,
    EulerMaruyama as EulerMaruyama,
    Exact as Exact,
    Growth as Growth,
    Heun as Heun,
    Langevin as Langevin,
    LogRatio as LogRatio,
    Midpoint as Midpoint,
    Multistep as Multistep,
    NoisePrediction as NoisePrediction,
    OwnTime as OwnTime,
    Power as Power,
    Prediction as Prediction,
    PredictorCorrector as PredictorCorrector,
    Program as Program,
    Published as Published,
    Quadrature as Quadrature,
    RePaint as RePaint,
    Replacement as Replacement,
    Restart as Restart,
    ReverseDiffusion as ReverseDiffusion,
    Reversible as Reversible,
    Singlestep as Singlestep,
    Solver as Solver,
    State as State,
    StochasticHeun as StochasticHeun,
    Tsit5 as Tsit5,
    annealed_langevin as annealed_langevin,
    deis as deis,
    dpm_solver as dpm_solver,
    dpm_solver_pp as dpm_solver_pp,
    unipc as unipc,
)
from .training import (
    Objective as Objective,
    Run as Run,
    fit as fit,
    load as load,
    train as train,
)
from .tuning import (
    Tuner as Tuner,
    tune as tune,
)

__version__: str
