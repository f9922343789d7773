"""Score fields: learned, exact, and guided."""

from scorefield.field.analytic import (
    Empirical,
    Gaussian,
    Mixture,
)
from scorefield.field.base import (
    Estimate,
    FieldWrapper,
    Instant,
    Pair,
    ScoreField,
    Shape,
)
from scorefield.field.denoiser import (
    Denoiser,
    Label,
    Scaled,
    noise_label,
    ratio_label,
    time_label,
)
from scorefield.field.digest import (
    check_same,
    digest,
)
from scorefield.field.guidance import (
    ClassifierFree,
    Product,
    Tilted,
)
from scorefield.field.parametrization import (
    X0,
    Coefficients,
    Eps,
    Parametrization,
    Preconditioned,
    Score,
    V,
    Velocity,
)

__all__ = [
    "X0",
    "ClassifierFree",
    "Coefficients",
    "Denoiser",
    "Empirical",
    "Eps",
    "Estimate",
    "FieldWrapper",
    "Gaussian",
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
    "Tilted",
    "V",
    "Velocity",
    "check_same",
    "digest",
    "noise_label",
    "ratio_label",
    "time_label",
]
