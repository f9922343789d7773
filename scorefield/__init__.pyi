"""The public names, and where each comes from; the package loads them when first used."""

from . import (
    data as data,
    interop as interop,
    networks as networks,
    report as report,
    spaces as spaces,
    theory as theory,
)
from ._internal import errors as errors
from .data.encoding import Standardize as Standardize
from .data.source import Data as Data, read as read
from .evaluate import metrics as metrics
from .evaluate.audit import Audit as Audit, AuditLevel as AuditLevel, audit as audit
from .evaluate.calibration import Calibration as Calibration, calibration as calibration
from .evaluate.certify import Certificate as Certificate, certify as certify
from .evaluate.check import check as check
from .evaluate.metrics import Metric as Metric
from .field import (
    X0 as X0,
    ClassifierFree as ClassifierFree,
    Clipped as Clipped,
    Coefficients as Coefficients,
    Denoiser as Denoiser,
    Empirical as Empirical,
    Eps as Eps,
    Estimate as Estimate,
    FieldWrapper as FieldWrapper,
    Gaussian as Gaussian,
    Inexact as Inexact,
    Instant as Instant,
    Mixture as Mixture,
    Parametrization as Parametrization,
    Preconditioned as Preconditioned,
    Product as Product,
    Scaled as Scaled,
    Score as Score,
    ScoreField as ScoreField,
    Thresholded as Thresholded,
    Tilted as Tilted,
    V as V,
    Velocity as Velocity,
    noise_label as noise_label,
    ratio_label as ratio_label,
    time_label as time_label,
)
from .field.coupled import CoupledGaussian as CoupledGaussian
from .inverse import (
    DPS as DPS,
    MMPS as MMPS,
    Blur as Blur,
    Downsample as Downsample,
    Fourier as Fourier,
    Grey as Grey,
    LinearOperator as LinearOperator,
    Mask as Mask,
    Matrix as Matrix,
    Nonlinear as Nonlinear,
    Operator as Operator,
    PiGDM as PiGDM,
    restore as restore,
)
from .likelihood import (
    Bound as Bound,
    Likelihood as Likelihood,
    Moments as Moments,
    elbo as elbo,
    log_prob as log_prob,
)
from .networks import MLP as MLP, UNet as UNet
from .noise import Noise as Noise
from .process import (
    EDM as EDM,
    VE as VE,
    VP as VP,
    Blurring as Blurring,
    Cosine as Cosine,
    Flow as Flow,
    LinearSDE as LinearSDE,
    PerCoordinate as PerCoordinate,
    Prior as Prior,
    Process as Process,
    Sigmoid as Sigmoid,
    SubVP as SubVP,
    Tabulated as Tabulated,
    Whitening as Whitening,
    balanced as balanced,
    even_log_snr as even_log_snr,
    karras as karras,
    moments as moments,
    quadratic as quadratic,
    uniform as uniform,
)
from .report.builder import write_report as write_report
from .runs.codec_training import train_codec as train_codec
from .runs.codecs import TrainedCodec as TrainedCodec, load_codec as load_codec
from .runs.folder import RunFolder as RunFolder
from .runs.loading import load as load
from .runs.run import Run as Run
from .runs.trainer import Training as Training, train as train
from .sampling import (
    Adaptive as Adaptive,
    Codes as Codes,
    Decoded as Decoded,
    Plan as Plan,
    count_calls as count_calls,
    decode as decode,
    default_plan as default_plan,
    encode as encode,
    integrate as integrate,
    interpolate as interpolate,
    prepare as prepare,
    prior as prior,
    round_trip_plan as round_trip_plan,
    sample as sample,
    slerp as slerp,
    unroll as unroll,
)
from .sampling.translate import translate as translate
from .solvers import (
    DDIM as DDIM,
    DDPM as DDPM,
    RK4 as RK4,
    Ancestral as Ancestral,
    AnglePrediction as AnglePrediction,
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
    Midpoint as Midpoint,
    Move as Move,
    Multistep as Multistep,
    NoisePrediction as NoisePrediction,
    OneStep as OneStep,
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
from .training.config import (
    OptimConfig as OptimConfig,
    TrainConfig as TrainConfig,
)
from .training.couplings import (
    Coupling as Coupling,
    OptimalTransport as OptimalTransport,
    Reflow as Reflow,
)
from .training.loop import fit as fit
from .training.objective import (
    EDMWeighting as EDMWeighting,
    FlowMatching as FlowMatching,
    LikelihoodWeighting as LikelihoodWeighting,
    LogitNormalTimes as LogitNormalTimes,
    LogNormalTimes as LogNormalTimes,
    MinSNR as MinSNR,
    Objective as Objective,
    Simple as Simple,
    TimeDistribution as TimeDistribution,
    UniformTimes as UniformTimes,
    Weighting as Weighting,
)
from .training.steps import Progress as Progress
from .tuning import (
    Tuner as Tuner,
    tune as tune,
)
from .tuning.frontier import (
    Frontier as Frontier,
    frontier as frontier,
)

__version__: str
