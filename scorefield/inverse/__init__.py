"""Inverse problems: what was measured, and the field of what it may have been measured of."""

from scorefield.inverse.base import LinearOperator, Operator
from scorefield.inverse.fields import DPS, MMPS, PiGDM, Posterior
from scorefield.inverse.operators import (
    Blur,
    Downsample,
    Fourier,
    Grey,
    Mask,
    Matrix,
    Nonlinear,
)

__all__ = [
    "DPS",
    "MMPS",
    "Blur",
    "Downsample",
    "Fourier",
    "Grey",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Nonlinear",
    "Operator",
    "PiGDM",
    "Posterior",
]
