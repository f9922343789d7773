"""Data: built-in sets, files, and the ways between data and what a field sees."""

from scorefield.data.builtin import BUILTIN, digits, toy
from scorefield.data.columns import Columns
from scorefield.data.encoding import Continuous, Encoding, Levels
from scorefield.data.inspection import inspect
from scorefield.data.source import Data, read
from scorefield.data.transform import Standardize

__all__ = [
    "BUILTIN",
    "Columns",
    "Continuous",
    "Data",
    "Encoding",
    "Levels",
    "Standardize",
    "digits",
    "inspect",
    "read",
    "toy",
]
