"""Errors that end a command, each with its exit code.

Library functions raise `ValueError` for a bad argument. These classes are for bad files and bad
settings. They are `ValueError` too, so Python code need not distinguish them.
"""

from __future__ import annotations

from typing import ClassVar


class UsageError(ValueError):
    """An argument of a command is wrong."""

    exit_code: ClassVar[int] = 2


class DataError(ValueError):
    """The data cannot be read, or a field cannot learn from it."""

    exit_code: ClassVar[int] = 3


class CheckpointError(ValueError):
    """A run folder is missing, incomplete or does not match its own configuration."""

    exit_code: ClassVar[int] = 4


class NumericalError(ValueError):
    """A loss or a field value is not finite."""

    exit_code: ClassVar[int] = 5


class Stopped(Exception):
    """The process was asked to stop, and has saved its state.

    Attributes:
        exit_code: 128 more than the signal's number, as in a shell.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class StorageError(ValueError):
    """A file that was written before cannot be used, or the disk is full."""

    exit_code: ClassVar[int] = 6
