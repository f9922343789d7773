"""The parts of the package, loaded when first used."""

from . import (
    calibration as calibration,
    certify as certify,
    check as check,
    metrics as metrics,
)
