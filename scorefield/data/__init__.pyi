from .builtin import BUILTIN, digits, toy
from .columns import Columns
from .encoding import Continuous, Encoding, Levels, Standardize
from .inspection import inspect
from .source import Data, read

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
