"""Data: built-in sets, files, and the transforms between data and what a field sees."""

from scorefield.data.builtin import BUILTIN, digits, toy
from scorefield.data.inspection import inspect
from scorefield.data.source import Data, read
from scorefield.data.transform import Levels, Standardize

__all__ = ["BUILTIN", "Data", "Levels", "Standardize", "digits", "inspect", "read", "toy"]
