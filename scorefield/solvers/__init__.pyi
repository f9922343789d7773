from .base import (
    Memory as Memory,
    Move as Move,
    Solver as Solver,
    State as State,
    check_noise as check_noise,
    check_solver as check_solver,
)
from .corrector import (
    Hold as Hold,
    Langevin as Langevin,
    PredictorCorrector as PredictorCorrector,
    annealed_langevin as annealed_langevin,
)
from .fitted import Fitted as Fitted, level_times as level_times
from .geodesic import Geodesic as Geodesic
from .inpainting import RePaint as RePaint, Replacement as Replacement
from .linear import (
    Level as Level,
    LinearSolver as LinearSolver,
    Past as Past,
    Row as Row,
    Rule as Rule,
)
from .multistep import Multistep as Multistep
from .one_step import OneStep as OneStep
from .prediction import (
    AnglePrediction as AnglePrediction,
    DataPrediction as DataPrediction,
    Exact as Exact,
    Growth as Growth,
    NoisePrediction as NoisePrediction,
    OwnTime as OwnTime,
    Power as Power,
    Prediction as Prediction,
    Quadrature as Quadrature,
)
from .program import Program as Program
from .published import (
    Published as Published,
    deis as deis,
    dpm_solver as dpm_solver,
    dpm_solver_pp as dpm_solver_pp,
    unipc as unipc,
)
from .renoise import Ancestral as Ancestral, Churn as Churn, Restart as Restart
from .reversible import Reversible as Reversible
from .runge_kutta import (
    RK4 as RK4,
    Bosh3 as Bosh3,
    Dopri5 as Dopri5,
    Euler as Euler,
    Heun as Heun,
    Midpoint as Midpoint,
    RungeKutta as RungeKutta,
    Tableau as Tableau,
    Tsit5 as Tsit5,
)
from .singlestep import Singlestep as Singlestep
from .stochastic import (
    DDIM as DDIM,
    DDPM as DDPM,
    EulerMaruyama as EulerMaruyama,
    ReverseDiffusion as ReverseDiffusion,
    StochasticHeun as StochasticHeun,
)
