from .builtin import BUILTIN, digits, toy
from .columns import Columns
from .encoding import Continuous, Encoding, Levels
from .inspection import inspect
from .source import Data, read
from .transform import Standardize

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
