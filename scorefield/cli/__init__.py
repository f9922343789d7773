"""The command line: one thin command per public function.

Importing this package imports neither torch nor the rest of scorefield, so that ``--help`` answers
at once; each command imports what it needs when it runs.
"""

from scorefield.cli.app import main

__all__ = ["main"]
