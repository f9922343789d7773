"""Inverse problems: operators, and posterior fields given a measurement."""

from scorefield.inverse.base import LinearOperator, Operator
from scorefield.inverse.operators import Blur, Downsample, Fourier, Grey, Mask, Matrix, Nonlinear
from scorefield.inverse.posterior import DPS, MMPS, PiGDM, Posterior
from scorefield.inverse.restore import METHODS, Method, mask_as_nan, restore

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
    "mask_as_nan",
    "restore",
]
