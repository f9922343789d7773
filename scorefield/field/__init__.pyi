from .analytic import (
    Empirical,
    Gaussian,
    Mixture,
)
from .base import (
    Estimate,
    FieldWrapper,
    Instant,
    Pair,
    ScoreField,
    Shape,
    check_flat,
    check_score,
    check_starts_at_noise,
)
from .bridge import Bridge
from .clipped import (
    Clipped,
    Thresholded,
)
from .denoiser import (
    Denoiser,
    Label,
    Scaled,
    bridge_std,
    noise_label,
    ratio_label,
    time_label,
)
from .digest import (
    check_same,
    digest,
)
from .guidance import (
    ClassifierFree,
    Tilted,
)
from .inexact import Inexact
from .parametrization import (
    X0,
    Coefficients,
    Eps,
    Parametrization,
    Preconditioned,
    Score,
    V,
    Velocity,
)
from .product import Product

__all__ = [
    "X0",
    "Bridge",
    "ClassifierFree",
    "Clipped",
    "Coefficients",
    "Denoiser",
    "Empirical",
    "Eps",
    "Estimate",
    "FieldWrapper",
    "Gaussian",
    "Inexact",
    "Instant",
    "Label",
    "Mixture",
    "Pair",
    "Parametrization",
    "Preconditioned",
    "Product",
    "Scaled",
    "Score",
    "ScoreField",
    "Shape",
    "Thresholded",
    "Tilted",
    "V",
    "Velocity",
    "bridge_std",
    "check_flat",
    "check_same",
    "check_score",
    "check_starts_at_noise",
    "digest",
    "noise_label",
    "ratio_label",
    "time_label",
]
