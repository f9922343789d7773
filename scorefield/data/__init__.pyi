from .builtin import BUILTIN, digits, toy
from .cells_written import write_h5ad
from .columns import Columns
from .encoding import Continuous, Encoding, Levels, Standardize
from .inspection import inspect
from .simulated import CellSimulator, SimulatedCells
from .source import Data, read

__all__ = [
    "BUILTIN",
    "CellSimulator",
    "Columns",
    "Continuous",
    "Data",
    "Encoding",
    "Levels",
    "SimulatedCells",
    "Standardize",
    "digits",
    "inspect",
    "read",
    "toy",
    "write_h5ad",
]
