"""Score fields: learned, exact, and guided."""

import lazy_loader

# names load on first use: a command needs few of them
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
from scorefield.field.analytic import (
    Empirical as Empirical,
    Gaussian as Gaussian,
    Mixture as Mixture,
from scorefield.field.base import (
    Estimate as Estimate,
    FieldWrapper as FieldWrapper,
    Instant as Instant,
    Pair as Pair,
    ScoreField as ScoreField,
    Shape as Shape,
    check_score as check_score,
    check_starts_at_noise as check_starts_at_noise,
from scorefield.field.clipped import (
    Clipped as Clipped,
    Thresholded as Thresholded,
from scorefield.field.denoiser import (
    Denoiser as Denoiser,
    Label as Label,
    Scaled as Scaled,
    noise_label as noise_label,
    ratio_label as ratio_label,
    time_label as time_label,
from scorefield.field.digest import (
    check_same as check_same,
    digest as digest,
from scorefield.field.guidance import (
    ClassifierFree as ClassifierFree,
    Tilted as Tilted,
from scorefield.field.inexact import Inexact as Inexact
from scorefield.field.parametrization import (
    X0 as X0,
    Coefficients as Coefficients,
    Eps as Eps,
    Parametrization as Parametrization,
    Preconditioned as Preconditioned,
    Score as Score,
    V as V,
    Velocity as Velocity,
from scorefield.field.product import Product as Product
