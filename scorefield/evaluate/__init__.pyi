"""The parts of the package, loaded when first used."""

from . import certify as certify, check as check, metrics as metrics
