"""Solvers: rules that step a state from one time to another."""

from scorefield.solvers.base import (
    Memory as Memory,
    Move as Move,
    Solver as Solver,
    State as State,
    check_solver as check_solver,
)
from scorefield.solvers.corrector import (
    Hold as Hold,
    Langevin as Langevin,
    PredictorCorrector as PredictorCorrector,
    annealed_langevin as annealed_langevin,
)
from scorefield.solvers.fitted import Fitted as Fitted, level_times as level_times
from scorefield.solvers.inpainting import RePaint as RePaint, Replacement as Replacement
from scorefield.solvers.linear import (
    Level as Level,
    LinearSolver as LinearSolver,
    Past as Past,
    Row as Row,
    Rule as Rule,
)
from scorefield.solvers.multistep import Multistep as Multistep
from scorefield.solvers.one_step import OneStep as OneStep
from scorefield.solvers.prediction import (
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
from scorefield.solvers.program import Program as Program
from scorefield.solvers.published import (
    Published as Published,
    deis as deis,
    dpm_solver as dpm_solver,
    dpm_solver_pp as dpm_solver_pp,
    unipc as unipc,
)
from scorefield.solvers.renoise import Ancestral as Ancestral, Churn as Churn, Restart as Restart
from scorefield.solvers.reversible import Reversible as Reversible
from scorefield.solvers.runge_kutta import (
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
from scorefield.solvers.singlestep import Singlestep as Singlestep
from scorefield.solvers.stochastic import (
    DDIM as DDIM,
    DDPM as DDPM,
    EulerMaruyama as EulerMaruyama,
    ReverseDiffusion as ReverseDiffusion,
    StochasticHeun as StochasticHeun,
)
