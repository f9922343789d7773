"""The settings of `scorefield train` from a file: an option at the command line goes first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield._internal import toml
from scorefield._internal.errors import UsageError

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection


def apply_settings(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Complete the parsed arguments of `train`: short forms, then the file of ``--config``.

    ``--network unet`` is short for ``--network.kind unet``. A table of the file with one kind is
    left out if an option names another kind.

    Raises:
        UsageError: the file does not exist, or is not TOML.
    """
    from cyclopts.config import Dict

    if commands != ("train",):
        return
    for argument in arguments:
        tokens = argument.tokens
        if not tokens or ":" in tokens[0].value:  # a colon names a factory
            continue
        if kind := arguments.get(f"{argument.name}.kind", None):  # a slow look-up
            kind.tokens += tokens
            tokens.clear()
    files = arguments["--config"].tokens
    if not files:
        return
    values = read_settings(Path(files[0].value))
    optim = values.pop("optim", {})
    if not isinstance(optim, dict):
        raise UsageError(f"--config {files[0].value}: optim must be a table, [optim].")
    values |= optim  # whose options have no prefix
    for name, table in list(values.items()):
        kind = arguments.get(f"--{name}.kind", None)
        if kind and isinstance(table, str):  # short for a table with this kind
            values[name] = table = {"kind": table}
        if not isinstance(table, dict):
            continue
        if table.get("kind") == "custom" and arguments[f"--{name}"].tokens:  # a factory makes it
            del values[name]
            continue
        if kind and kind.tokens and table.get("kind") not in (None, kind.tokens[0].value):
            del values[name]
    Dict(values, use_commands_as_keys=False, source=files[0].value)(app, commands, arguments)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a file: of training, or of a run's own ``config.toml``.

    Raises:
        UsageError: the file does not exist, or is not TOML.
    """
    try:
        values = toml.read(path)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"--config {path} is not TOML: {error}.") from None
    train = values.get("train")
    return train if isinstance(train, dict) else values
