"""The command line: one file a command.

Importing this package loads neither torch nor the rest of scorefield, so that ``--help`` answers at
once; a command imports its modules when it runs.
"""

from scorefield.cli.app import main

__all__ = ["main"]
