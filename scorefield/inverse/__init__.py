"""Inverse problems: what was measured, and the field of what it may have been measured of."""

from scorefield.inverse.base import LinearOperator, Operator
from scorefield.inverse.operators import Blur, Downsample, Fourier, Grey, Mask, Matrix, Nonlinear
from scorefield.inverse.posterior import DPS, MMPS, PiGDM, Posterior
from scorefield.inverse.restore import METHODS, Method, as_gaps, restore

__all__ = [
    "DPS",
    "METHODS",
    "MMPS",
    "Blur",
    "Downsample",
    "Fourier",
    "Grey",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Method",
    "Nonlinear",
    "Operator",
    "PiGDM",
    "Posterior",
    "as_gaps",
    "restore",
]
