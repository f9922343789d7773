"""Configuration files at the command line: what a flag says goes before what a file says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts.config import Dict

from scorefield._internal import toml
from scorefield._internal.errors import UsageError

FLAG = "--config"


def named(arguments: Sequence[str]) -> Path | None:
    """Return the file that arguments name by ``--config``."""
    path = _given(arguments, FLAG)
    return None if path is None else Path(path)


def source(path: Path, arguments: Sequence[str]) -> Dict:
    """Return a file's settings, for what the arguments leave open.

    A table of a kind, such as ``[process]``, is left aside where a flag names another kind.

    Raises:
        UsageError: there is no such file, or it is not TOML.
    """
    values = read_settings(path)
    for name, table in list(values.items()):
        kind = _given(arguments, f"--{name.replace('_', '-')}.kind")
        if kind is not None and isinstance(table, dict) and table.get("kind", kind) != kind:
            del values[name]
    return Dict(values, use_commands_as_keys=False, source=str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a file: of training, or of a run's own ``config.toml``.

    Raises:
        UsageError: there is no such file, or it is not TOML.
    """
    try:
        values = toml.read(path)
    except OSError as error:
        raise UsageError(f"{FLAG} {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{FLAG} {path} is not TOML: {error}.") from None
    train = values.get("train")
    return train if isinstance(train, dict) else values


def _given(arguments: Sequence[str], flag: str) -> str | None:
    for k, argument in enumerate(arguments):
        if argument == flag and k + 1 < len(arguments):
            return arguments[k + 1]
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
    return None
